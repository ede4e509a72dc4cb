"""Weight inflation (Zhang et al. 2023, TransSeg): a 2D ViT, trained here as a masked autoencoder of slices or elsewhere
on photographs, becomes a 3D encoder: its patches get a depth, and all other weights stay as they are."""

from typing import Annotated

import torch
from einops import rearrange
from torch import Tensor

from ssl_utils.errors import CourseError
from ssl_utils.networks.inflate import HOW, TABLES, flat_weights, inflated, vit_3d
from ssl_utils.networks.interface import Encoder
from ssl_utils.networks.vit import ViT
from ssl_utils.networks.vit2d import load_2d
from ssl_utils.networks.window_vit import WindowEncoder
from ssl_utils.pretext.base import PretextTask
from ssl_utils.pretext.mae import MAETask
from ssl_utils.pretext.simmim import MaskRatio, SimMIMTask
from ssl_utils.training.options import Option

SIZES = ("hidden_size", "mlp_dim", "num_layers", "num_heads", "dropout")
SCRATCH = "random"  # of `how`


class InflationTask(PretextTask):
    """Pretrain a 2D MAE on slices of the crops (across their last axis), or take the weights of a file, and inflate it.

    `encoder` is the inflated network; it is made again from the 2D one at every validation, and never trained itself.

    Args:
        weights: file of a 2D ViT (`vit2d.load_2d`), whose sizes the encoder takes; no step is then trained.
        how: `centre` or `average` (`inflate.inflate`); `random`: an encoder of these sizes from scratch, the control.
        depth: slices of a window; 1 is the 2D network slice by slice. Of `window_vit` only, 5 by default.
        tables: how BEiT's relative positions are resized, `bicubic` or `geometric` (`inflate.resize_relative`).
        slices: drawn from every crop at each step.

    Raises:
        CourseError: the network has no tokens, its patch is no square in the plane, `depth` is not an odd number or not
            for this network, or the file is refused.
    """

    encoder_only = "only an encoder is inflated; choose scope='encoder'"

    def __init__(
        self,
        *,
        encoder: Encoder,
        lr: float,
        steps: int,
        seed: int = 0,
        weights: Annotated[str | None, Option("file of a 2D ViT instead of a 2D MAE of slices")] = None,
        how: Annotated[str, Option("kernels over depth; random: from scratch", choices=(*HOW, SCRATCH))] = "centre",
        depth: Annotated[int | None, Option("slices of a window of window_vit, odd; else 5", low=1)] = None,
        tables: Annotated[str, Option("how tables of relative positions are resized", choices=TABLES)] = TABLES[0],
        slices: Annotated[int, Option("of a crop in each step of the 2D MAE", low=1)] = 4,
        mask_ratio: MaskRatio = 0.75,
    ) -> None:
        windows = isinstance(encoder, WindowEncoder)
        if not isinstance(encoder, ViT) and not windows:
            network = encoder.config["network"]
            raise CourseError(f"task='inflation': {network} has no tokens; choose network=unetr or window_vit")
        if depth is not None and not windows:
            raise CourseError(f"depth={depth}: is the window of window_vit; choose that network, or leave it out")
        network, *rgb = load_2d(weights) if weights else (None,)
        config = {key: value for key, value in encoder.config.items() if key != "network"}
        config |= ({"depth": depth} if depth else {}) | (network.sizes | {"as_2d": True} if network else {})
        if network or depth:
            encoder = type(encoder)(**config) if windows else vit_3d(**config)
        trained = not network and how != SCRATCH
        super().__init__(encoder=encoder.requires_grad_(False), lr=lr, steps=steps if trained else 0, seed=seed)
        self.check_options(how=how, slices=slices, depth=depth, tables=tables)
        self.how, self.slices, self.depth, self.weights, self.windows = how, slices, depth, weights, windows
        (*plane, _), (*patch, _) = (getattr(self.deep, name) for name in ("img_size", "patch_size"))
        sizes = {key: config[key] for key in (*SIZES, "as_2d", "relative", "in_channels") if key in config}
        flat = vit_3d(img_size=[*plane, 1], patch_size=[*patch, 1], **sizes)
        if network:
            flat.load_state_dict(flat_weights(network, rgb, flat, tables=tables))
        kind = SimMIMTask if sizes.get("relative") else MAETask  # which encodes some of the tokens; these need them all
        self.mae = kind(encoder=flat, lr=lr, steps=steps, seed=seed, mask_ratio=mask_ratio)
        self.head = None
        self.inflate()

    @property
    def deep(self) -> ViT:
        """The ViT inside the encoder."""
        return self.encoder.vit if self.windows else self.encoder

    @torch.no_grad()
    def inflate(self) -> None:
        """Make the encoder again from the 2D network."""
        if self.how != SCRATCH:
            self.deep.load_state_dict(inflated(self.mae.encoder.state_dict(), self.deep, self.how))

    def on_validation_start(self) -> None:
        self.inflate()

    def flat(self, images: Tensor) -> Tensor:
        """The slices of crops, as crops of one slice: (B, C, D, H, W) -> (B W, C, D, H, 1)."""
        return rearrange(images, "b c d h w -> (b w) c d h 1")

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        if self.training:
            drawn = torch.randperm(images.shape[4], generator=generator, device=generator.device)[: self.slices]
            images = images[..., drawn]
        return self.mae.losses(self.flat(images), generator)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        shown = self.mae.reconstruct(self.flat(images), generator)
        return {name: rearrange(one, "(b w) c d h 1 -> b c d h w", b=len(images)) for name, one in shown.items()}

    def score(self, prediction: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        return self.mae.score(*(self.flat(one) for one in (prediction, images, hidden)))
