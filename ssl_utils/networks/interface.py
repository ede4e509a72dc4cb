"""What every segmentation network offers, so that pretraining, transfer, fine-tuning and prediction work with each."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ssl_utils.errors import CourseError

Size = tuple[int, int, int]


def triple(size: int | Sequence[int], name: str = "size") -> Size:
    """One whole number, or one for each axis, as three positive ones."""
    axes = (size,) * 3 if isinstance(size, int) else tuple(int(axis) for axis in size)
    if len(axes) != 3 or min(axes) < 1:
        raise CourseError(f"{name}={size}: expected one positive whole number, or three of them")
    return axes


def token_grid(img_size: int | Sequence[int], patch_size: int | Sequence[int]) -> Size:
    """Tokens along each axis of a crop."""
    image, patch = triple(img_size, "img_size"), triple(patch_size, "patch_size")
    if any(i % p for i, p in zip(image, patch, strict=True)):
        raise CourseError(f"img_size={image}: not a multiple of patch_size={patch}; change one of the two")
    return tuple(i // p for i, p in zip(image, patch, strict=True))


class Encoder(nn.Module, ABC):
    """Crop (B, C, D, H, W) to its tokens (B, N, E), and whatever else the decoder of its network needs.

    A token is one vector per patch: of a transformer, or one cell of the coarsest map of a pyramid.
    """

    config: dict[str, Any]  # sizes, enough to build it again
    patch_size: Size  # voxels per token
    grid: Size  # tokens along each axis of a crop
    hidden_size: int  # E
    reads_image: tuple[str, ...]  # weights whose second axis is the channels of the image
    deeper = ""  # pattern of names that stand for one more layer
    traceless: tuple[str, ...] = ()  # settings that no weight shows, though they change what the weights compute

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]: ...


class SegmentationNetwork(nn.Module, ABC):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W).

    A subclass sets `config`, with its name in the registry under `network`, and the layer `out`. Deep supervision: in
    training mode `forward` may return a list of logits, full resolution first. Names of all layers that give logits
    begin with `out`; they are never transferred.
    """

    config: dict[str, Any]
    encoder_name: str  # attribute of its `Encoder`
    out: nn.Module

    @classmethod
    @abstractmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        """Its arguments at a scale, besides channels and crop, from the numbers of the scale."""

    @classmethod
    def new_encoder(cls, **sizes) -> Encoder:
        """Its encoder alone, with random weights; `sizes` as for the network, `out_channels` left out."""
        return cls(**sizes, out_channels=1).encoder

    @property
    def encoder(self) -> Encoder:
        return getattr(self, self.encoder_name)

    @abstractmethod
    def encoder_parts(self) -> dict[str, nn.Module]:
        """The parts of the encoder by name, from the image inwards: what is frozen, and learns slower further out."""

    def decoder_parts(self) -> list[nn.Module]:
        return [part for name, part in self.named_children() if name != self.encoder_name]

    @abstractmethod
    def maps(self, images: Tensor, tokens: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        """`features`, from what the encoder returned."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Levels of the decoder, coarse to fine: the encoder's coarsest map, then one map per doubling (B, F, ...)."""
        return self.maps(images, *self.encoder(images))

    def decode(self, images: Tensor, tokens: Tensor, hidden: list[Tensor]) -> Tensor:
        """Logits (B, out_channels, D, H, W) from the image and what the encoder returned."""
        return self.out(self.maps(images, tokens, hidden)[-1])

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        return self.decode(images, *self.encoder(images))

    def without_encoder(self) -> "SegmentationNetwork":
        """Give the encoder away and stay as its decoder: only `maps` and `decode` work from then on."""
        setattr(self, self.encoder_name, None)
        return self

    @property
    def out_biases(self) -> list[nn.Parameter]:
        """The bias of each layer that gives logits."""
        return [p for n, p in self.named_parameters() if n.startswith("out") and n.endswith("bias")]
