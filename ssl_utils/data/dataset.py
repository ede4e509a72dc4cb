"""The description of a dataset: channels and labels, preprocessing rule, and source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ssl_utils.data.cases import with_ignored
from ssl_utils.data.download import Archive

FILLED = 0.25  # share of the ROI that every volume must cover along each axis; the rest is padded


@dataclass(frozen=True)
class Intensity:
    """How intensities become 0..1: `window` clips to [low, high] HU, `percentile` to the percentiles of each channel,
    `nonzero` to those of its voxels that are not 0, for images without a skull: the background stays 0."""

    kind: str
    low: float
    high: float


@dataclass(frozen=True)
class Grid:
    """Voxel spacing in mm and region of interest in voxels, both in (x, y, z) order.

    `patch_size`: voxels of a patch along each axis; None: a cube of the scale's size.

    `fit`: the whole field of view of every volume is resampled to the ROI, and `spacing` is only typical. For crops
    around one structure whose extents differ so much that one spacing would waste or cut most of them.
    """

    spacing: tuple[float, float, float]
    roi: tuple[int, int, int]
    fit: bool = False
    patch_size: tuple[int, int, int] | None = None

    @property
    def required_roi(self) -> tuple[int, int, int] | None:
        """The ROI that a volume should fill; None where every volume is resampled to it."""
        return None if self.fit else self.roi


@dataclass(frozen=True)
class Layout:
    """Where the files of a dataset are, by regular expressions for their paths without ending, from its folder on.

    Attributes:
        image, label: their groups are `case`, and where they apply `patient`, `site` and `channel`.
        channels: the values of the group `channel`, in the order of the dataset's channels.
        example: the path of an image, for the error when there is none.
    """

    image: str
    label: str | None = None
    channels: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True)
class Rule:
    """Which labelled cases of a folder are in which split; without labels, which images. The others are for training.

    Attributes:
        about: what the split is, and what is wrong with it.
        fixed: split -> pattern found in the path of its images.
        positions: split -> numbers of its cases in the folder's own list.
        drawn: split -> share of the patients, for splits that have no case yet.
        in_order: training is in the order of paths; else patients take turns.

    Cases of a split of another name ("left out") are not used.
    """

    about: str
    fixed: Mapping[str, str] = field(default_factory=dict)
    positions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    drawn: Mapping[str, float] = field(default_factory=dict)
    in_order: bool = False


@dataclass(frozen=True)
class Dataset:
    """One named dataset. `folders` are the names it may have under the data root; `lists` and `rules` name its
    datalists, those in json_files and those that follow from its folder by rules; the first one is the default."""

    name: str
    title: str
    source: str
    licence: str
    channels: tuple[str, ...]
    labels: dict[int, str]
    intensity: Intensity
    grids: dict[str, Grid]
    folders: tuple[str, ...]
    lists: tuple[str, ...] = ()
    layout: Layout | None = None  # with rules; None: the folder has a layout that `lists.layouts` knows
    rules: Mapping[str, Rule] = field(default_factory=dict)
    tolerance: float = 2.0  # mm, of the normalised surface Dice
    regions: dict[str, tuple[int, ...]] | None = None  # overlapping regions as unions of label values (sigmoid)
    mirrored: tuple[str, ...] = ()  # axes along which a flipped volume could be another patient's: left-right, ...
    archive: Archive | None = None
    how_to_get: str = ""
    faces: bool = False  # its scans show faces, which are not to be rendered in three dimensions
    phantom: int | None = None  # its version, where it is generated
    root: Path | None = None  # a person's own folder
    ignore: int | None = None  # label value of voxels without annotation, which count nowhere; not among `labels`

    @property
    def is_folder(self) -> bool:
        """Whether it is a person's own folder and not one of the named datasets."""
        return self.name.startswith("folder_")

    @property
    def names(self) -> dict[int, str]:
        """Value -> name of all that a label file may contain."""
        return with_ignored(self.labels, self.ignore)

    @property
    def classes(self) -> dict[int, str]:
        """Output channel -> name of the scored structures, without the background."""
        if self.regions:
            return dict(enumerate(self.regions))
        return {i: name for i, (value, name) in enumerate(sorted(self.labels.items())) if value != 0}

    @property
    def out_channels(self) -> int:
        return len(self.regions) if self.regions else len(self.labels)


PERCENTILES = Intensity("percentile", 1, 99)  # of each volume, where values have no unit
SKULL_STRIPPED = Intensity("nonzero", 1, 99)
ABDOMEN = Intensity("window", -175, 250)  # one soft-tissue rule for pretraining and fine-tuning alike
COARSE_CT = Grid((6.0, 6.0, 6.0), (48, 40, 32))
_BTCV = """background,spleen,right kidney,left kidney,gallbladder,esophagus,liver,stomach,aorta,inferior vena cava,\
portal and splenic veins,pancreas,right adrenal gland,left adrenal gland"""
BTCV_ORGANS = dict(enumerate(_BTCV.split(",")))
BRATS_LABELS = {0: "background", 1: "necrotic core", 2: "oedema", 3: "enhancing tumour"}  # since 2023
BRATS_REGIONS = {"TC": (1, 3), "WT": (1, 2, 3), "ET": (3,)}  # tumour core, whole tumour, enhancing tumour
