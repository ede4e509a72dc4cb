"""A run is described once: what is out of range is one line by every door, and names and words are made of it."""

import json
import sys
from dataclasses import FrozenInstanceError

import pytest

from course import chapter
from ssl_utils import __main__ as cli
from ssl_utils.errors import CourseError
from ssl_utils.experiments.command_line import _described
from ssl_utils.experiments.description import Finetuning, Pretraining, task_options
from ssl_utils.pretext import TASKS
from ssl_utils.training.options import REQUIRED, Option, options_of

IMPOSSIBLE = [  # kind of run, option, value, what the line says
    (Pretraining, "seed", -1, "seed=-1: must be at least 0"),
    (Pretraining, "steps", 0, "steps=0: must be at least 1"),
    (Pretraining, "steps", 2.5, "steps=.*2.5.*: must be a whole number or None"),
    (Pretraining, "seconds", 0, "seconds=0: must be at least 1"),
    (Pretraining, "volumes", 0, "volumes=0: must be at least 1"),
    (Pretraining, "scope", "half", "scope='half': unknown; choose one of encoder, network"),
    (Finetuning, "seed", -1, "seed=-1: must be at least 0"),
    (Finetuning, "seed", 1000, "seed=1000: must be at least 0 and at most 999"),  # else subset 0 met subset 1
    (Finetuning, "scope", "encoder", "scope='encoder': nothing is transferred at init=random; leave it out"),
    (Finetuning, "subset", -1, "subset=-1: must be at least 0"),
    (Finetuning, "num_labeled", 0, "num_labeled=0: must be at least 1"),
    (Finetuning, "freeze_epochs", -2, "freeze_epochs=-2: must be at least -1"),
    (Finetuning, "freeze", "network", "freeze='network': nothing is frozen at freeze_epochs=0; choose -1"),
    (Finetuning, "layer_decay", -1, "layer_decay=-1.*: must be above 0 and at most 1"),
    (Finetuning, "layer_decay", float("nan"), "layer_decay=nan: must be a number"),
    (Finetuning, "budget", 0, "budget=0.*: must be at least 0.01 and at most 1000"),
    (Finetuning, "budget", float("inf"), "budget=inf: must be a number"),
    (Finetuning, "network", "resnet", "network='resnet': unknown; choose one of unetr, "),
]


def made(kind, **options):
    return kind(task="simmim", **options) if kind is Pretraining else kind(**options)


@pytest.mark.parametrize(("kind", "name", "value", "line"), IMPOSSIBLE)
def test_what_is_out_of_range_is_one_line_by_every_door(kind, name, value, line, monkeypatch, capsys):
    with pytest.raises(CourseError, match=line) as fault:
        made(kind, **{name: value})
    assert "\n" not in str(fault.value)
    words = ["pretrain", "simmim"] if kind is Pretraining else ["finetune"]
    monkeypatch.setattr(sys, "argv", ["ssl_utils", *words, f"--{name.replace('_', '-')}={value}"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.match(line) and str(stop.value).startswith("error: ") and not capsys.readouterr().out
    if name in ("seed", "num_labeled", "subset", "freeze_epochs", "layer_decay"):  # parameters of chapters
        with pytest.raises(CourseError, match=line):
            chapter.check(name, value)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--mask-ratio=nan"], "mask_ratio=nan: must be a number"),
        (["--mask-ratio", "x"], "mask_ratio='x': must be a number"),
        (["--mask-rato=0.3"], "option mask_rato: simmim has none of that name; did you mean mask_ratio?"),
        (["--mask-ratio"], "option --mask-ratio: has no value"),
        (["--contrast=none"], "option contrast: simmim has none of that name"),
    ],
)
def test_options_of_the_task_on_the_command_line(words, line):
    with pytest.raises(CourseError, match=line):
        _described(Pretraining, {"task": "simmim"}, words)
    run = _described(Pretraining, {"task": "simmim", "seed": 3}, ["--mask-ratio", "0.3", "--normalise-target"])
    assert (run.seed, run.options) == (3, {"mask_ratio": 0.3, "normalise_target": True})
    with pytest.raises(CourseError, match="option --foo: finetune has none"):
        _described(Finetuning, {}, ["--foo"])


def test_the_name_is_what_is_not_at_its_default():
    assert Pretraining(task="simmim").name == "simmim"
    assert Pretraining.of("simmim", mask_ratio=0.6, mask_unit=None, steps=None).name == "simmim"
    run = Pretraining.of("simmim", mask_ratio=0.3, steps=70, pool="own+hippocampus", seed=2)
    assert run.name == "simmim__mask_ratio=0.3__pool=own+hippocampus__seed=2__steps=70"
    assert Finetuning().name == "random" == Finetuning(network="unetr", num_labeled=24, subset=2, seed=1).name
    assert Finetuning(budget=4).name == "random__budget=4" == Finetuning(budget=4.0).name
    tuned = Finetuning(init="simmim__mask_ratio=0.3", freeze_epochs=-1, permuted=True)
    assert tuned.name == "simmim__mask_ratio=0.3__freeze_epochs=-1__permuted=True"
    with pytest.raises(CourseError, match="permuted=True: nothing is transferred at init=random"):
        Finetuning(permuted=True)


def test_no_two_runs_have_one_name():
    of_both = {*options_of(Pretraining)} & {*options_of(Finetuning)}
    assert of_both == {"network", "scope", "optimizer", "seed"}  # a seed of a fine-tuning is part of its path
    for key, value in (("scope", "encoder"), ("network", "unet"), ("optimizer", "schedule_free")):
        pretrained = Pretraining(task="genesis", **{key: value})
        names = {Finetuning(init=pretrained.name).name, Finetuning(init="genesis", **{key: value}).name}
        assert names == {f"genesis__{key}={value}", f"genesis__finetune_{key}={value}"}
    assert Finetuning(init="genesis_chest_ct", scope="encoder").name == "genesis_chest_ct__scope=encoder"  # adopted
    assert not any({*task_options(task)} & {*options_of(Finetuning)} for task in TASKS)
    names = [Finetuning(lr=lr).name for lr in (0.001, 0.0012345678, 0.0012345679)]
    assert names == ["random__lr=0.001", "random__lr=0.0012345678", "random__lr=0.0012345679"]


@pytest.mark.parametrize(
    "run",
    [
        Pretraining(task="simmim"),
        Pretraining.of("simmim", mask_ratio=0.3, mask_unit=2, normalise_target=True, seed=4, volumes=3),
        Pretraining.of("restoration", contrast="none", scope="network", pool="hippocampus"),
        Finetuning(),
        Finetuning(init="mae", num_labeled=12, subset=2, seed=1, layer_decay=0.75, budget=0.5, permuted=True),
    ],
)
def test_the_words_of_a_run_make_it_again(run):
    """As a study, the graph and a job on Slurm hand it over."""
    first, *words = run.words()
    specs, fields, rest = options_of(type(run)), {}, []
    for word in words:
        flag, sign, text = word.partition("=")
        name = flag[2:].replace("-", "_")
        if name in specs:
            fields[name] = specs[name].parse(text if sign else "true")
        else:
            rest.append(word)
    fields["task" if isinstance(run, Pretraining) else "init"] = first
    assert _described(type(run), fields, rest) == run


def test_steps_and_seconds_exclude_each_other():
    with pytest.raises(CourseError, match="seconds=60: steps=5 are given too; leave one of them out"):
        Pretraining(task="simmim", steps=5, seconds=60)


def test_a_run_is_frozen_and_its_record_is_plain():
    run = Pretraining.of("restoration", contrast="none", steps=3)
    with pytest.raises(FrozenInstanceError):
        run.seed = 1
    assert json.loads(json.dumps(run.record())) == {
        "task": "restoration",
        "network": "unetr",
        "scope": None,
        "steps": 3,
        "seconds": None,
        "pool": None,
        "volumes": None,
        "seed": 0,
        "optimizer": "adamw_cosine",
        "contrast": "none",
    }


def test_every_option_has_a_help_a_type_and_a_default():
    for kind in (Pretraining, Finetuning):
        for name, option in options_of(kind).items():
            assert option.help and (option.default is not REQUIRED or name == "task"), f"{kind.__name__}.{name}"
    for task in TASKS:
        options = task_options(task)
        assert options and all(option.help for option in options.values()), f"{task}: {options}"
        for name, option in options.items():
            assert option.check(option.default) == option.default, f"{task}.{name}"


def test_an_option_says_what_it_takes():
    ratio = Option("share", above=0, below=1, name="ratio", kind=float)
    assert ratio.range() == "above 0 and below 1" and ratio.parse("0.5") == 0.5 and ratio.check(0.999) == 0.999
    for value in (0, 1, float("nan"), True, "0.5", None):
        with pytest.raises(CourseError, match=r"^ratio="):
            ratio.check(value)
    flag = Option("yes or no", name="flag", kind=bool)
    assert flag.parse("true") is True and flag.parse("False") is False
    with pytest.raises(CourseError, match="flag='perhaps': must be true or false"):
        flag.parse("perhaps")


def test_a_chapter_knows_the_options_of_its_task():
    chapter.check("mask_ratio", None, "03_simmim_masking")
    for name, value, where in (("mask_ratio", 1.0, "03_simmim_masking"), ("mask_ratio", 0.3, "00_start_here")):
        with pytest.raises(CourseError):
            chapter.check(name, value, where)
    with pytest.raises(CourseError, match="did you mean scale"):
        chapter.check("scael", "smoke")
