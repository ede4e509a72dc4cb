"""Segmentation slice by slice from windows of neighbouring slices (Zhang et al. 2023, TransSeg).

The network is a 2D ViT whose patches are as deep as the window, so a window gives the tokens of one slice, at the cost
of one. `depth=1` sees each slice alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad

from ssl_utils.errors import CourseError
from ssl_utils.networks.decoders_2d import DECODERS
from ssl_utils.networks.inflate import vit_3d
from ssl_utils.networks.interface import Encoder, SegmentationNetwork, Size, strides, triple
from ssl_utils.networks.vit import parts_of

EDGES = {"clamp": "replicate", "reflect": "reflect"}  # -> modes of `pad`


def windows_of(images: Tensor, depth: int, edge: str = "clamp") -> Tensor:
    """The window around each slice of the last axis: (B, C, H, W, S) -> (B, C, H, W, S, depth).

    Beyond the first and last slice these are repeated (`clamp`), or the slices are mirrored (`reflect`).
    """
    r = depth // 2
    return pad(images, (r, r, 0, 0, 0, 0), mode=EDGES[edge]).unfold(4, depth, 1)


class WindowEncoder(Encoder):
    """Crop (B, C, D, H, W) to the tokens (B, N, E) of all its slices, each from its window.

    Args:
        img_size, patch_size: as for the ViT; the patch is one voxel along `axis` and a square in the plane.
        depth: slices of a window, odd.
        edge: of the crop: `clamp` or `reflect`.
        axis: 0, 1 or 2, across the slices; 2 is from feet to head.

    Raises:
        CourseError: an even depth, fewer slices than a window needs, or a plane that the patch does not divide.
    """

    reads_image = ("vit.patch_embedding.patch_embeddings.weight",)
    deeper = r"vit\.blocks\."
    traceless = ("num_heads", "edge", "axis")

    def __init__(
        self,
        *,
        in_channels: int,
        img_size: int | Sequence[int],
        patch_size: int | Sequence[int] = 16,
        depth: int = 5,
        edge: str = "clamp",
        axis: int = 2,
        **sizes: Any,
    ) -> None:
        super().__init__()
        crop, patch = triple(img_size, "img_size"), triple(patch_size, "patch_size")
        if axis not in (0, 1, 2) or edge not in EDGES:
            raise CourseError(f"axis={axis!r}, edge={edge!r}: choose an axis 0, 1 or 2 and clamp or reflect")
        plane, across = [i for i in range(3) if i != axis], crop[axis]
        if depth < 1 or depth % 2 == 0:
            raise CourseError(f"depth={depth}: a window needs a middle slice; choose 1, 3, 5 or 7")
        if edge == "reflect" and across <= depth // 2:
            raise CourseError(f"depth={depth}: {across} slices cannot be mirrored that far; choose edge='clamp'")
        if patch[plane[0]] != patch[plane[1]]:
            raise CourseError(f"patch_size={patch}: must be a square in the plane of the slices; choose another axis")
        self.depth, self.edge, self.axis, self.across = depth, edge, axis, across
        flat = {"img_size": [*(crop[i] for i in plane), depth], "patch_size": [*(patch[i] for i in plane), depth]}
        self.vit = vit_3d(in_channels=in_channels, **flat, **sizes)
        self.plane = self.vit.grid[:2]  # tokens of a slice
        self.hidden_size = self.vit.hidden_size
        self.patch_size, self.grid = self._with_axis(self.vit.patch_size[:2], 1), self._with_axis(self.plane, across)
        own = {"img_size": list(crop), "patch_size": list(self.patch_size), "depth": depth, "edge": edge, "axis": axis}
        self.config = {"network": "window_vit", **self.vit.config, **own}

    def _with_axis(self, plane: Sequence[int], across: int) -> Size:
        return (*plane[: self.axis], across, *plane[self.axis :])

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        windows = windows_of(images.movedim(2 + self.axis, 4), self.depth, self.edge)
        tokens, hidden = self.vit(rearrange(windows, "b c h w s d -> (b s) c h w d"))  # (B S, h w, E)
        return self._of_crop(tokens), [self._of_crop(layer) for layer in hidden]

    def _of_crop(self, tokens: Tensor) -> Tensor:
        """Tokens of slices (B S, h w, E) in the order of the crop's grid (B, N, E)."""
        h, w = self.plane
        grid = rearrange(tokens, "(b s) (h w) e -> b h w s e", s=self.across, h=h, w=w)
        return grid.movedim(3, 1 + self.axis).flatten(1, 3)


class WindowViT(SegmentationNetwork):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W), each slice from its window.

    Args:
        decoder: `unetr`, `upernet`, `setr` or `convtrans`, in the plane.
        others: as for WindowEncoder.

    Raises:
        CourseError: as WindowEncoder, or there is no such decoder.
    """

    encoder_name = "windows"
    transformer = True
    patch_per_axis = True

    def __init__(
        self, *, in_channels: int, out_channels: int, feature_size: int = 16, decoder: str = "unetr", **encoder: Any
    ) -> None:
        super().__init__()
        if decoder not in DECODERS:
            raise CourseError(f"decoder={decoder!r}: no such decoder; choose one of {', '.join(DECODERS)}")
        self.windows = WindowEncoder(in_channels=in_channels, **encoder)
        outputs = {"out_channels": out_channels, "feature_size": feature_size, "decoder": decoder}
        self.config = self.windows.config | outputs
        self.grid, self.axis = self.windows.grid, self.windows.axis
        self.decoder = DECODERS[decoder](
            channels=in_channels,
            hidden_size=self.windows.hidden_size,
            feature_size=feature_size,
            levels=len(strides(self.windows.patch_size)),
            num_layers=len(self.windows.vit.blocks),
        )
        self.out = nn.Conv3d(feature_size, out_channels, 1)

    @classmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        names = ("patch_size", "hidden_size", "mlp_dim", "num_layers", "num_heads", "feature_size")
        return {name: scale[name] for name in names}

    @classmethod
    def new_encoder(cls, *, feature_size: int = 0, decoder: str = "", **sizes: Any) -> WindowEncoder:
        return WindowEncoder(**sizes)

    def encoder_parts(self) -> dict[str, nn.Module]:
        return parts_of(self.windows.vit)

    def maps(self, images: Tensor, tokens: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        slices = rearrange(images.movedim(2 + self.axis, 1), "b s c h w -> (b s) c h w")
        last, *inner = (self.of_slices(layer) for layer in (tokens, *hidden))
        levels = self.decoder(slices, last, inner)  # (B S, F, H / 2^i, W / 2^i) each
        return [one.unflatten(0, (-1, self.grid[self.axis])).movedim(1, 2 + self.axis) for one in levels]

    def of_slices(self, tokens: Tensor) -> Tensor:
        """Tokens of a crop (B, N, E) as the maps of its slices (B S, E, h, w)."""
        return rearrange(tokens.unflatten(1, self.grid).movedim(1 + self.axis, 1), "b s h w e -> (b s) e h w")
