"""A case, and lists of cases by side."""

from dataclasses import dataclass, field
from pathlib import Path

SIDES = ("training", "validation", "test", "unlabeled")


@dataclass(frozen=True)
class Case:
    """One image, its label if it has one, and the patient it came from."""

    id: str
    image: Path
    label: Path | None
    patient: str


@dataclass(frozen=True)
class Datalist:
    """Cases by side.

    Attributes:
        channels: names of the image's channels; more than one means 4D files, channels last.
        labels: value -> name, 0 (background) included; empty for a list of images alone.
        regions: name -> label values it unites (BraTS: TC, WT, ET); regions may overlap.
    """

    name: str
    description: str = ""
    licence: str = ""
    reference: str = ""
    channels: tuple[str, ...] = ("image",)
    labels: dict[int, str] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    training: tuple[Case, ...] = ()
    validation: tuple[Case, ...] = ()
    test: tuple[Case, ...] = ()
    unlabeled: tuple[Case, ...] = ()

    def sides(self) -> dict[str, tuple[Case, ...]]:
        return {side: getattr(self, side) for side in SIDES}
