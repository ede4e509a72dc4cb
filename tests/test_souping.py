"""A soup of fine-tunings is a run folder whose model `predict` takes; what cannot be mixed is refused in one line."""

from dataclasses import replace

import nibabel as nib
import pytest
import torch
from safetensors.torch import load_file

from ssl_utils import __main__ as cli, experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Setup, model_card, prediction, runs, scales, souping
from ssl_utils.experiments.building import with_crop
from ssl_utils.files import read_json, write_json
from ssl_utils.statistics import tables


@pytest.fixture(scope="module")
def course(tmp_path_factory, blobs):
    """A setup with three fine-tunings: two of one network that began alike, and one of another network."""
    from ssl_utils.data import datasets

    small = dict(finetune_steps=2, hidden_size=24, mlp_dim=24, num_layers=2, num_heads=2, max_validation=2, max_test=1)
    scale = replace(scales.get("smoke"), **small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_RUNS_ROOT", str(tmp_path_factory.mktemp("runs")))
        setup = Setup(datasets.get("folder", blobs), scale)
        described = [Finetuning(num_labeled=2, network="unet_plain"), Finetuning(num_labeled=2)]
        described.insert(1, replace(described[0], encoder_lr=0.5))
        yield setup, [experiments.finetune(setup, run) for run in described]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(souping, "MEASURED", 2)


def test_a_uniform_soup_is_a_run_that_predicts(course, tmp_path):
    setup, (one, two, _) = course
    folder = souping.soup(setup, [one, two], kind="uniform")
    done = runs.metrics(folder)
    members = [load_file(member / "model.safetensors") for member in (one, two)]
    mixed = load_file(folder / "model.safetensors")
    torch.testing.assert_close(mixed["out.weight"], (members[0]["out.weight"] + members[1]["out.weight"]) / 2)
    running = next(name for name in mixed if name.endswith("running_mean"))
    half = (members[0][running] + members[1][running]) / 2
    assert not torch.allclose(mixed[running], half)  # measured again
    assert done["same_start"] and done["shares"] == [0.5, 0.5] and done["cases"] == 1
    assert len(runs.read_scores(folder / "per_case.csv")) == 2
    card = (folder / "README.md").read_text()
    assert "0.500 x `finetune/random__encoder_lr=0.5__network=unet_plain/n2/subset0_seed0`" in card
    (written,) = experiments.predict(folder / "model.safetensors", [setup.datalist.test[0].image], tmp_path / "out")
    assert nib.load(written).shape == nib.load(setup.datalist.test[0].image).shape


def test_a_greedy_soup_scores_every_candidate_once_and_is_kept(course, monkeypatch):
    setup, (one, two, _) = course
    folder = souping.soup(setup, [one, two])
    done = runs.metrics(folder)
    assert len(done["scores"]) == 3 and done["validation_dice"] == pytest.approx(max(done["scores"].values()))
    assert sum(share > 0 for share in done["shares"]) == len(done["kept"])
    assert done["keeps_one"] == (len(done["kept"]) == 1)
    for number, member in enumerate((one, two)):
        assert done["scores"][str(number)] >= 0 and runs.metrics(member)["dice"] >= 0
    monkeypatch.setattr(souping, "_mixed", None)
    assert souping.soup(setup, [one, two]) == folder  # not made again


def test_shares_are_learnt_on_validation_crops(course, monkeypatch):
    setup, (one, two, _) = course
    monkeypatch.setattr(souping, "STEPS", 2)
    shares = runs.metrics(souping.soup(setup, [one, two], kind="learned"))["shares"]
    assert sum(shares) == pytest.approx(1) and shares[0] != shares[1]


def test_what_cannot_be_mixed_is_refused(course, tmp_path):
    setup, (one, two, other) = course
    for folders, kind, message in (
        ([one, two], "best", "kind='best': unknown; choose one of uniform, greedy, learned"),
        ([one], "greedy", "a soup needs at least two networks"),
        ([one, two, one], "greedy", "n2/subset0_seed0: is given twice; name each run once"),
        ([one, other], "greedy", "network is unetr, in .*unet_plain.* a soup needs networks of one kind"),
        ([one, tmp_path], "greedy", "is no finished fine-tuning; give folders such as"),
    ):
        with pytest.raises(CourseError, match=message) as refused:
            souping.soup(setup, folders, kind=kind)
        assert "\n" not in str(refused.value)
    mixed = souping.soup(setup, [one, two], kind="uniform")
    with pytest.raises(CourseError, match="is no finished fine-tuning; give folders such as"):
        souping.soup(setup, [one, mixed])
    moved = Setup(setup.dataset, setup.scale)
    training = setup.datalist.training
    moved.__dict__["datalist"] = replace(setup.datalist, training=training[:-1], test=training[-1:])
    with pytest.raises(CourseError, match="subset0_seed0: was made with other cases or another split than there is"):
        souping.soup(moved, [one, two])
    elsewhere = Setup(setup.dataset, replace(setup.scale, name="laptop"))
    with pytest.raises(CourseError, match=r"scale smoke, not with .*laptop; choose --dataset and --scale"):
        souping.soup(elsewhere, [one, two])


def test_members_that_began_differently_are_named(course):
    setup, (one, two, _) = course
    members = [souping.read_member(setup, folder) for folder in (one, two)]
    assert members[0].start == members[1].start
    drawn = replace(members[1], settings=members[1].settings | {"seed": 5})
    assert drawn.start != members[0].start
    whole = [replace(m, settings=m.settings | {"scope": "network", "encoder": "x"}) for m in (members[0], drawn)]
    assert whole[0].start == whole[1].start
    for change in ({"permuted": True}, {"reset": "up_2"}):  # which draw by the seed
        drawn = [replace(m, settings=m.settings | change) for m in whole]
        assert drawn[0].start != drawn[1].start and drawn[0].start != whole[0].start
    with pytest.raises(CourseError, match=r"all_axes is True, in .* False; a soup needs networks of one kind"):
        souping.check([members[0], replace(members[1], settings=members[1].settings | {"all_axes": True})])


def test_members_on_other_crops_are_judged_and_saved_on_these(course):
    setup, _ = course
    described = [Finetuning(num_labeled=2, network="unet_plain", crop=0.5, budget=b) for b in (1, 0.5)]
    members = [experiments.finetune(setup, run) for run in described]
    done = runs.metrics(members[0])
    assert done["scored_on"] == "test"
    folder = souping.soup(setup, members, kind="uniform")
    for made in (folder, members[0]):
        assert read_json(folder / "config.json")["settings"]["img_size"] == [16, 16, 16] != [*setup.grid.roi]
        assert prediction.load_saved(made / "model.safetensors")[1].grid.roi == with_crop(setup, 0.5).grid.roi
    assert "labels" in read_json(members[0] / "config.json")["settings"]


def test_without_a_test_set_the_card_and_the_lines_say_validation(course):
    setup, _ = course
    without = Setup(setup.dataset, setup.scale)
    without.__dict__["datalist"] = replace(setup.datalist, test=())
    member = experiments.finetune(without, Finetuning(num_labeled=2, network="unet_plain", layer_decay=0.5))
    said = "2 validation cases, which also chose it: too good"
    assert said in model_card.scored_cases(runs.metrics(member)) and said in (member / "README.md").read_text()
    text = tables.write_results(setup.folder, runs.collect(setup.folder, names=[member.parts[-3]])).read_text()
    assert "2 validation cases, which also chose the steps: too good" in text.splitlines()[0]


def test_the_command_says_what_it_mixed(course, blobs, monkeypatch, capsys):
    setup, (one, two, _) = course
    monkeypatch.setitem(scales.SCALES, "smoke", setup.scale)
    folder = souping.soup(setup, [one, two], kind="uniform")
    write_json(folder / "metrics.json", read_json(folder / "metrics.json") | {"same_start": False})
    words = ["soup", one, two, "--kind", "uniform", "--dataset", "folder", "--data", blobs, "--scale", "smoke"]
    monkeypatch.setattr("sys.argv", ["ssl_utils", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr().out
    assert not stop.value.code and "Shares 0.50, 0.50. Dice" in out and "on 1 test cases" in out
    assert "The best run by validation, finetune/random" in out and "warning: the runs began with different" in out
