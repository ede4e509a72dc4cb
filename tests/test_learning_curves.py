"""Learning curves: means of the runs that every init has, and how early an init is as good as another at its end."""

import numpy as np
import pandas as pd
import pytest

from ssl_utils import figures
from ssl_utils.errors import CourseError
from ssl_utils.experiments import head_start, learning_curves
from ssl_utils.files import write_json


def write_run(folder, init, dice, *, seed=0, labels=6, seconds=10.0):
    """A finished fine-tuning that was validated every 10 steps, with a step in between that was not."""
    run = folder / "finetune" / init / f"n{labels}" / f"subset0_seed{seed}"
    run.mkdir(parents=True)
    spent = seconds * np.arange(1, len(dice) + 1)
    history = pd.DataFrame({"step": 10 * np.arange(1, len(dice) + 1), "validation_dice": dice, "seconds": spent})
    history.loc[len(history)] = [5, float("nan"), 5.0]
    history.to_csv(run / "history.csv", index=False)
    about = {"init": init, "num_labeled": labels, "subset": 0, "seed": seed, "seconds": float(spent[-1])}
    write_json(run / "metrics.json", about)


def write_pretraining(folder, name, seconds):
    (folder / "pretrain" / name).mkdir(parents=True)
    write_json(folder / "pretrain" / name / "metrics.json", {"seconds": seconds})


@pytest.fixture
def course(tmp_path):
    folder = tmp_path / "phantom" / "smoke"
    write_pretraining(folder, "simmim", 100.0)
    for seed in (0, 1):
        write_run(folder, "random", [0.2, 0.4, 0.5, 0.6], seed=seed)
        write_run(folder, "simmim", [0.4 + 0.1 * seed, 0.5, 0.6, 0.6], seed=seed)
    write_run(folder, "random", [0.9] * 4, seed=2)  # which simmim lacks
    write_run(folder, "random", [0.1] * 4, labels=12)
    return folder


def test_a_curve_is_the_mean_of_the_runs_that_every_init_has_and_pays_for_its_pretraining(course):
    curves = learning_curves(course, num_labeled=6)
    simmim = curves[curves["init"] == "simmim"]
    assert simmim["dice"].tolist() == pytest.approx([0.45, 0.5, 0.6, 0.6])
    assert simmim["seconds"].tolist() == [110.0, 120.0, 130.0, 140.0]
    random = curves[curves["init"] == "random"]
    assert random["dice"].tolist() == pytest.approx([0.2, 0.4, 0.5, 0.6]) and set(curves["runs"]) == {2}
    assert random["seconds"].tolist() == [10.0, 20.0, 30.0, 40.0] and random["step"].tolist() == [10, 20, 30, 40]


def test_a_step_at_which_a_run_was_not_validated_is_left_out(course):
    path = course / "finetune/simmim/n6/subset0_seed1/history.csv"
    history = pd.read_csv(path)
    history[history["step"] != 30].to_csv(path, index=False)
    curves = learning_curves(course, num_labeled=6, names=["simmim"])
    assert curves["step"].tolist() == [10, 20, 40]


def test_without_a_common_run_there_is_no_curve(course):
    write_run(course, "mae", [0.5] * 4, seed=7)
    with pytest.raises(CourseError, match="no label subset and seed with 6 labels is finished for every init"):
        learning_curves(course, num_labeled=6)
    with pytest.raises(CourseError, match="with 24 labels"):
        learning_curves(course, num_labeled=24)


def test_a_head_start_is_read_off_straight_lines(course):
    found = head_start(learning_curves(course, num_labeled=6), below=0.04)  # the target is .56
    assert found.loc["random", ["dice", "step", "seconds", "lead"]].tolist() == pytest.approx([0.6, 36, 36, 0])
    area = (0.175 + 0.1 + 0.05) / 3  # leads .25, .1, .1 and 0 at four validations: three trapezoids
    assert found.loc["simmim"].tolist() == pytest.approx([0.6, 26, 126, area])


def test_what_is_never_reached_or_was_before_the_first_validation():
    def curve(init, dice):
        return pd.DataFrame({"init": init, "step": [10, 20], "seconds": [1.0, 2.0], "dice": dice})

    parts = [curve("random", [0.5, 0.6]), curve("low", [0.1, 0.2]), curve("high", [0.9, 0.8])]
    parts.append(curve("short", [0.7, 0.0]).iloc[:1])
    found = head_start(pd.concat(parts))
    assert found.loc["low", ["step", "seconds"]].isna().all() and found.loc["low", "lead"] == pytest.approx(-0.4)
    assert found.loc["high", ["step", "seconds"]].tolist() == [10, 1] and found.loc["short", "lead"] == pytest.approx(
        0.2
    )
    with pytest.raises(CourseError, match="init=simmim: has no learning curve"):
        head_start(pd.concat(parts), baseline="simmim")


def test_the_figure_has_steps_on_one_side_and_seconds_on_the_other(course):
    curves = learning_curves(course, num_labeled=6)
    steps, seconds = figures.learning_curves(curves, below=0.05).axes
    assert [line.get_label() for line in steps.lines] == ["random", "simmim", "random's end - 0.05"]
    assert steps.lines[1].get_xdata().tolist() == [10, 20, 30, 40] and seconds.lines[1].get_xdata()[0] == 110
    assert steps.lines[2].get_ydata()[0] == pytest.approx(0.55)
    without = figures.learning_curves(curves[curves["init"] == "simmim"]).axes[0].lines
    assert len(without) == 1 and len(figures.learning_curves(curves, below=0.7).axes[0].lines) == 2
    with pytest.raises(CourseError, match="no column seconds"):
        figures.learning_curves(curves.drop(columns="seconds"))
