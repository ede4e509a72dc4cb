"""What every export starts from: a finished fine-tuning, its network and its setup, and the licence of its data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_utils.data.lists.peers import check_folder
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.model_card import SETTINGS, demands, joined
from ssl_utils.experiments.prediction import load_saved
from ssl_utils.experiments.setups import Setup
from ssl_utils.networks import checkpoints
from ssl_utils.networks.interface import SegmentationNetwork

UNKNOWN = ("", "not stated")
ROW = "| licence of the data |"  # of the card


@dataclass(frozen=True)
class FinishedRun:
    """A finished fine-tuning, or a soup of them.

    Attributes:
        name: of the dataset and the init, for titles.
        licence: of the data it was trained on, which holds for its weights too.
    """

    folder: Path
    network: SegmentationNetwork
    setup: Setup
    name: str
    licence: str
    done: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    def card(self) -> str:
        """The card of the run, with the licence that was named where the run knew none, and what is not exported."""
        escaped = f"{self.licence}: {demands(self.licence)}".replace("|", "\\|")
        card = (self.folder / "README.md").read_text(encoding="utf-8")
        card = re.sub(rf"^{re.escape(ROW)} .*$", lambda _: f"{ROW} {escaped} |", card, flags=re.MULTILINE)
        return card.replace(SETTINGS, f"{SETTINGS} of the run, which stayed with it")

    def terms(self) -> str:
        """The text of a LICENSE file."""
        return terms(self.licence)


def terms(licence: str) -> str:
    """The text of a LICENSE file, for weights that were trained on data of this licence."""
    lines = [
        f"Weights: trained on data whose licence is {licence}.",
        f"What it demands: {demands(licence)}.",
        "Configuration and code in this folder: Apache License 2.0, as the package ssl_utils that wrote them.",
        "For research and teaching. Not a medical device, not for clinical use.",
    ]
    return "\n".join(lines) + "\n"


def opened(run: Path, folder: Path, *, licence: str | None) -> FinishedRun:
    """The run in the folder `run`, once it is certain that it may be written to `folder`.

    `licence`: of the data, where the run does not know it.

    Raises:
        CourseError: the run is not finished, its model is damaged, nobody has named a licence of its data or it
            is another one than the run knows, or `folder` cannot be made or contains something.
    """
    model, done = run / "model.safetensors", runs.metrics(run)
    if not done or not model.exists():
        fix = "finish it first; a run is a folder such as finetune/random/n6/subset0_seed0"
        raise CourseError(f"{run}: is no finished fine-tuning; {fix}")
    check_folder(folder)
    network, setup = load_saved(model)
    meta = checkpoints.read_metadata(model)
    licence = licence_of(run, meta, licence)
    name = f"{meta.get('dataset', 'unknown')}, {meta.get('init', 'unknown')}"
    return FinishedRun(run, network.eval(), setup, name, licence, done)


def licence_of(run: Path, meta: Mapping[str, str], licence: str | None) -> str:
    """The licence of a run's data: that of the metadata, else the named one. Raises CourseError without any, or when
    the two differ."""
    known, named = (" ".join(text.split()) for text in (meta.get("data_licence", ""), licence or ""))
    if not {*known.split(" + ")} & {*UNKNOWN}:  # of several datasets all are known
        if named and _spelled(named) != _spelled(known):
            raise CourseError(f"{run}: the licence of its data is {known}, not {named}; leave --licence out")
        return known
    if named in UNKNOWN:
        why = "nobody has stated the licence of the data it was trained on, which holds for the weights too"
        raise CourseError(f"{run}: {why}; name it with --licence, or do not share the model")
    return joined([*(part for part in known.split(" + ") if part not in UNKNOWN), named])


def _spelled(licence: str) -> str:
    return licence.casefold().replace("-", " ")  # CC-BY-4.0 is CC-BY 4.0
