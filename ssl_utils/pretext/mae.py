"""Masked autoencoder in 3D (He et al. 2022): encode the visible tokens only, reconstruct the hidden ones with a light
decoder. Mask and loss are SimMIM's; the two differ in the input of the encoder."""

from typing import Annotated

import torch
from torch import Tensor, nn

from ssl_utils.errors import CourseError
from ssl_utils.networks.heads import LinearHead
from ssl_utils.networks.interface import Encoder
from ssl_utils.networks.vit import Block, ViT, initialise, sincos_positions
from ssl_utils.pretext.simmim import ForegroundWeight, MaskRatio, MaskUnit, NormaliseTarget, SimMIMTask
from ssl_utils.training.options import Option


def visible_indices(mask: Tensor) -> Tensor:
    """Indices of the visible tokens (B, n) of a mask (B, N), in token order.

    Raises:
        CourseError: crops have different numbers of visible tokens.
    """
    kept = (~mask).sum(1)  # (B,)
    if (kept != kept[0]).any():
        raise CourseError(
            f"mask: keeps {int(kept.min())} to {int(kept.max())} tokens a crop; MAE needs equally many: "
            "choose a mask_unit that divides the token grid, such as 1"
        )
    return mask.byte().argsort(dim=1, stable=True)[:, : int(kept[0])]  # False sorts before True


def gather(tokens: Tensor, indices: Tensor) -> Tensor:
    """The tokens at these positions: (B, N, E), (B, n) -> (B, n, E)."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[2]))


def put_back(tokens: Tensor, indices: Tensor, mask_tokens: Tensor) -> Tensor:
    """The inverse of `gather`: write (B, n, E) to their positions among mask tokens (B, N, E)."""
    return mask_tokens.scatter(1, indices[..., None].expand_as(tokens), tokens)


class LightDecoder(nn.Module):
    """A narrow ViT on all tokens, then one linear layer to voxels: (B, N, width) -> (B, C, D, H, W). Its positions are
    fixed, so that positions are learnt by the encoder."""

    def __init__(self, *, encoder: ViT, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.register_buffer("positions", sincos_positions(encoder.grid, width))  # (1, N, width)
        self.blocks = nn.Sequential(
            *(Block(hidden_size=width, mlp_dim=4 * width, num_heads=num_heads, dropout=0.0) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.voxels = LinearHead(
            hidden_size=width, patch_size=encoder.patch_size, out_channels=encoder.config["in_channels"]
        )
        self.blocks.apply(initialise)

    def forward(self, tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
        return self.voxels(self.norm(self.blocks(tokens + self.positions)), grid)


class MAETask(SimMIMTask):
    """Reconstruct hidden tokens from an encoding of the visible ones.

    The loss is SimMIM's L1 over hidden voxels (He et al.: squared error), of intensities by default: both tasks and the
    trivial baselines are then scored in one unit, and patches of air, which are noise, have little weight.
    `normalise_target=True` is He et al.'s choice for photographs.

    Args:
        mask_ratio, mask_unit, normalise_target, foreground_weight: as in SimMIM; units must divide the token grid.
        decoder_width, decoder_depth: of the decoder, which should be much lighter than the encoder.

    Raises:
        CourseError: as SimMIM, the network has no tokens, or the unit does not divide the token grid.
    """

    encoder_only = (
        "is not possible with MAE, whose encoder lacks the tokens at hidden positions that a UNETR's decoder needs; "
        "choose scope='encoder', or the task simmim"
    )

    def __init__(
        self,
        *,
        encoder: Encoder,
        lr: float,
        steps: int,
        seed: int = 0,
        mask_ratio: MaskRatio = 0.75,
        mask_unit: MaskUnit = 1,
        normalise_target: NormaliseTarget = False,
        foreground_weight: ForegroundWeight = 1.0,
        decoder_width: Annotated[int, Option("channels of the decoder", low=12)] = 64,
        decoder_depth: Annotated[int, Option("blocks of the decoder", low=1)] = 2,
    ) -> None:
        if not isinstance(encoder, ViT):
            raise CourseError(
                f"task='mae': needs tokens, which {encoder.config['network']} does not have; choose network=unetr, or "
                "the task simmim"
            )
        super().__init__(
            encoder=encoder,
            lr=lr,
            steps=steps,
            seed=seed,
            mask_ratio=mask_ratio,
            mask_unit=mask_unit,
            normalise_target=normalise_target,
            foreground_weight=foreground_weight,
        )
        if any(g % mask_unit for g in encoder.grid):
            raise CourseError(
                f"mask_unit={mask_unit}: does not divide the {encoder.grid} tokens, so crops would differ in the "
                "number of visible ones; MAE needs equally many, try 1 or 2"
            )
        self.narrow = nn.Linear(encoder.hidden_size, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width).normal_(std=0.02))  # the decoder's
        self.head = LightDecoder(encoder=encoder, width=decoder_width, depth=decoder_depth, num_heads=4)
        self.narrow.apply(initialise)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        indices = visible_indices(mask)  # (B, n)
        # hidden patches are embedded and dropped: to embed only the others saves another 1 to 4 % of a step
        tokens = self.encoder.embed(images) + self.encoder.positions  # (B, N, E)
        encoded, _ = self.encoder.encode(gather(tokens, indices))  # (B, n, E), n = (1 - mask_ratio) N
        encoded = self.narrow(encoded)  # (B, n, width)
        mask_tokens = self.mask_token.to(encoded.dtype).expand(*mask.shape, -1)  # (B, N, width)
        return self.head(put_back(encoded, indices, mask_tokens), self.encoder.grid)  # (B, C, D, H, W)
