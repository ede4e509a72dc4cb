"""Train a diffusion model on the labelled training cases of a setup, and adapt it to another site by LoRA."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from ssl_utils.data.datalists import Case
from ssl_utils.data.dataset import Grid
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.naming import variant
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import sha256
from ssl_utils.networks import checkpoints
from ssl_utils.synthesis import lora
from ssl_utils.synthesis.conditions import FixedPairs, Pairs
from ssl_utils.synthesis.diffusion import Denoiser, DiffusionTask, moving_average, new_denoiser
from ssl_utils.synthesis.recipes import RECIPES, Recipe
from ssl_utils.training.devices import device, precision
from ssl_utils.training.loop import fit

FIELD = (192, 192, 144)  # mm, the field of view of the published model, whose voxels are 1 mm
COARSE = 6.0  # mm
VALIDATIONS = 3


def whole_field(setup: Setup) -> Setup:
    """The setup on a grid whose ROI is a whole head: 32 x 32 x 24 voxels of 6 mm, or at scale paper the voxels of the
    dataset. It has a name and runs of its own."""
    spacing = (COARSE,) * 3 if setup.scale.grid == "coarse" else setup.grid.spacing
    roi = tuple(round(side / mm) for side, mm in zip(FIELD, spacing, strict=True))
    grids = setup.dataset.grids | {setup.scale.grid: Grid(spacing, roi)}
    return replace(setup, dataset=replace(setup.dataset, name=f"{setup.dataset.name}_whole", grids=grids))


def train_generator(setup: Setup, *, sites: Sequence[str] = (), seed: int = 0) -> Path:
    """Train a diffusion model on the training cases (of these sites; none: of all), and return its run folder, which
    has `denoiser.safetensors`.

    An interrupted training is resumed, a finished one is not repeated.

    Raises:
        CourseError: a site without training cases, or a case without a label.
    """
    recipe, cases = RECIPES[setup.scale.name], of_sites(setup.datalist.training, sites)
    conditions = len(setup.dataset.labels)  # the body in place of the background
    channels = len(setup.dataset.channels)
    denoiser = new_denoiser(recipe, image_channels=channels, conditions=conditions, seed=seed)
    name = variant("base", {"sites": "+".join(sites) or None, "seed": seed or None})
    about = {"base": None, "sites": [*sites], "seed": seed, "learnt_from": [case.id for case in cases]}
    folder = setup.folder / "synthesis" / name
    return _train(setup, folder, denoiser, cases, about, recipe=recipe)


def adapt_generator(
    setup: Setup, base: Path, *, site: str, layers: str = "convolutions", rank: int | None = None, seed: int = 0
) -> Path:
    """Adapt a trained model to the training cases of one site, and return the run folder of the merged network.

    Args:
        base: the run folder of `train_generator`.
        layers, rank: as for `lora.adapter`.

    Raises:
        CourseError: as `train_generator`, `lora.adapter` and `load_generator`.
    """
    recipe, cases = RECIPES[setup.scale.name], of_sites(setup.datalist.training, (site,))
    adapted = lora.adapter(load_generator(base, setup), layers=layers, rank=rank, seed=seed)
    recipe = replace(recipe, steps=recipe.adapt_steps, lr=recipe.adapt_lr, ema_from=recipe.adapt_steps // 4)
    about = {"site": site, "layers": layers, "rank": rank, "seed": seed, "share": lora.trained_share(adapted)}
    name = variant(base.name, {"site": site, "layers": layers, "rank": rank, "seed": seed or None})
    seen = dict.fromkeys([*learnt_from(base), *(case.id for case in cases)])
    about |= {"base": sha256(base / "denoiser.safetensors"), "learnt_from": [*seen]}
    return _train(setup, base.parent / name, adapted, cases, about, recipe=recipe)


def of_sites(cases: Sequence[Case], sites: Sequence[str]) -> list[Case]:
    """The cases of these sites; of all without any. Raises CourseError for a site without cases."""
    there = {case.site for case in cases}
    for site in sites:
        if site not in there:
            named = ", ".join(sorted(filter(None, there))) or "none"
            raise CourseError(f"site={site!r}: has no training case; the sites are: {named}")
    return [case for case in cases if not sites or case.site in sites]


def _train(
    setup: Setup, folder: Path, denoiser: Any, cases: Sequence[Case], about: dict[str, Any], *, recipe: Recipe
) -> Path:
    used = [*cases, *setup.datalist.validation]
    settings = setup.settings(used, **about, recipe=asdict(recipe), precision=precision())
    if runs.begin(folder, settings, device=device()):
        return folder
    values, roi = sorted(setup.dataset.labels), setup.grid.roi
    module = DiffusionTask(
        denoiser, timesteps=recipe.timesteps, lr=recipe.lr, steps=recipe.steps, seed=settings["seed"]
    )
    held_out = FixedPairs(setup.prepared(setup.datalist.validation), roi=roi, values=values)
    recorder = fit(
        module,
        crops=Pairs(setup.prepared(cases), roi=roi, seed=settings["seed"], values=values),
        validation=DataLoader(held_out, batch_size=recipe.batch_size),
        folder=folder,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        validations=VALIDATIONS,
        headline=f"diffusion {folder.name}",
        callbacks=[moving_average(recipe)],
    )
    module.cpu()
    network = lora.merged(module.denoiser) if about["base"] else module.denoiser
    meta = {
        "grid_of_images": asdict(setup.grid),
        "data_licence": setup.dataset.licence,
        "learnt_from": about["learnt_from"],
    }
    checkpoints.save_model(folder / "denoiser.safetensors", network, metadata=meta)
    done = {"seconds": recorder.rows[-1]["seconds"], "last": recorder.rows[-1], "share": about.get("share", 1.0)}
    runs.finish(folder, done | {"parameters": sum(p.numel() for p in network.parameters()), "device": device()})
    return folder


def learnt_from(folder: Path) -> list[str]:
    """The ids of the cases that the network of a run folder, and the one that it was adapted from, learnt from."""
    return json.loads(checkpoints.read_metadata(folder / "denoiser.safetensors")["learnt_from"])


def load_generator(folder: Path, setup: Setup) -> Denoiser:
    """The trained network of a run folder.

    Raises:
        CourseError: it has not finished, was made for other channels, labels or another grid than those of the setup,
            or has learnt from a patient of its validation or test set.
    """
    path = folder / "denoiser.safetensors"
    weights, metadata = checkpoints.read(path)
    config, grid = json.loads(metadata["config"]), json.loads(metadata["grid_of_images"])
    ours = {"image_channels": len(setup.dataset.channels), "conditions": len(setup.dataset.labels)}
    for name, number in ours.items():
        if config[name] != number:
            why = f"is a model of {config[name]} {name.replace('_', ' ')}, and {setup.dataset.name} has {number}"
            raise CourseError(f"{path}: {why}; train one on this dataset")
    if grid != json.loads(json.dumps(asdict(setup.grid))):
        why = f"was trained on voxels of {grid['spacing']} mm and {grid['roi']} voxels, another grid than that of"
        raise CourseError(f"{path}: {why} {setup.dataset.name}; train one on this grid")
    ids = {*json.loads(metadata["learnt_from"])}
    seen = {case.patient for case in setup.datalist.all_cases() if case.id in ids}
    for split in ("validation", "test"):
        for case in getattr(setup.datalist, split):
            if case.patient in seen:
                raise CourseError(
                    f"{path}: has learnt from patient {case.patient}, who is in {split}; train one on this split"
                )
    network = Denoiser(**config)
    network.load_state_dict(weights)
    return network.eval()
