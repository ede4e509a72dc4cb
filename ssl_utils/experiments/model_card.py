"""The card beside the weights: what was trained on what, how good it is, what its licence demands, how to load it."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_utils.data.dataset import Dataset, Grid
from ssl_utils.files import atomic, read_json
from ssl_utils.networks import NETWORKS, checkpoints

DEMANDS = {  # the beginning of a licence -> what it asks of whoever passes the weights on; the longest that fits
    "CC0": "nothing is asked",
    "CC-BY": "name the source and say that the weights were trained on it",
    "CC-BY-SA": "name the source; share-alike: pass on what was made from the data under the same licence. Whether "
    "weights count as that is not settled; to be safe, pass these on under the same licence too",
    "": "its terms are its owner's: ask before you pass the weights on",
}
LIMITS = """\
For research and teaching, on images like these. **Not a medical device, not for clinical use.** Nothing is known of
other scanners, body parts, ages or diseases than those in the data."""


def demands(licence: str) -> str:
    return DEMANDS[max((start for start in DEMANDS if licence.startswith(start)), key=len)]


def write_encoder_card(
    folder: Path, *, idea: str, pools: Sequence[tuple[Dataset, int]], grid: Grid, done: Mapping[str, Any]
) -> Path:
    """README.md beside encoder.safetensors.

    Args:
        idea: the task in one sentence.
        pools: what was pretrained on, and how many volumes of each.
        done: the metrics of the run, as they go into metrics.json.
    """
    tensors, metadata = checkpoints.read(folder / "encoder.safetensors")
    config, last = json.loads(metadata["config"]), done["last"]
    network = config.get("network", "unetr")
    kind = "3D vision transformer" if network == "unetr" else f"the encoder of `{network}`"
    rows = {
        "task": f"`{done['task']}`: {idea}",
        **_data_rows(pools),
        "architecture": f"{kind}, {_parameters(tensors)}: {_arguments(config)}",
        "training": f"{last['step']} steps, {done['seconds']:.0f} s on {done['device']}",
        **_provenance(folder),
    }
    if (folder / "network.safetensors").exists():
        rows["more weights"] = f"`network.safetensors`: the whole network (`{network}`), decoder and skips too"
    name = pools[0][0].name
    parts = [
        f"# Encoder pretrained by `{done['task']}` on {name}",
        _table(rows),
        "## What goes in",
        _input(pools[0][0], grid),
        "## How good it is",
        _reconstruction(done),
        *_inside(folder),
        "Whether it helps is measured by fine-tuning it and a random init with the same labels and steps.",
        "## Load it in MONAI" if network == "unetr" else "## Load it",
        _in_monai(config) if network == "unetr" else _in_package(config),
        "## Use and limits",
        _limits([dataset for dataset, _ in pools]),
    ]
    return _write(folder, parts)


def write_network_card(
    folder: Path, *, dataset: Dataset, grid: Grid, done: Mapping[str, Any], start: Path | None
) -> Path:
    """README.md beside model.safetensors. `start`: the weights that it was fine-tuned from, None for a random init."""
    scores = pd.read_csv(folder / "per_case.csv").groupby("class", sort=False)["dice"].mean()
    rows = {
        "start": f"`{done['init']}`, fine-tuned on {done['num_labeled']} labelled volumes "
        f"(draw {done['draw']}, seed {done['seed']})",
        **_network_row(folder / "model.safetensors"),
        **_data_rows([(dataset, done["num_labeled"])]),
    }
    if start:
        licence = checkpoints.read_metadata(start).get("data_licence", "not stated")
        rows["licence of the start's data"] = f"{licence}: {demands(licence)}"
    rows |= {
        "training": f"best at step {done['best_step']} by validation (Dice {done['validation_dice']:.3f}), "
        f"{done['seconds']:.0f} s on {done['device']}",
        **_provenance(folder),
    }
    dice = pd.DataFrame({"structure": [*scores.index, "mean of the cases"], "Dice": [*scores, done["dice"]]})
    parts = [
        f"# Segmentation network for {dataset.name}: {len(scores)} structures",
        _table(rows),
        "## What goes in",
        _input(dataset, grid) + " `predict` does all of this by itself.",
        "## How good it is",
        f"On {done['cases']} test cases, read once, in the space of their files. One run is one "
        "draw of labels and one seed: another one differs.",
        _lines(dice),
        "## Use it",
        "```bash\npython -m ssl_utils predict model.safetensors image.nii.gz --output predictions\n```",
        "Each result is a label map with the shape and affine of its image.",
        "## Use and limits",
        _limits([dataset]),
    ]
    return _write(folder, parts)


def _parameters(tensors: Mapping[str, Any]) -> str:
    return f"{sum(tensor.numel() for tensor in tensors.values()):,} parameters"


def _arguments(config: Mapping[str, Any], *without: str) -> str:
    """The sizes of a network as arguments of its class."""
    left_out = ("network", "dropout", *without)
    sizes = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items() if key not in left_out}
    return ", ".join(f"{key}={value!r}" for key, value in sizes.items())


def _network_row(path: Path) -> dict[str, str]:
    tensors, metadata = checkpoints.read(path)
    config = json.loads(metadata["config"])
    return {"network": f"`{config['network']}`, {_parameters(tensors)}: {_arguments(config)}"}


def _data_rows(pools: Sequence[tuple[Dataset, int]]) -> dict[str, str]:
    rows = {}
    for dataset, volumes in pools:
        mark = f" ({dataset.name})" if len(pools) > 1 else ""
        source = "" if dataset.root else f" Source: {dataset.source}."  # a person's own folder is nobody's business
        rows[f"data{mark}"] = f"{dataset.title}, {volumes} volumes.{source}"
        rows[f"licence of the data{mark}"] = f"{dataset.licence}: {demands(dataset.licence)}"
    return rows


def _provenance(folder: Path) -> dict[str, str]:
    config = read_json(folder / "config.json")
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    return {
        "code": f"commit {config['commit'] or 'unknown'}; {versions}",
        "made": time.strftime("%Y-%m-%d"),
        "settings": "all of them in `config.json`, the curves in `history.csv`",
    }


def _input(dataset: Dataset, grid: Grid) -> str:
    channels, roi = ", ".join(dataset.channels), " x ".join(map(str, grid.roi))
    spacing = " x ".join(f"{axis:g}" for axis in grid.spacing)
    space = f"resampled to {roi} voxels whatever its extent" if grid.fit else f"resampled to {spacing} mm"
    low, high = (f"{value:g}" for value in (dataset.intensity.low, dataset.intensity.high))
    rule = {
        "window": f"clipped to [{low}, {high}] HU and scaled to 0..1",
        "percentile": f"clipped to percentiles {low} and {high} of the volume and scaled to 0..1, each channel by "
        "itself",
    }[dataset.intensity.kind]
    return (
        f"Channels {channels}. A volume in RAS orientation (axes x, y, z), {space}; intensities {rule}; then less the "
        f"mean of the volume, divided by its standard deviation. Crops of {roi} voxels."
    )


def _reconstruction(done: Mapping[str, Any]) -> str:
    names = {"mean": "mean of the visible voxels", "in-filling": "trilinear in-filling", "input": "input handed back"}
    scores = {"this encoder with its head": done["last"]["validation_loss"]}
    scores |= {names.get(name, name): value for name, value in done["baselines"].items()}
    table = pd.DataFrame({"reconstruction of held-out crops": scores.keys(), "loss": scores.values()})
    return _lines(table) + "\n\nLower is better; the others have learnt nothing."


def _inside(folder: Path) -> list[str]:
    """The linear probe, where labels were there to look with."""
    path = folder / "inside.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame({"linear": []})
    if table["linear"].dropna().empty:
        return []
    first, last = table.iloc[0], table.iloc[-1]
    return [
        f"A linear probe reads the label shares of frozen tokens with Dice {last['linear']:.3f}; before training "
        f"{first['linear']:.3f}, and {last['place']:.3f} for the position-only baseline."
    ]


def _in_monai(config: Mapping[str, Any]) -> str:
    """Code that needs MONAI and safetensors alone, but for a UNETR that MONAI does not have; a test runs it."""
    words = _arguments(config)
    encoder = f"""\
```python
from monai.networks.nets import ViT
from safetensors.torch import load_file

vit = ViT({words})
left = vit.load_state_dict(load_file("encoder.safetensors"), strict=False)
assert not left.unexpected_keys and all("cross_attn" in key for key in left.missing_keys)  # MONAI does not use those
```
`tokens, hidden = vit(crop)` then gives the tokens of this encoder."""
    if config["patch_size"] == [16, 16, 16] and config["num_layers"] == 12:
        shared = _arguments(config, "patch_size", "num_layers")
        return f"""{encoder} Into MONAI's UNETR:

```python
from monai.networks.nets import UNETR

unetr = UNETR(out_channels=2, {shared})
unetr.vit.load_state_dict(vit.state_dict())
```"""
    return f"""{encoder} MONAI's UNETR has patches of 16 voxels and 12 blocks built in and cannot take it; the UNETR of
this package can:

{_in_package(config | {"network": "unetr"})}"""


def _in_package(config: Mapping[str, Any]) -> str:
    entry = NETWORKS[config["network"]]
    return f"""\
```python
from ssl_utils.networks.transfer import load_encoder
from ssl_utils.networks.{entry.module} import {entry.network}

{entry.module} = {entry.network}(out_channels=2, {_arguments(config)})
print(load_encoder({entry.module}.encoder, "encoder.safetensors").table())
```"""


def _limits(datasets: Sequence[Dataset]) -> str:
    generated = any(dataset.name == "phantom" for dataset in datasets)
    return LIMITS + (" The phantom is drawn by a program: no patient was seen." if generated else "")


def _table(rows: Mapping[str, str]) -> str:
    return _lines(pd.DataFrame({"": rows.keys(), " ": rows.values()}))


def _lines(table: pd.DataFrame) -> str:
    def text(value: Any) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "\\|")

    cells = [[text(value) for value in row] for row in table.itertuples(index=False)]
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _write(folder: Path, parts: Sequence[str]) -> Path:
    path = folder / "README.md"
    with atomic(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path
