"""The model card beside the weights: training data and licence, scores, code that loads the weights, limitations."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_utils.data.dataset import Dataset, Grid
from ssl_utils.experiments import card_code, runs
from ssl_utils.files import read_json, write_text
from ssl_utils.networks import checkpoints
from ssl_utils.segmentation import metrics

DEMANDS = {  # beginning of a licence -> what it demands of those who pass the weights on; the longest match counts
    "CC0": "nothing is asked",
    "CC-BY": "name the source and say that the weights were trained on it",
    "CC-BY-SA": "name the source; share-alike: pass on what was made from the data under the same licence. Whether "
    "weights count as that is not settled; to be safe, pass these on under the same licence too",
    "CC-BY-NC": "name the source; no commercial use; not all that is made from it may be passed on: ask before",
    "CC-BY-NC-SA": "name the source; no commercial use; share-alike: pass on what was made from it under the same "
    "licence",
    "MIT": "name the source and pass its licence text on with the data",
    "": "its terms are its owner's: ask before you pass the weights on",
}
BASELINES = {
    "mean": "mean of the visible voxels",
    "interpolation": "trilinear interpolation",
    "input": "the corrupted input itself",
    "uniform": "the same probability for every cluster",
}
LIMITATIONS = """\
For research and teaching, on images like these. **Not a medical device, not for clinical use.** Nothing is known of
other scanners, body parts, ages or diseases than those in the data."""
SETTINGS = "all of them in `config.json`, the curves in `history.csv`"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of a batch norm: kept, not learnt


def demands(licence: str) -> str:
    """Those of all its parts, where it is `joined`."""
    texts = (DEMANDS[max(filter(part.startswith, DEMANDS), key=len)] for part in licence.split(" + "))
    return "; ".join(dict.fromkeys(texts))


def joined(licences: Iterable[str]) -> str:
    """`CC0-1.0 + CC-BY 4.0`, each once."""
    return " + ".join(dict.fromkeys(part for one in licences for part in (one or "not stated").split(" + ")))


def scored_cases(done: Mapping[str, Any]) -> str:
    why = ", which also chose it: too good" if done.get("scored_on") == "validation" else ""
    return f"{done['cases']} {done.get('scored_on', 'test')} cases{why}"


def write_encoder_card(
    folder: Path, *, idea: str, pools: Sequence[tuple[Dataset, int]], grid: Grid, done: Mapping[str, Any]
) -> Path:
    """README.md beside encoder.safetensors.

    Args:
        idea: the task in one sentence.
        pools: the datasets that were pretrained on, and the number of volumes of each.
        done: the metrics of the run, as in metrics.json.
    """
    sizes, config = _sizes(folder / "encoder.safetensors")
    network, last = config.get("network", "unetr"), done["last"]
    rows = {
        "task": f"`{done['task']}`: {idea}",
        **_data_rows(pools),
        "architecture": f"{'3D vision transformer' if network == 'unetr' else f'the encoder of `{network}`'}, {sizes}",
        "training": f"{last['step']} steps, {done['seconds']:.0f} s on {done['device']}",
    }
    if not last["step"]:
        rows["training"] = (
            "none here: the weights come from a file, whose licence holds too; the head below is untrained"
        )
    if (folder / "network.safetensors").exists():
        rows["more weights"] = f"`network.safetensors`: the whole network (`{network}`), decoder and skips too"
    scores = [("this encoder with its head", last["validation_loss"])]
    scores += [(BASELINES.get(name, name), value) for name, value in done["baselines"].items()]
    sections = {
        "Input": _input(pools[0][0], grid),
        "Scores": _table(("held-out crops", "loss"), scores)
        + f"\n\nLower is better; the other rows are trivial baselines. {_probe(folder)}To measure whether pretraining "
        "helps, fine-tune this encoder and a random init with the same labels and steps.",
        "Load it": card_code.in_monai(config)
        if network == "unetr" and "as_2d" not in config
        else card_code.in_package(config),
    }
    title = f"Encoder pretrained by `{done['task']}` on {pools[0][0].name}"
    return _write(folder, title, rows, sections, [dataset for dataset, _ in pools])


def write_network_card(
    folder: Path, *, dataset: Dataset, grid: Grid, done: Mapping[str, Any], weights: Path | None
) -> Path:
    """README.md beside model.safetensors. `weights`: the pretrained weights it was fine-tuned from, None for random."""
    sizes, config = _sizes(folder / "model.safetensors")
    source = f"`{done['init']}`, fine-tuned on {done['num_labeled']} labelled volumes"
    rows = {
        "init": f"{source} (label subset {done['subset']}, seed {done['seed']})",
        "network": f"`{config['network']}`, {sizes}",
        **_data_rows([(dataset, done["num_labeled"])]),
    }
    if done.get("synthetic"):
        rows["synthetic data"] = done["synthetic"]
    if "members" in done:
        rows["soup"] = " + ".join(f"{n:.3f} x `{m}`" for m, n in zip(done["members"], done["shares"], strict=True) if n)
    if weights:
        licence = checkpoints.read_metadata(weights).get("data_licence", "not stated")
        rows["licence of the pretraining data"] = f"{licence}: {demands(licence)}"
    best = f"best at step {done['best_step']} by validation" if "best_step" in done else "none: the weights are a mean"
    rows["training"] = (
        f"{best} (validation Dice {done['validation_dice']:.3f}), {done['seconds']:.0f} s on {done['device']}"
    )
    scores = runs.read_scores(folder / "per_case.csv").groupby("class", sort=False)["dice"].mean()
    sections = {
        "Input": f"{_input(dataset, grid)} `predict` does all of this by itself.",
        "Scores": f"On {scored_cases(done)}, in the space of their files; this network was scored once. It is a "
        "single run with one label subset and one seed; another run differs.\n\n"
        + _table(("structure", "Dice"), [*scores.items(), ("mean of the cases", done["dice"])]),
        "Use it": "```bash\npython -m ssl_utils predict model.safetensors image.nii.gz --output predictions\n```\n\n"
        f"Each result is a label map with the shape and affine of its image.{_files(dataset)}{_values(dataset)}",
    }
    title = f"Segmentation network for {dataset.name}: {len(scores)} structures"
    return _write(folder, title, rows, sections, [dataset])


def _write(
    folder: Path, title: str, rows: Mapping[str, str], sections: Mapping[str, str], datasets: Sequence[Dataset]
) -> Path:
    generated = any(dataset.phantom for dataset in datasets)
    limitations = LIMITATIONS + " The phantom is generated by a program: no patient was seen." * generated
    parts = [f"# {title}", _table(("", " "), [*rows.items(), *_provenance(folder).items()])]
    parts += [f"## {name}\n\n{text}" for name, text in [*sections.items(), ("Use and limitations", limitations)]]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")
    return folder / "README.md"


def _sizes(path: Path) -> tuple[str, dict[str, Any]]:
    """Number of parameters and arguments of the network in a weights file, as text, and its config."""
    tensors, metadata = checkpoints.read(path)
    config = json.loads(metadata["config"])
    learnt = [tensor for name, tensor in tensors.items() if not name.endswith(STATISTICS)]
    return f"{sum(tensor.numel() for tensor in learnt):,} parameters: {card_code.arguments(config)}", config


def _data_rows(pools: Sequence[tuple[Dataset, int]]) -> dict[str, str]:
    rows = {}
    for dataset, volumes in pools:
        mark = f" ({dataset.name})" if len(pools) > 1 else ""
        source = "" if dataset.root else f" Source: {dataset.source}."  # the path of one's own folder is private
        rows[f"data{mark}"] = f"{dataset.title}, {volumes} volumes.{source}"
        rows[f"licence of the data{mark}"] = f"{dataset.licence}: {demands(dataset.licence)}"
    return rows


def _provenance(folder: Path) -> dict[str, str]:
    config = read_json(folder / "config.json")
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    return {
        "code": f"commit {config['commit'] or 'unknown'}; {versions}",
        "made": time.strftime("%Y-%m-%d"),
        "settings": SETTINGS,
    }


def _input(dataset: Dataset, grid: Grid) -> str:
    channels, roi = ", ".join(dataset.channels), " x ".join(map(str, grid.roi))
    spacing = " x ".join(f"{axis:g}" for axis in grid.spacing)
    space = f"resampled to {roi} voxels whatever its extent" if grid.fit else f"resampled to {spacing} mm"
    low, high = f"{dataset.intensity.low:g}", f"{dataset.intensity.high:g}"
    rule = {
        "window": f"clipped to [{low}, {high}] HU and scaled to 0..1",
        "percentile": f"clipped to percentiles {low} and {high} of the volume and scaled to 0..1 in each channel",
        "nonzero": f"clipped to percentiles {low} and {high} of the voxels that are not 0 and scaled to 0..1 in each "
        "channel, where 0 stays 0",
    }[dataset.intensity.kind]
    over = "these voxels, in each channel" if dataset.intensity.kind == "nonzero" else "the volume"
    return (
        f"Channels {channels}. A volume in RAS orientation (axes x, y, z), {space}; intensities {rule}; then less the "
        f"mean of {over}, divided by its standard deviation. Crops of {roi} voxels."
    )


def _files(dataset: Dataset) -> str:
    """How an image of several channels may be stored."""
    if len(dataset.channels) == 1:
        return ""
    files = ", ".join(f"`CASE_{number:04d}.nii.gz` ({name})" for number, name in enumerate(dataset.channels))
    return f" An image is one 4D file, or a file for each channel: {files}."


def _values(dataset: Dataset) -> str:
    """Which label values `predict` writes where regions overlap."""
    ignored = (
        ""
        if dataset.ignore is None
        else f" Voxels whose label is {dataset.ignore} (ignore) are not scored; it is never written."
    )
    if not dataset.regions:
        return ignored
    written = metrics.written_values(dataset.labels, dataset.regions)
    rows = [(value, dataset.labels[value], region) for value, region in written.items()]
    return f"{ignored} Label values are those of the data set, from the regions:\n\n" + _table(
        ("value", "label", "written"), rows
    )


def _probe(folder: Path) -> str:
    """The scores of the linear probe, if there were labels for it."""
    path = folder / "inside.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame({"linear": []})
    if table["linear"].dropna().empty:
        return ""
    first, last = table.iloc[0], table.iloc[-1]
    return (
        f"A linear probe predicts the label shares of frozen tokens with Dice {last['linear']:.3f}; before training "
        f"{first['linear']:.3f}, from the position alone {last['position']:.3f}. "
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    def line(cells: Iterable) -> str:
        texts = (f"{cell:.3f}" if isinstance(cell, float) else str(cell).replace("|", "\\|") for cell in cells)
        return f"| {' | '.join(texts)} |"

    return "\n".join(map(line, [columns, ["---"] * len(columns), *rows]))
