"""The page of recipe trials has every recorded trial, and no other."""

import re

from ssl_utils.data.datasets import LISTS
from ssl_utils.experiments import runs
from ssl_utils.files import read_json

WORDS = {  # of the record -> of the page
    "random, again": "random, repeated",
    "pixel clusters": "voxel clusters",
    "voxel contrast": "voxel contrastive",
    "clusters of values without place": "clusters of values without position",
    "UNETR whole": "whole UNETR",
}


def row(trial: dict) -> list[str]:
    """The cells of the page for one trial."""
    init = trial["start"]
    for old, new in WORDS.items():
        init = init.replace(old, new)
    dice, steps = trial["dice"], trial["pretraining_steps"]
    crop = " x ".join(map(str, trial["roi"]))
    pretraining = f"{steps} x {trial['pretraining_batch']}" if steps else ""
    numbers = [
        str(trial["num_labeled"]),
        f"{sum(dice) / len(dice):.3f}",
        f"{max(dice) - min(dice):.3f}",
        str(len(dice)),
    ]
    return [trial["dataset"], trial["channels"], crop, init, pretraining, trial["learning_rate"], *numbers]


def test_the_page_has_the_recorded_trials():
    text = (runs.PROJECT / "docs" / "recipe_trials.md").read_text(encoding="utf-8")
    shown = [[c.strip() for c in line.strip("|").split("|")] for line in re.findall(r"^\| .*\|$", text, re.MULTILINE)]
    assert sorted(shown[1:]) == sorted(map(row, read_json(LISTS / "recipe_trials.json")["trials"]))
