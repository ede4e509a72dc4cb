"""Convolutional networks: an encoder that halves the map level by level, and a decoder that doubles it again.

level     encoder                    decoder
0         down[0](x)       ----->    up[-1]   -> out
1         down[1]          ----->    up[-2]
...
L - 1     down[L - 1]      ----->    (coarsest map: up[0] begins here)
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ssl_utils.networks.interface import Encoder, SegmentationNetwork, token_grid, triple


class Pyramid(nn.ModuleList, Encoder):
    """One module per level; each but the first halves the map. Its tokens are the cells of the coarsest map."""

    deeper = r"\d+\."
    traceless = ("norm",)

    def __init__(
        self, levels: Sequence[nn.Module], *, config: dict[str, Any], hidden_size: int, reads_image: Sequence[str]
    ) -> None:
        super().__init__(levels)
        self.config, self.hidden_size, self.reads_image = config, hidden_size, tuple(reads_image)
        self.patch_size = tuple(2 ** (n - 1) for n in triple(config.get("levels", len(self)), "levels"))
        self.grid = token_grid(config["img_size"], self.patch_size) if config["img_size"] else None

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:  # (B, C, D, H, W)
        maps = []
        for level in self:
            images = level(images)  # (B, F_i, D / 2^i, ...)
            maps.append(images)
        return images.flatten(2).transpose(1, 2), maps  # (B, N, E), one map per level


class PyramidNetwork(SegmentationNetwork):
    """A pyramid, a decoder and an output layer.

    Args:
        config: arguments of the network, with its name under `network`.
        up: blocks of the decoder, from a coarse map and the encoder's map of the next level.
        out_coarse: output layers of the coarser levels, coarsest first, for deep supervision.
    """

    encoder_name = "down"

    def __init__(
        self,
        *,
        config: dict[str, Any],
        down: Sequence[nn.Module],
        up: Sequence[nn.Module],
        out: nn.Module,
        hidden_size: int,
        reads_image: Sequence[str],
        out_coarse: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.config = config | {"img_size": list(triple(config["img_size"])) if config["img_size"] else None}
        of_encoder = {key: value for key, value in self.config.items() if key != "out_channels"}
        self.down = Pyramid(down, config=of_encoder, hidden_size=hidden_size, reads_image=reads_image)
        self.up, self.out, self.out_coarse = nn.ModuleList(up), out, nn.ModuleList(out_coarse)

    @property
    def grid(self):
        return self.down.grid

    def encoder_parts(self) -> dict[str, nn.Module]:
        return {f"level {i}": level for i, level in enumerate(self.down)}

    def maps(self, images: Tensor, tokens: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        levels = [hidden[-1]]
        for block, skip in zip(self.up, reversed(hidden[:-1]), strict=True):
            levels.append(block(levels[-1], skip))
        return levels

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        if not (self.training and self.out_coarse):
            return super().forward(images)
        levels = self.features(images)
        coarse = [layer(x) for layer, x in zip(self.out_coarse, levels[:-1], strict=True)]
        return [self.out(levels[-1]), *reversed(coarse)]
