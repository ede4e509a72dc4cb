"""Folders of synthetic cases: drawn from label maps of training cases, always for training, with their provenance."""

import json
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_utils.data import datalists
from ssl_utils.data.datalists import Case, Datalist
from ssl_utils.data.formats.stored import shape_text
from ssl_utils.data.lists import folds, msd
from ssl_utils.errors import CourseError, CourseWarning
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import atomic, read_json, sha256, write_json, write_text

LIST, CARD = "dataset.json", "card.json"
FOLDER = "synthetic"  # of a course


def draw(
    setup: Setup, generator: Path, cases: Sequence[Case], *, name: str, count: int, steps: int | None, seed: int = 0
) -> Path:
    """Draw `count` volumes, each from the label map of one of `cases` in turn; returns the folder `synthetic/NAME` of
    the course. Every file name has the hash of the model, the seed and the case of the label map. A folder that was
    drawn with the same settings is kept.

    Args:
        generator: run folder of a diffusion model (`generating.train_generator` or `adapt_generator`).
        steps: of DDIM; None: DDPM.

    Raises:
        CourseError: a held-out case, a folder with other content, a model that is not there, or for other images or of
            another split; `count` below 1 or `seed` below 0.
    """
    from ssl_utils.experiments.generating import learnt_from, load_generator  # imports Lightning

    for option, value, least in (("count", count, 1), ("seed", seed, 0)):
        if value < least:
            raise CourseError(f"{option}={value}: is less than {least}; choose another")
    check_only_training(setup, cases)
    if not (generator / "denoiser.safetensors").exists():
        raise CourseError(f"{generator}: has no denoiser.safetensors; train it by generating.train_generator")
    model, folder = sha256(generator / "denoiser.safetensors"), folder_of(setup, name)
    about = {"model": generator.name, "weights": model, "seed": seed, "count": count, "ddim_steps": steps}
    about |= {"label_maps_of": [case.id for case in cases], "data": setup.digest(cases)}
    about |= {"learnt_from": learnt_from(generator)}
    if is_drawn(folder, about):
        return folder
    network, lost = load_generator(generator, setup), outside_box(setup, cases[:count])
    if lost > 0.01:
        box = f"the box of {shape_text(setup.grid.roi)} voxels in the middle, which is drawn"
        warnings.warn(f"{lost:.0%} of the labelled voxels lie outside {box}: cut off", CourseWarning, stacklevel=2)
    with atomic(folder) as temporary:
        temporary.mkdir()
        made = []
        for start in range(0, count, 2):
            numbers = range(start, min(start + 2, count))
            sources = [cases[number % len(cases)] for number in numbers]
            seeds = [seed + number for number in numbers]
            names = [f"syn_{model[:6]}_s{s:04d}_of_{c.id}" for s, c in zip(seeds, sources, strict=True)]
            made += _write_pair(setup, network, sources, seeds, names, temporary, steps)
        _write_list(setup, made, temporary)
        _write_card(setup, temporary, about | {"outside_box": round(lost, 3)}, made)
    return folder


def outside_box(setup: Setup, cases: Sequence[Case]) -> float:
    """The share (0..1) of the labelled voxels of these cases outside the box in the middle, which is drawn."""
    from ssl_utils.synthesis.conditions import middle

    inside = total = 0
    for case in setup.prepared(cases):
        box = _slices(middle(case.image.shape[1:], setup.grid.roi), setup.grid.roi)
        inside, total = inside + int((case.label[box] > 0).sum()), total + int((case.label > 0).sum())
    return 1 - inside / total if total else 0.0


def folder_of(setup: Setup, name: str) -> Path:
    """Raises CourseError for a name that is no plain word."""
    if not re.fullmatch(r"\w+", name):
        raise CourseError(f"synthetic={name!r}: a name has letters, digits and _ alone; choose such a one")
    return setup.folder / FOLDER / name


def is_drawn(folder: Path, about: Mapping[str, Any]) -> bool:
    """Whether it is there already, with these entries in its card. Raises CourseError when something else is."""
    if not folder.exists() or not any(folder.iterdir()):
        return False
    kept = read_json(folder / CARD) if (folder / CARD).exists() else {}
    if {key: kept.get(key) for key in about} != json.loads(json.dumps(about)):
        raise CourseError(f"{folder}: is not empty, and was not drawn with these settings; choose another name")
    return True


def check_only_training(setup: Setup, cases: Sequence[Case]) -> None:
    """Raises CourseError when there is no case, one is not for training, or its patient is held out: a label map of a
    held-out case as the condition shows the answer of the test."""
    if not cases:
        raise CourseError("draw: no case whose label map to use; give training cases")
    known = {case.id for case in setup.datalist.training}
    for split in ("validation", "test"):
        held_out = {case.patient for case in getattr(setup.datalist, split)}
        for case in cases:
            if case.patient in held_out:
                why = f"its patient {case.patient} is in {split}, and its label map may not be a condition"
                raise CourseError(f"{case.id}: {why}; give training cases alone")
    for case in cases:
        if case.id not in known or case.label is None:
            raise CourseError(f"{case.id}: is no labelled training case of {setup.dataset.name}; give those alone")


def cases_of(setup: Setup, name: str) -> tuple[Case, ...]:
    """The cases of a synthetic folder of the course; each has the patient of its label map, so that a leak is found.

    Raises:
        CourseError: there is no such folder, a case is not of fold -1, or one comes from a held-out patient.
    """
    folder = folder_of(setup, name)
    content = read_json(folder / LIST)
    for entry in content["training"]:
        if entry.get("fold") != folds.ALWAYS:
            why = f"{entry['image']} has fold {entry.get('fold')}, and synthetic cases have -1, always training"
            raise CourseError(f"{folder / LIST}: {why}; draw the folder again")
    entries = [{key: value for key, value in entry.items() if key != "fold"} for entry in content["training"]]
    cases = msd.parse(content | {"training": entries, "fold": None}, folder / LIST, root=folder).training
    leaks = datalists.leaks(replace(setup.datalist, training=setup.datalist.training + cases))
    if leaks:
        patient = next(iter(leaks))
        raise CourseError(f"{folder}: has label maps of the held-out patient {patient}; draw it from training cases")
    return cases


def cases_for(setup: Setup, name: str, labelled: Sequence[Case]) -> tuple[Case, ...]:
    """The cases of a synthetic folder, for a run with these labelled cases.

    Raises:
        CourseError: as `cases_of`, or a label map is of another patient, or the model has learnt from another case.
    """
    cases, card = cases_of(setup, name), folder_of(setup, name) / CARD
    seen = read_json(card).get("learnt_from")
    if seen is None:
        raise CourseError(f"{card}: does not say what the model has learnt from; draw it again, under another name")
    patients, ids = {case.patient for case in labelled}, {case.id for case in labelled}
    others = [f"has a label map of {case.patient}" for case in cases if case.patient not in patients]
    others += [f"is of a model that learnt from {one}" for one in seen if one not in ids]
    if others:
        why = f"{others[0]}, not among the {len(labelled)} labelled cases of this run"
        raise CourseError(f"synthetic={name!r}: {why}; label more of them, or train and draw with these alone")
    return cases


def about_drawn(setup: Setup, name: str) -> str:
    """What a model card has to say about the synthetic cases that a network was trained on."""
    card = read_json(folder_of(setup, name) / CARD)
    drawn = f"{len(card['cases'])} drawn volumes (`{name}`) besides, for training alone: no patient was scanned"
    return f"{drawn}. Diffusion model `{card['model']}`, weights sha256 {card['weights']}"


def _slices(corner: Sequence[int], roi: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(c, c + side) for c, side in zip(corner, roi, strict=True))


def _write_pair(
    setup: Setup, network: Any, sources: Sequence[Case], seeds: Sequence[int], names: Sequence[str], folder: Path, steps
) -> list[Case]:
    import torch

    from ssl_utils.data import volumes
    from ssl_utils.synthesis.conditions import at_corner, middle
    from ssl_utils.synthesis.diffusion import sample

    values, roi, made = sorted(setup.dataset.labels), setup.grid.roi, []
    prepared = setup.prepared(sources)
    corners = [middle(case.image.shape[1:], roi) for case in prepared]
    shown = [at_corner(case, corner, roi, values)["condition"] for case, corner in zip(prepared, corners, strict=True)]
    images = sample(network, torch.stack(shown), steps=steps, seeds=seeds).numpy()
    for case, source, corner, name, image in zip(prepared, sources, corners, names, images, strict=True):
        affine = torch.tensor(case.meta["affine"]).double().numpy()
        affine[:3, 3] += affine[:3, :3] @ corner
        box = _slices(corner, roi)
        files = tuple(folder / f"{name}-{channel}.nii.gz" for channel in setup.dataset.channels)
        for file, channel in zip(files, image, strict=True):
            volumes.write_nifti(file, channel, affine)
        volumes.write_nifti(folder / f"{name}-seg.nii.gz", case.label[box], affine)
        files = files if len(files) > 1 else files[0]
        made.append(Case(name, files, folder / f"{name}-seg.nii.gz", source.patient, source.site))
    return made


def _write_list(setup: Setup, cases: Sequence[Case], folder: Path) -> None:
    about = setup.datalist
    same = {key: getattr(about, key) for key in ("licence", "channels", "labels", "regions")}
    made = Datalist(name="synthetic", description=f"Synthetic cases after {about.name}", **same, training=tuple(cases))
    folds.write(made, folder / LIST, root=folder, fold_of={case.id: folds.ALWAYS for case in cases})


def _write_card(setup: Setup, folder: Path, about: Mapping[str, Any], cases: Sequence[Case]) -> None:
    """card.json for programs, README.md for people."""
    sampler = f"DDIM, {about['ddim_steps']} steps" if about["ddim_steps"] else "DDPM"
    rows = [f"| {case.id} | {case.patient} |" for case in cases]
    spacing = " x ".join(f"{side:g}" for side in setup.grid.spacing)
    box = f"the box in the middle of a case, {shape_text(setup.grid.roi)} voxels of {spacing} mm"
    box += f"; {about['outside_box']:.0%} of the labelled voxels lie outside and are cut off"
    text = f"""# Synthetic volumes after {setup.dataset.name}

**No patient was scanned.** {len(cases)} volumes, drawn by a diffusion model from label maps of training cases. They are
for training alone (fold -1): nothing may be validated or tested on them.

| | |
|---|---|
| model | `{about["model"]}`, weights sha256 {about["weights"]} |
| sampler | {sampler}, seeds {about["seed"]} to {about["seed"] + about["count"] - 1} |
| licence of the data that it learnt from | {setup.dataset.licence} |
| what is drawn | {box} |
| drawn on | {time.strftime("%Y-%m-%d")} |

A file name has the first six digits of the hash, the seed, and the case whose label map was the condition.

| case | patient of its label map |
|---|---|
"""
    write_text(folder / "README.md", text + "\n".join(rows) + "\n")
    write_json(folder / CARD, {**about, "licence": setup.dataset.licence, "cases": [case.id for case in cases]})
