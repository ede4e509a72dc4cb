"""The interface of segmentation networks, which pretraining, transfer, fine-tuning and prediction rely on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ssl_utils.errors import CourseError

Size = tuple[int, int, int]


def triple(size: int | Sequence[int], name: str = "size") -> Size:
    """One whole number, or one per axis, as three. Raises CourseError when one is not positive."""
    axes = (size,) * 3 if isinstance(size, int) else tuple(int(axis) for axis in size)
    if len(axes) != 3 or min(axes) < 1:
        raise CourseError(f"{name}={size}: expected one positive whole number, or three of them")
    return axes


def token_grid(img_size: int | Sequence[int], patch_size: int | Sequence[int]) -> Size:
    """Tokens along each axis of a crop. Raises CourseError when the crop is not a multiple of the patch."""
    image, patch = triple(img_size, "img_size"), triple(patch_size, "patch_size")
    if any(i % p for i, p in zip(image, patch, strict=True)):
        raise CourseError(f"img_size={image}: not a multiple of patch_size={patch}; change one of the two")
    return tuple(i // p for i, p in zip(image, patch, strict=True))


def strides(patch_size: int | Sequence[int]) -> list[Size]:
    """How the levels of a network make a patch, fine to coarse: (8, 8, 2) by (2, 2, 1), (2, 2, 1), (2, 2, 2), so that
    an axis with thick slices is halved last. Raises CourseError when a side is no power of two, or all are 1."""
    patch = triple(patch_size, "patch_size")
    times = [side.bit_length() - 1 for side in patch]
    most = max(times)
    if not most or any(side != 2**n for side, n in zip(patch, times, strict=True)):
        raise CourseError(f"patch_size={patch_size}: its sides must be 2, 4, 8, 16 or 32 voxels, or 1 for two at most")
    return [tuple(2 if level + n >= most else 1 for n in times) for level in range(most)]


def levels_of(patch_size: int | Sequence[int]) -> int | Size:
    """Levels of a pyramid whose coarsest cell is such a patch: one number, or one per axis where they differ."""
    levels = tuple(side.bit_length() for side in triple(patch_size, "patch_size"))
    return levels[0] if len({*levels}) == 1 else levels


def arguments(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, from its `locals()`."""
    return {name: value for name, value in scope.items() if name not in ("self", "__class__")}


class Encoder(nn.Module, ABC):
    """Crop (B, C, D, H, W) to its tokens (B, N, E), and the hidden maps or tokens that its decoder needs.

    A token is one vector per patch: of a transformer, or a cell of the coarsest map of a pyramid.
    """

    config: dict[str, Any]  # arguments to build it again
    patch_size: Size  # voxels per token
    grid: Size  # tokens along each axis of a crop
    hidden_size: int  # E
    reads_image: tuple[str, ...]  # names of weights whose second axis is the channels of the image
    deeper = ""  # pattern of the names of weights of a further layer
    traceless: tuple[str, ...] = ()  # settings that change the computation but no shape of a weight

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]: ...


class SegmentationNetwork(nn.Module, ABC):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W).

    A subclass sets `config`, with its name in the registry under `network`, and the layer `out`. With deep supervision
    `forward` returns a list of logits in training mode, full resolution first. Names of all output layers begin with
    `out`; they are never transferred.
    """

    config: dict[str, Any]
    encoder_name: str  # attribute of its `Encoder`
    transformer = False  # whether its encoder is one, which is fine-tuned at a lower learning rate
    run_options: tuple[str, ...] = ()  # arguments of its constructor that a fine-tuning may set
    patch_per_axis = False  # whether its patch may have another size along each axis
    axis: int | None = None  # across the slices that it reads; None: it reads volumes
    out: nn.Module

    @classmethod
    @abstractmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        """Its arguments at a scale, besides channels and crop."""

    @classmethod
    def new_encoder(cls, **sizes) -> Encoder:
        """Its encoder alone; `sizes` as for the network, without `out_channels`."""
        return cls(**sizes, out_channels=1).encoder

    @property
    def encoder(self) -> Encoder:
        return getattr(self, self.encoder_name)

    @abstractmethod
    def encoder_parts(self) -> dict[str, nn.Module]:
        """The parts of the encoder by name, from the image inwards, for freezing and layer-wise learning rates."""

    def decoder_parts(self) -> list[nn.Module]:
        return [part for name, part in self.named_children() if name != self.encoder_name]

    @abstractmethod
    def maps(self, images: Tensor, tokens: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        """`features`, from the output of the encoder."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Levels of the decoder, coarse to fine: the encoder's coarsest map, then one map per doubling (B, F, ...)."""
        return self.maps(images, *self.encoder(images))

    def decode(self, images: Tensor, tokens: Tensor, hidden: list[Tensor]) -> Tensor:
        """Logits (B, out_channels, D, H, W) from the image and the output of the encoder."""
        return self.out(self.maps(images, tokens, hidden)[-1])

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        return self.decode(images, *self.encoder(images))

    def without_encoder(self) -> "SegmentationNetwork":
        """Itself without its encoder; only `maps` and `decode` work from then on."""
        setattr(self, self.encoder_name, None)
        return self

    @property
    def out_biases(self) -> list[nn.Parameter]:
        """The bias of each output layer."""
        return [p for n, p in self.named_parameters() if n.startswith("out") and n.endswith("bias")]
