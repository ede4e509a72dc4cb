"""Synthetic volumes: noise, sampler, LoRA, folders of cases with their provenance, and who may be a condition."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import einops
import lightning as L
import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from ssl_utils.__main__ import app
from ssl_utils.data import datasets
from ssl_utils.data.lists import folds, msd
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Setup, finetune, generating, runs, scales, synthetic_sets
from ssl_utils.networks import checkpoints
from ssl_utils.synthesis import conditions, diffusion, lora
from ssl_utils.synthesis.recipes import RECIPES
from ssl_utils.training.loop import fit

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "14_synthetic_volumes.ipynb"
SMALL = replace(RECIPES["smoke"], steps=4, adapt_steps=2, timesteps=20)


def denoiser(**sizes):
    """With random weights everywhere: an untrained one has zeros in its last layer, and predicts nothing."""
    network = diffusion.new_denoiser(replace(SMALL, **sizes), image_channels=2, conditions=3, seed=0).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network


def shown(number=2, side=16):
    """Conditions (number, 3, side, ...): a ball in a cube."""
    inside = torch.zeros(number, 3, side, side, side)
    inside[:, 2, 2:-2, 2:-2, 2:-2] = 1
    inside[:, 0, 5:9, 5:9, 5:9] = 1
    return inside


# Diffusion


def test_the_noised_image_keeps_its_variance_and_its_share():
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(1, 1, 32, 32, 32, generator=generator) for _ in range(2))
    for kept in (0.0, 0.25, 1.0):
        noisy = diffusion.noised(image, noise, torch.tensor([kept]))
        assert abs(float(noisy.var()) - 1) < 0.02
        assert abs(float((noisy * image).mean()) - kept**0.5) < 0.02


def test_the_model_of_the_paper_has_its_published_size():
    with torch.device("meta"):
        network = diffusion.new_denoiser(RECIPES["paper"], image_channels=4, conditions=4, seed=0)
    assert sum(p.numel() for p in network.parameters()) == 57_562_564


def test_voxels_that_became_channels_come_back_to_their_places():
    class First(torch.nn.Module):
        def forward(self, both, timesteps):
            return both[:, : 2 * 8]  # the channels of the image, as they are

    network, image = denoiser(patch=2, clean=False), torch.randn(1, 2, 16, 16, 16)
    network.unet = First()
    assert torch.equal(network(image, torch.tensor([3]), shown(1)), image)


def test_a_network_that_gives_the_clean_image_gives_the_noise_that_is_left():
    network, (image, noise) = denoiser(clean=True), torch.randn(2, 1, 2, 16, 16, 16)
    network.unet = Gives(image, network.patch)
    for timestep in (0, 7, 19):
        noisy = diffusion.noised(image, noise, network.kept[[timestep]])
        predicted = network(noisy, torch.tensor([timestep]), shown(1))
        torch.testing.assert_close(predicted, noise, atol=1e-4, rtol=1e-4)


def test_its_loss_is_the_error_of_the_image_at_every_timestep():
    network, (image, wrong) = denoiser(clean=True), torch.randn(2, 1, 2, 16, 16, 16)
    network.unet = Gives(image + 0.1 * wrong, network.patch)
    task = diffusion.DiffusionTask(network, timesteps=20, lr=0, steps=1)
    for timestep in (1, 7, 19):
        loss = task.loss({"image": image, "condition": shown(1)}, torch.tensor([timestep]), torch.Generator())
        torch.testing.assert_close(loss, (0.1 * wrong).square().mean(), rtol=0.02, atol=0)


class Gives(torch.nn.Module):
    """A U-Net that answers with one volume, whatever it is shown."""

    def __init__(self, volume, patch):
        super().__init__()
        self.volume = einops.rearrange(volume, "b c (d p) (h q) (w r) -> b (c p q r) d h w", p=patch, q=patch, r=patch)

    def forward(self, both, timesteps):
        return self.volume


class Knows(torch.nn.Module):
    """The denoiser of a data set with one image: the noise is what is left of it."""

    def __init__(self, image, timesteps):
        super().__init__()
        self.image, self.config = image, denoiser(timesteps=timesteps).config
        self.kept = diffusion.kept_variance(timesteps)

    def forward(self, noisy, timesteps, condition):
        kept = self.kept[timesteps].view(-1, 1, 1, 1, 1)
        return (noisy - kept.sqrt() * self.image) / (1 - kept).sqrt()


@pytest.mark.parametrize("steps", [5, 20, None])
def test_a_perfect_denoiser_draws_the_only_image_there_is(steps):
    image = 0.6 * torch.rand(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.3
    drawn = diffusion.sample(Knows(image, 20), shown(), steps=steps, seeds=[0, 1])
    inside = shown()[:, -1:].bool().expand_as(drawn)
    torch.testing.assert_close(drawn[inside], ((image + 1) / 2).expand_as(drawn)[inside], atol=2e-3, rtol=0)
    assert (drawn[~inside] == 0).all() and (drawn[inside] > 0).all()


def test_a_volume_depends_on_its_own_seed_alone():
    network = denoiser()
    both = diffusion.sample(network, shown(), steps=5, seeds=[7, 8])
    alone = diffusion.sample(network, shown(1), steps=5, seeds=[8])
    torch.testing.assert_close(both[1:], alone, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(both[0], both[1])
    both = diffusion.sample(network, shown(), steps=None, seeds=[7, 8])
    alone = diffusion.sample(network, shown(1), steps=None, seeds=[8])
    torch.testing.assert_close(both[1:], alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("condition", "steps", "message"),
    [
        (shown(1, 12), 5, "voxels do not fit the grid of the model, multiples of 8"),
        (shown(1)[:, :2], 5, "has 2 channels, and the model was trained with 3"),
        (shown(1), 7, "steps=7: does not divide the 20 timesteps"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(condition, steps, message):
    with pytest.raises(CourseError, match=message):
        diffusion.sample(denoiser(), condition, steps=steps, seeds=[0])


# What chapter 14 shows


def cell(name):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return next("".join(one["source"]) for one in cells if one["id"] == name)


def test_the_sampler_that_chapter_14_shows_is_the_packages():
    network, condition = denoiser(), shown(1)
    space = {"torch": torch, "kept": diffusion.kept_variance(20)}
    exec(cell("ddim-code"), space)
    image = (space["ddim"](network, condition, 5, 3) + 1) / 2
    inside = condition[:, -1:].bool().expand_as(image)
    drawn = diffusion.sample(network, condition, steps=5, seeds=[3])
    torch.testing.assert_close(image.clamp(min=diffusion.FAINTEST)[inside], drawn[inside], atol=1e-3, rtol=1e-3)


def test_the_adapter_that_chapter_14_shows_merges_into_its_layer(capsys):
    space = {"torch": torch, "nn": torch.nn}
    exec(cell("lora-code"), space)
    assert capsys.readouterr().out == "unchanged at first: True\ntrained: 256 of 4096 weights\n"
    small, x = space["small"], space["x"]
    with torch.no_grad():
        small.up.normal_()
        torch.testing.assert_close(torch.nn.functional.linear(x, small.merged(), small.layer.bias), small(x))


# LoRA


@pytest.mark.parametrize("layers", lora.LAYERS)
def test_an_adapter_begins_as_nothing_and_merges_exactly(layers):
    network, image, timestep = denoiser(), torch.randn(1, 2, 16, 16, 16), torch.tensor([3])
    before = network(image, timestep, shown(1))
    names = lora.layer_names(network, layers)
    adapted = lora.adapter(network, layers=layers, rank=2).eval()
    torch.testing.assert_close(adapted(image, timestep, shown(1)), before)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert all(any(name in one for name in [*names, "out.2"]) for one in trained)
    assert lora.trained_share(adapted) < 0.2
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    changed = adapted(image, timestep, shown(1))
    assert not torch.allclose(changed, before, atol=1e-4)
    plain = lora.merged(adapted)
    assert isinstance(plain, diffusion.Denoiser) and {*plain.state_dict()} == {*denoiser().state_dict()}
    torch.testing.assert_close(plain(image, timestep, shown(1)), changed, atol=1e-4, rtol=1e-3)


def test_the_published_choice_reaches_three_linear_layers_and_ours_attention_and_convolutions():
    network = denoiser()
    published = lora.layer_names(network, "time")
    assert len(published) == 3 and all(name.endswith("time_emb_proj") for name in published)
    kinds = {type(network.get_submodule(name)) for name in lora.layer_names(network, "convolutions")}
    assert kinds == {torch.nn.Linear, torch.nn.Conv3d}


def balls(number, *, seed, brighter_in_front):
    """A batch of images with a bright cube at the place of its label."""
    generator, shown = torch.Generator().manual_seed(seed), torch.zeros(number, 3, 16, 16, 16)
    for one in shown:
        i, j, k = torch.randint(2, 9, (3,), generator=generator).tolist()
        one[0, i : i + 5, j : j + 5, k : k + 5] = 1
    shown[:, 2] = 1
    ramp = torch.linspace(-0.5, 0.5, 16).view(1, 1, 16, 1, 1) * brighter_in_front
    return {"image": 0.8 * shown[:, :1] - 0.4 + ramp, "condition": shown}


def trained(network, batch, *, steps, lr):
    task = diffusion.DiffusionTask(network, timesteps=20, lr=lr, steps=steps)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=lr)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        optimiser.zero_grad()
        task.loss(batch, torch.randint(20, (len(batch["image"]),), generator=generator), generator).backward()
        optimiser.step()
    return network


@torch.no_grad()
def held_out_loss(network, batch):
    task = diffusion.DiffusionTask(network.eval(), timesteps=20, lr=0, steps=1)
    return float(task.loss(batch, torch.arange(2, 18, 4), torch.Generator().manual_seed(99)))


def test_the_published_choice_adapts_next_to_nothing():
    """It can reweight features, and learns no new ones; what adapts beside it is the output layer."""
    sizes = replace(SMALL, patch=2, timesteps=20)
    network = diffusion.new_denoiser(sizes, image_channels=1, conditions=3, seed=0)
    trained(network, balls(4, seed=0, brighter_in_front=False), steps=50, lr=5e-3)
    learnt, held_out = (balls(4, seed=seed, brighter_in_front=True) for seed in (1, 2))
    before, gained = held_out_loss(network, held_out), {}
    for layers in lora.LAYERS:
        adapted = trained(lora.adapter(deepcopy(network), layers=layers), learnt, steps=20, lr=2e-2)
        gained[layers] = before - held_out_loss(adapted, held_out)
    assert gained["convolutions"] > 0.02
    assert gained["time"] < 0.2 * gained["convolutions"]
    assert gained["time+output"] > 0.25 * gained["convolutions"]


def test_the_laptop_model_is_adapted_by_about_one_per_cent():
    with torch.device("meta"):
        network = diffusion.new_denoiser(RECIPES["laptop"], image_channels=4, conditions=4, seed=0)
        share = lora.trained_share(lora.adapter(network))
    assert 0.005 < share < 0.015


def test_lora_says_what_is_missing_or_wrong(monkeypatch):
    for options, message in (({"layers": "all"}, "layers='all': unknown"), ({"rank": 0}, "rank=0: is not positive")):
        with pytest.raises(CourseError, match=message):
            lora.adapter(denoiser(), **options)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(CourseError, match=r"needs the package peft.*pip install -e '\.\[lora\]'"):
        lora.adapter(denoiser())


# A folder of synthetic cases


@pytest.fixture(scope="module")
def made(blobs, tmp_path_factory):
    """A setup of blobs, a base model, an adapted one, and a folder of three synthetic cases."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SSL_RUNS_ROOT", str(tmp_path_factory.mktemp("runs")))
    patch.setitem(RECIPES, "smoke", SMALL)
    scale = replace(scales.get("smoke"), finetune_steps=2, hidden_size=24, mlp_dim=24, num_layers=2, num_heads=2)
    setup = Setup(datasets.get("folder", blobs), replace(scale, max_validation=1, max_test=1))
    base = generating.train_generator(setup)
    adapted = generating.adapt_generator(setup, base, site=setup.datalist.training[0].site, rank=1)
    cases = setup.datalist.training[:2]
    folder = synthetic_sets.draw(setup, adapted, cases, name="three", count=3, steps=5)
    yield setup, base, adapted, folder
    patch.undo()


def test_training_leaves_a_finished_run_with_averaged_weights(made):
    setup, base, adapted, _ = made
    for folder in (base, adapted):
        assert not (folder / "last.ckpt").exists() and len(runs.history(folder)) == (2 if folder == base else 1)
        network = generating.load_generator(folder, setup)
        assert all(torch.isfinite(p).all() for p in network.parameters())
    assert 0 < runs.metrics(adapted)["share"] < 0.05 and runs.metrics(base)["share"] == 1
    first, second = (checkpoints.read_checkpoint(f / "denoiser.safetensors") for f in (base, adapted))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed and all(".conv2." in name or ".attn." in name for name in changed)


def test_an_adapted_model_has_learnt_from_the_cases_of_its_base_too(made, monkeypatch):
    setup, base, _, _ = made
    training, fewer = setup.datalist.training, replace(setup)
    vars(fewer)["datalist"] = replace(setup.datalist, training=training[1:])
    monkeypatch.setattr(generating, "_train", lambda *given, recipe: given[-1])
    about = generating.adapt_generator(fewer, base, site=training[1].site)
    assert about["learnt_from"] == generating.learnt_from(base) == [case.id for case in training]


class Stop(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            raise KeyError("interrupted")


def test_an_interrupted_training_ends_with_the_same_average(made, tmp_path):
    setup, values = made[0], sorted(made[0].dataset.labels)
    cases = setup.prepared(setup.datalist.training[:2])

    def train(name, *callbacks):
        network = diffusion.new_denoiser(SMALL, image_channels=1, conditions=3, seed=0)
        task = diffusion.DiffusionTask(network, timesteps=20, lr=1e-2, steps=4)
        held_out = DataLoader(conditions.FixedPairs(cases, roi=setup.grid.roi, values=values))
        pairs = conditions.Pairs(cases, roi=setup.grid.roi, seed=0, values=values)
        sizes = {"steps": 4, "batch_size": 2, "validations": 2, "headline": "test"}
        before = [diffusion.moving_average(SMALL), *callbacks]
        fit(task, crops=pairs, validation=held_out, folder=tmp_path / name, callbacks=before, **sizes)
        return network.state_dict()

    whole = train("whole")
    with pytest.raises(KeyError, match="interrupted"):
        train("twice", Stop())
    assert (tmp_path / "twice" / "last.ckpt").exists()
    again = train("twice")
    assert all(torch.equal(again[name], weight) for name, weight in whole.items())
    after_the_last_step = train("whole")  # killed before the run was finished
    assert all(torch.equal(after_the_last_step[name], weight) for name, weight in whole.items())


def test_every_process_has_noise_of_its_own(monkeypatch):
    seen, image = [], torch.zeros(1, 2, 16, 16, 16)
    monkeypatch.setattr(diffusion.DiffusionTask, "processes", 2)
    for rank in range(2):
        network = denoiser(clean=False)
        network.unet = Gives(torch.zeros(1, 2, 16, 16, 16), network.patch)
        task = diffusion.DiffusionTask(network, timesteps=20, lr=0, steps=1)
        task.own = lambda rows, rank=rank: rows.chunk(2)[rank]
        seen.append(float(task.loss({"image": image, "condition": shown(1)}, torch.tensor([7]), torch.Generator())))
    assert seen[0] != seen[1]


def test_every_file_and_the_card_say_where_a_volume_comes_from(made):
    setup, _, adapted, folder = made
    card = json.loads((folder / "card.json").read_text())
    assert card["model"] == adapted.name and card["seed"] == 0 and card["licence"] == setup.dataset.licence
    assert card["learnt_from"] == [case.id for case in setup.datalist.training]
    assert card["label_maps_of"] == [case.id for case in setup.datalist.training[:2]]
    for number, name in enumerate(card["cases"]):
        source = setup.datalist.training[number % 2].id
        assert name == f"syn_{card['weights'][:6]}_s{number:04d}_of_{source}"
        assert (folder / f"{name}-seg.nii.gz").exists()
    assert "No patient was scanned" in (folder / "README.md").read_text()


def test_a_volume_has_the_label_map_and_the_place_of_its_case(made):
    setup = made[0]
    case, source = synthetic_sets.cases_of(setup, "three")[0], setup.datalist.training[0]
    label, theirs = nib.load(case.label), nib.load(source.label)
    again = nib.load(case.image if not isinstance(case.image, tuple) else case.image[0])
    assert np.array_equal(again.affine, label.affine) and case.patient == source.patient
    values, counts = np.unique(label.get_fdata(), return_counts=True)
    assert set(values) == set(np.unique(theirs.get_fdata())) and min(counts) > 10


def test_synthetic_cases_are_fold_minus_one_and_only_ever_for_training(made):
    setup, _, _, folder = made
    content = json.loads((folder / "dataset.json").read_text())
    assert {entry["fold"] for entry in content["training"]} == {folds.ALWAYS} == {-1}
    assert not any(content[side] for side in ("validation", "test", "unlabeled"))
    with pytest.raises(CourseError, match="folds -1"):  # alone it is no list to train and validate on
        msd.read(folder / "dataset.json", root=folder)
    number = len(setup.datalist.training)
    run = Finetuning(network="unet", num_labeled=number, synthetic="three", augmentation="none")
    assert run.name == "random__augmentation=none__network=unet__synthetic=three"
    done = finetune(setup, run)
    card, weights = (done / "README.md").read_text(), json.loads((folder / "card.json").read_text())["weights"]
    assert "| synthetic data | 3 drawn volumes (`three`) besides, for training alone: no patient was scanned" in card
    assert f"weights sha256 {weights}" in card and card.count("sha256") == 1
    tested = set(runs.read_scores(done / "per_case.csv")["case"])
    assert tested == {case.id for case in setup.datalist.test}
    learnt = f"is of a model that learnt from .*, not among the {number - 1} labelled cases of this run"
    with pytest.raises(CourseError, match=learnt):
        finetune(setup, replace(run, num_labeled=number - 1))
    last, others = setup.datalist.training[0], setup.datalist.training[1:]
    with pytest.raises(CourseError, match=f"has a label map of {last.patient}, not among"):
        synthetic_sets.cases_for(setup, "three", others)
    with pytest.raises(CourseError, match="has fold 0, and synthetic cases have -1"):
        _with_fold_zero(setup, folder)


def _with_fold_zero(setup, folder):
    content, path = json.loads((folder / "dataset.json").read_text()), setup.folder / "synthetic" / "other"
    content["training"][0]["fold"] = 0
    path.mkdir(exist_ok=True)
    (path / "dataset.json").write_text(json.dumps(content))
    synthetic_sets.cases_of(setup, "other")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_mask_of_a_held_out_case_is_never_a_condition(made, split):
    setup, base, _, folder = made
    held_out = getattr(setup.datalist, split)[0]
    with pytest.raises(CourseError, match=f"is in {split}, and its label map may not be a condition"):
        synthetic_sets.draw(setup, base, [held_out], name="leak", count=1, steps=5)
    # nor by a list that was changed by hand
    content, path = json.loads((folder / "dataset.json").read_text()), setup.folder / "synthetic" / f"by_hand_{split}"
    content["training"][0]["patient"] = held_out.patient
    path.mkdir()
    (path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(CourseError, match=f"label maps of the held-out patient {held_out.patient}"):
        synthetic_sets.cases_of(setup, path.name)


def test_a_folder_is_drawn_once_and_nothing_is_overwritten(made):
    setup, _, adapted, folder = made
    cases, before = setup.datalist.training[:2], (folder / "card.json").stat().st_mtime_ns
    assert synthetic_sets.draw(setup, adapted, cases, name="three", count=3, steps=5) == folder
    assert (folder / "card.json").stat().st_mtime_ns == before
    with pytest.raises(CourseError, match="is not empty, and was not drawn with these settings"):
        synthetic_sets.draw(setup, adapted, cases, name="three", count=2, steps=5)
    for name, given, message in (("a/b", cases, "letters, digits"), ("none", [], "no case whose label map")):
        with pytest.raises(CourseError, match=message):
            synthetic_sets.draw(setup, adapted, given, name=name, count=1, steps=5)
    for option, value in (("count", 0), ("seed", -1)):
        with pytest.raises(CourseError, match=f"{option}={value}: is less than {option == 'count':d}"):
            synthetic_sets.draw(setup, adapted, cases, name="none", steps=5, **{"count": 1, option: value})
    with pytest.raises(CourseError, match=r"nowhere: has no denoiser\.safetensors; train it"):
        synthetic_sets.draw(setup, folder / "nowhere", cases, name="none", count=1, steps=5)


def test_what_the_box_cuts_off_is_said(made):
    setup, _, _, folder = made
    cases = setup.datalist.training[:1]
    assert json.loads((folder / "card.json").read_text())["outside_box"] == 0.0
    narrow, fits = replace(setup), setup.dataset.grids["coarse"]
    grids = {name: replace(fits, roi=(8, 24, 24)) for name in setup.dataset.grids}
    vars(narrow)["dataset"] = replace(setup.dataset, grids=grids)
    label = setup.prepared(cases)[0].label > 0
    start = conditions.middle(label.shape, (8, 24, 24))
    box = tuple(slice(c, c + r) for c, r in zip(start, (8, 24, 24), strict=True))
    expected = 1 - label[box].sum() / label.sum()
    assert synthetic_sets.outside_box(narrow, cases) == pytest.approx(expected) and expected > 0.2


def test_the_command_draws_a_folder_that_a_fine_tuning_can_take(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    monkeypatch.setitem(RECIPES, "smoke", SMALL)
    words = ["draw", "two", "--count", "2", "--dataset", "folder", "--data", str(blobs), "--scale", "smoke"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, words).exit_code == 0  # once more: nothing is drawn anew
    setup = Setup(datasets.get("folder", blobs), scales.get("smoke"))
    cases = synthetic_sets.cases_for(setup, "two", setup.datalist.training)
    assert [case.patient for case in cases] == [case.patient for case in setup.datalist.training[:2]]
    other = CliRunner().invoke(app, [*words, "--seed", "1"])
    assert "was not drawn with these settings" in str(other.exception) and len(list(tmp_path.rglob("base*"))) == 1
    refused = CliRunner().invoke(app, ["draw", "a b", *words[2:]])
    assert isinstance(refused.exception, CourseError)
    assert "letters, digits and _" in str(refused.exception)


def test_a_model_of_other_images_is_refused(made):
    setup, base, _, _ = made
    four = replace(setup, dataset=replace(setup.dataset, channels=("t1n", "t1c", "t2w", "t2f")))
    with pytest.raises(CourseError, match=r"is a model of 1 image channels, and .* has 4"):
        generating.load_generator(base, four)
    grid = replace(setup.grid, spacing=(2.0, 2.0, 2.0))
    other = replace(setup, dataset=replace(setup.dataset, grids={setup.scale.grid: grid}))
    with pytest.raises(CourseError, match="another grid than that of"):
        generating.load_generator(base, other)
    training = setup.datalist.training
    split = replace(setup)
    vars(split)["datalist"] = replace(setup.datalist, training=training[:-1], test=training[-1:])
    patient = f"has learnt from patient {training[-1].patient}, who is in test; train one on this"
    with pytest.raises(CourseError, match=patient):
        synthetic_sets.draw(split, base, training[:1], name="other_split", count=1, steps=5)
    second = replace(training[-1], id="another_visit")
    vars(split)["datalist"] = replace(setup.datalist, test=(second,))
    with pytest.raises(CourseError, match=patient):
        generating.load_generator(base, split)
    with pytest.raises(CourseError, match="site='nowhere': has no training case"):
        generating.train_generator(setup, sites=("nowhere",))
