"""Measures of a pretraining: known answers, a callback that does not change the weights, sentences that are true."""

import math

import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ssl_utils.data.crops import Crops, FixedCrops
from ssl_utils.errors import CourseError
from ssl_utils.figures import inside_panel
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import TASKS, inside, probes, task_class
from ssl_utils.pretext.base import PretextTask
from ssl_utils.pretext.inside import Fixed, Inside
from ssl_utils.pretext.simmim import SimMIMTask
from ssl_utils.training import loop as training

ROI, STEPS, LOOKS = (16, 16, 16), 6, 3
MEASURED = [
    "step",
    "psnr",
    "psnr_mean",
    "psnr_interpolation",
    "linear",
    "knn",
    "position",
    "feature_std",
    "content",
    "rankme",
    "rank_most",
    "alarm",
    "reason",
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def encoder() -> ViT:
    return ViT(in_channels=1, img_size=ROI, patch_size=8, hidden_size=24, mlp_dim=24, num_layers=2, num_heads=2)


def side(cases: int, seed: int) -> Fixed:
    """Smooth crops with a bright block (label 1) at a place of its own."""
    images = F.interpolate(torch.randn(cases, 1, 4, 4, 4), size=ROI, mode="trilinear")
    labels = torch.zeros(cases, 1, *ROI, dtype=torch.int64)
    for i in range(cases):
        labels[i, 0, 4 * (i % 3) : 4 * (i % 3) + 6, 3:9, 2:10] = 1
    return Fixed(images + 3 * labels, [seed + i for i in range(cases)], labels)


def look_inside(folder, **options) -> Inside:
    return Inside(folder, **{"held_out": side(3, 10), "labelled": side(4, 20), "values": (0, 1)} | options)


# measures with known answers


def test_rankme_of_all_directions_of_one_and_by_hand():
    assert probes.rankme(torch.eye(16)) == pytest.approx(16)
    assert probes.rankme(torch.randn(30, 1) @ torch.randn(1, 8)) == pytest.approx(1, abs=1e-4)
    assert probes.rankme(torch.zeros(5, 4)) == pytest.approx(1)
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert probes.rankme(torch.tensor([[3.0, 0], [0, 1]])) == pytest.approx(math.exp(entropy))


def test_feature_std_is_one_for_even_and_zero_for_equal_features():
    assert probes.feature_std(torch.randn(20_000, 8)) == pytest.approx(1, abs=0.01)
    assert probes.feature_std(torch.randn(1, 8).expand(50, 8)) == pytest.approx(0, abs=1e-6)
    assert probes.feature_std(5 * torch.cat([torch.eye(4), -torch.eye(4)])) == pytest.approx(1)


def test_content_share_tells_position_from_content():
    places = torch.randn(1, 12, 8)
    assert probes.content_share(places.expand(5, -1, -1)) == pytest.approx(0, abs=1e-9)
    assert probes.content_share(torch.randn(5, 1, 8).expand(-1, 12, -1)) == pytest.approx(1)
    assert math.isnan(probes.content_share(places))


def test_psnr_over_hidden_voxels():
    images = torch.rand(2, 1, *ROI) * 4 - 2
    images[:, :, 0, 0, 0], images[:, :, 0, 0, 1] = -2, 2  # the range is 4 in both cases
    hidden = torch.zeros_like(images, dtype=torch.bool)
    hidden[:, :, 8:] = True
    assert probes.masked_psnr(images, images, hidden).tolist() == [100, 100]
    off = images + torch.tensor([0.4, 0.04]).view(2, 1, 1, 1, 1)
    assert probes.masked_psnr(off, images, hidden).tolist() == pytest.approx([20, 40], abs=1e-3)
    spoiled = torch.where(hidden, off, 1e3)  # visible voxels do not count
    assert torch.equal(probes.masked_psnr(spoiled, images, hidden), probes.masked_psnr(off, images, hidden))
    assert probes.masked_psnr(images, images, torch.zeros_like(hidden)).isnan().all()


def test_psnr_takes_the_range_of_each_channel():
    images = torch.stack([torch.linspace(0, 1, 4096), torch.linspace(0, 100, 4096)]).view(1, 2, *ROI)
    off = images + torch.tensor([0.1, 10]).view(1, 2, 1, 1, 1)
    assert probes.masked_psnr(off, images, torch.ones_like(images, dtype=torch.bool)).item() == pytest.approx(
        20, abs=1e-3
    )


def test_class_shares_follow_the_encoders_token_order():
    labels = torch.zeros(1, 1, 16, 24, 16, dtype=torch.int64)
    labels[0, 0, 8:, 8:16, :4] = 7  # half of the patch of token (1, 1, 0) of a 2 x 3 x 2 grid
    shares = probes.class_shares(labels, (0, 7), (8, 8, 8))
    assert shares.shape == (1, 12, 2) and torch.equal(shares.sum(2), torch.ones(1, 12))
    assert shares[0, (1 * 3 + 1) * 2, 1] == 0.5 and shares[..., 1].sum() == 0.5


def test_token_dice_by_hand():
    true = torch.tensor([[0.5, 0.5, 0], [1, 0, 0], [0, 0.5, 0.5]])
    assert probes.token_dice(true, true) == 1
    guess = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [1, 0, 0]])
    assert probes.token_dice(guess, true) == pytest.approx(
        (2 * 0.5 / 2 + 0) / 2
    )  # one structure half found, one missed
    absent = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    assert probes.token_dice(absent, absent) == 1  # a structure that is nowhere does not count
    assert math.isnan(probes.token_dice(absent[:1], absent[:1]))


def labelled_tokens(number: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens that contain their label: a direction per class, far apart, and some noise."""
    classes = torch.arange(number) % 3
    shares = F.one_hot(classes, 3).double()
    return 20 * shares @ torch.randn(3, 8).double() + 0.01 * torch.randn(number, 8), shares


def test_both_probes_find_a_label_that_tokens_contain():
    tokens, shares = labelled_tokens()
    for probe in (probes.linear_probe, probes.propagate):
        found = probe(tokens[:30], shares[:30], tokens[30:])
        assert found.sum(1).allclose(torch.ones(30).double()) and found.min() >= 0
        assert probes.token_dice(found, shares[30:]) > 0.99
        assert torch.equal(found, probe(tokens[:30], shares[:30], tokens[30:])), "nothing is drawn"


def test_both_probes_find_nothing_in_tokens_that_are_alike():
    shares = labelled_tokens()[1]
    alike = torch.ones(60, 8).double()
    level = shares[:30].mean(0).expand(30, 3)
    torch.testing.assert_close(probes.linear_probe(alike[:30], shares[:30], alike[30:]), level, atol=1e-4, rtol=0)
    assert probes.token_dice(probes.propagate(alike[:30], shares[:30], alike[30:]), shares[30:]) < 0.5


def test_intensities_undo_the_target_of_a_normalising_task():
    task = SimMIMTask(encoder=encoder(), lr=1e-3, steps=1, normalise_target=True)
    images = 4 * torch.randn(2, 1, *ROI) + 1
    guess = torch.randn_like(images)
    moved = task.intensities(task.target(guess), images)
    for found, true in zip(task.patch_statistics(moved), task.patch_statistics(images), strict=True):
        torch.testing.assert_close(found, true, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(task.target(moved), task.target(guess), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(task.intensities(task.target(images), images), images, atol=1e-3, rtol=1e-3)


# the callback


def task_of(name: str):
    torch.manual_seed(0)
    return task_class(name)(encoder=encoder(), lr=1e-3, steps=STEPS)


def train(name: str, folder, callbacks=(), *, until: int = LOOKS, resume=None):
    """A small run with a validation after every second step; `until` breaks it off after so many."""
    import lightning as L

    training.quiet()
    module, images = task_of(name), torch.randn(4, 1, *ROI)
    module.prepare({"image": image} for image in images)
    batches = DataLoader([{"image": image} for image in images], batch_size=2)
    held_out = DataLoader([{"image": images[0], "seed": 5}], batch_size=1)
    trainer = L.Trainer(
        max_epochs=until,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        default_root_dir=folder,
    )
    trainer.fit(module, batches, held_out, ckpt_path=resume, weights_only=True if resume else None)
    trainer.save_checkpoint(folder / "last.ckpt")
    return module


@pytest.mark.parametrize("name", TASKS)
def test_weights_and_random_state_are_those_of_a_run_without_it(name, tmp_path):
    plain = train(name, tmp_path)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    watcher = look_inside(tmp_path)
    torch.manual_seed(0)
    watched = train(name, tmp_path, [watcher])
    assert torch.equal(torch.get_rng_state(), after)
    expected, found = plain.state_dict(), watched.state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)
    table = inside_panel.read(tmp_path)
    assert table["step"].tolist() == [0, 2, 4, 6] and watcher.seconds == pytest.approx(table["seconds_probe"][1:].sum())
    assert table["position"].nunique() == 1 and table["linear"].nunique() > 1
    assert table[MEASURED[4:10]].notna().all(axis=None)
    if task_class(name).reconstruct is PretextTask.reconstruct:
        assert table[MEASURED[1:4]].isna().all(axis=None) and "reconstructs no voxels" in verdict(table)
        inside_panel.panel(table)._repr_png_()
        return
    assert table[MEASURED[1:4]].notna().all(axis=None) and table["psnr"].nunique() > 1
    assert table["psnr_mean"].nunique() == table["psnr_interpolation"].nunique() == 1


def test_a_resumed_run_ends_with_the_same_table(tmp_path):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    train("simmim", tmp_path / "whole", [look_inside(tmp_path / "whole", **fixed_sides())])
    train("simmim", tmp_path / "broken", [look_inside(tmp_path / "broken", **fixed_sides())], until=1)
    assert inside_panel.read(tmp_path / "broken")["step"].tolist() == [0, 2]
    again = look_inside(tmp_path / "broken", **fixed_sides())
    train("simmim", tmp_path / "broken", [again], resume=tmp_path / "broken" / "last.ckpt")
    whole, broken = (inside_panel.read(tmp_path / name)[MEASURED] for name in ("whole", "broken"))
    pd.testing.assert_frame_equal(whole, broken)


def fixed_sides() -> dict:
    torch.manual_seed(3)
    return {"held_out": side(3, 10), "labelled": side(4, 20)}


def test_masks_are_the_same_at_every_look(tmp_path):
    task, watcher = task_of("simmim"), look_inside(tmp_path)
    one, two = watcher.look(task, 0), watcher.look(task, 1)
    assert {name: one[name] for name in MEASURED[1:]} == {name: two[name] for name in MEASURED[1:]}


def test_a_look_leaves_modes_and_gradients_as_it_found_them(tmp_path):
    task = task_of("simmim")
    task.losses(torch.randn(2, 1, *ROI), task.generator(0))["loss"].backward()
    task.encoder.blocks[0].eval()  # a part that is frozen stays so
    grads = {name: p.grad.clone() for name, p in task.named_parameters()}
    modes = [part.training for part in task.modules()]
    look_inside(tmp_path).look(task, 0)
    assert [part.training for part in task.modules()] == modes and not all(modes) and any(modes)
    assert all(torch.equal(grads[name], p.grad) and p.requires_grad for name, p in task.named_parameters())


def test_without_labels_there_are_no_probes_and_the_rest_is_measured(tmp_path):
    held_out = side(3, 10)
    for options in ({"labelled": None}, {"values": (0,)}, {"held_out": Fixed(held_out.images, held_out.seeds)}):
        row = look_inside(tmp_path, **options).look(task_of("simmim"), 0)
        assert all(math.isnan(row[name]) for name in ("linear", "knn", "position"))
        assert row["rankme"] > 1 and math.isfinite(row["psnr"])
    words = verdict(inside_panel.read(tmp_path).loc[[0, 0]])
    assert "no probes" in words
    inside_panel.panel(inside_panel.read(tmp_path))._repr_png_()


def test_where_every_crop_has_the_same_label_its_position_tells_it(tmp_path):
    one = side(1, 10)
    held_out, labelled = (
        Fixed(torch.randn(n, *one.images.shape[1:]), list(range(n)), one.labels.expand(n, -1, -1, -1, -1))
        for n in (2, 3)
    )
    assert look_inside(tmp_path, held_out=held_out, labelled=labelled).look(task_of("simmim"), 0)["position"] == 1


def test_collapsed_features_raise_the_alarm(tmp_path):
    task = task_of("simmim")
    assert look_inside(tmp_path).look(task, 0)["alarm"] is False
    torch.nn.init.zeros_(task.encoder.norm.weight)  # every token becomes the bias of the last norm
    torch.nn.init.ones_(task.encoder.norm.bias)
    row = look_inside(tmp_path).look(task, 0)
    assert (
        row["alarm"] is True and "nearly the same way" in row["reason"] and row["rankme"] == pytest.approx(1, abs=0.01)
    )


def test_an_encoder_that_ignores_its_input_raises_the_alarm(tmp_path):
    task = task_of("simmim")
    torch.nn.init.zeros_(task.encoder.patch_embedding.patch_embeddings.weight)
    row = look_inside(tmp_path).look(task, 0)
    assert row["alarm"] is True and row["content"] == 0 and "not the image" in row["reason"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"feature_std": 0.05}, "same way"),
        ({"feature_std": math.nan}, "same way"),
        ({"rankme": 3.0}, "few directions"),
        ({"rankme": 1.9, "rank_most": 24}, "few directions"),
        ({"content": 0.001}, "not the image"),
        ({"content": math.nan}, ""),
        ({"feature_std": 0.1, "rankme": 0.03 * 128, "content": 0.01}, ""),  # on the floors, and not below
        ({"rankme": 2.0, "rank_most": 24}, ""),
    ],
)
def test_when_the_alarm_rings(change, reason):
    row = {"feature_std": 0.7, "rankme": 60.0, "rank_most": 128, "content": 0.5} | change
    assert reason in inside.alarm(row) and bool(inside.alarm(row)) == bool(reason)


def test_trivial_guesses_get_what_a_normalising_task_gets():
    image = torch.linspace(-2, 2, 16).view(1, 1, 16, 1, 1).expand(1, 1, *ROI) + 0.1 * torch.randn(1, 1, *ROI)
    plain, normalising = (
        SimMIMTask(encoder=encoder(), lr=1e-3, steps=1, normalise_target=flag) for flag in (False, True)
    )
    hidden = plain.voxel_mask(plain.mask(image, plain.generator(1)), 1)
    blind, informed = (
        {name: probes.masked_psnr(guess, image, hidden).item() for name, guess in guesses.items()}
        for guesses in (inside.trivial(task, image, hidden) for task in (plain, normalising))
    )
    assert blind["psnr_interpolation"] > blind["psnr_mean"] and informed["psnr_mean"] > blind["psnr_mean"] + 1


def test_the_callback_of_a_run_takes_its_cases_from_the_data(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    where = tiny_setup
    train_side, held_out = (where.prepared(cases) for cases in (where.datalist.training, where.datalist.validation))
    values = sorted(where.dataset.labels)
    first, roi = train_side[:3], where.grid.roi
    made = inside.callback(tmp_path, labelled=first, held_out=held_out, roi=roi, values=values)
    assert made.labelled.images.shape == (3, 1, *where.grid.roi) and made.labelled.labels.max() > 0
    again = inside.fixed(first, roi)
    assert torch.equal(again.images, made.labelled.images) and torch.equal(again.labels, made.labelled.labels)
    module = task_class("simmim")(encoder=ViT(**where.encoder_config()), lr=1e-3, steps=2)
    crops, loader = Crops(train_side, roi=where.grid.roi, seed=0), DataLoader(FixedCrops(held_out, roi=where.grid.roi))
    assert 0 < made.look(module, 0)["position"] < 1 and len(crops[0]["image"]) == 1 and len(loader) == len(held_out)
    with pytest.raises(CourseError, match="no held-out case"):
        inside.callback(tmp_path, labelled=first, held_out=[], roi=roi, values=values)


# what it says


def looks(**columns) -> pd.DataFrame:
    """Two looks at a healthy run that beats interpolation; `columns` change them."""
    plain = {
        "step": [0, 700],
        "psnr": [12.0, 21.0],
        "psnr_mean": 14.0,
        "psnr_interpolation": 18.0,
        "linear": [0.4, 0.5],
        "knn": [0.5, 0.505],
        "position": 0.3,
        "feature_std": [0.7, 0.7],
        "content": [0.5, 0.5],
        "rankme": [64.0, 64.5],
        "rank_most": 128,
        "alarm": False,
        "reason": "",
    }
    return pd.DataFrame(plain | columns)


def verdict(table: pd.DataFrame) -> str:
    return " ".join(inside_panel.sentences(table))


def test_verdict_on_a_healthy_run():
    words = verdict(looks())
    assert "3.0 dB above the interpolation baseline (18.0 dB)" in words and "No sign of collapse" in words
    assert "linear probe rose (40.0 to 50.0)" in words and "nearest neighbours stayed (50.0 to 50.5)" in words
    assert "is above the position-only baseline (30.0)" in words and "as many directions as before" in words


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"psnr": [12.0, 17.0]}, "no sign that the task has learnt more than to interpolate"),
        ({"psnr": [12.0, 18.05]}, "no sign that the task has learnt more than to interpolate"),
        ({"psnr": [12.0, math.nan]}, "no sign that the task has learnt more than to interpolate"),
        (
            {"psnr": [12.0, 13.0]},
            "does not beat the interpolation baseline (18.0 dB) or even the mean baseline (14.0 dB)",
        ),
        ({"alarm": [False, True], "reason": ["", "few directions"]}, "Features have collapsed: few directions."),
        (
            {"alarm": [True, False], "reason": ["few directions", None]},
            "There was a collapse alarm at step 0, but not since.",
        ),
        ({"linear": [0.5, 0.4]}, "linear probe fell (50.0 to 40.0)"),
        ({"position": 0.6}, "is not above the position-only baseline"),
        ({"linear": math.nan, "knn": math.nan, "position": math.nan}, "Without labels there are no probes"),
        ({"rankme": [64.0, 40.0]}, "fewer directions than before (RankMe 64 to 40 of 128)"),
        ({"rankme": [40.0, 64.0]}, "more directions than before"),
    ],
)
def test_verdict_says_it_plainly(change, sentence):
    assert sentence in verdict(looks(**change))


def test_verdict_of_one_look_reports_no_change():
    words = verdict(looks().tail(1))
    assert "A single evaluation, at step 700" in words and "rose" not in words


def test_the_panel_names_its_axes_and_units():
    history = pd.DataFrame({"step": [350, 700], "train_loss": [0.7, 0.6], "validation_loss": [0.7, 0.65]})
    rung = looks(alarm=[False, True], reason=["", "few directions"])
    figure = inside_panel.panel(rung, history, title="a run")
    drawn = [axes for axes in figure.axes if axes.axison]
    assert len(drawn) == 5 and all(axes.get_xlabel() == "training step" for axes in drawn)
    units = [axes.get_ylabel() for axes in drawn]
    assert any("(dB)" in unit for unit in units) and any("(points)" in unit for unit in units)
    named = [text.get_text() for axes in drawn if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert {"interpolation", "mean", "collapse alarm", "linear probe", "position only"} <= set(named)


def test_a_missing_or_foreign_table_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"inside\.csv: no such file"):
        inside_panel.read(tmp_path)
    with pytest.raises(CourseError, match="no column psnr"):
        verdict(looks().drop(columns="psnr"))
    with pytest.raises(CourseError, match="no rows"):
        verdict(looks().iloc[:0])
