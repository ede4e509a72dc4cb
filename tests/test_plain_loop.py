"""The training loop that chapter 03 shows trains as the package does: the same losses and weights, bit for bit."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_utils import experiments
from ssl_utils.data.crops import Crops
from ssl_utils.experiments import Pretraining, runs
from ssl_utils.training.devices import autocast
from ssl_utils.training.loop import parameter_groups
from ssl_utils.training.optimisers import configured

CHAPTER = Path(__file__).parents[1] / "notebooks" / "03_simmim_masking.ipynb"


@pytest.fixture(scope="module")
def shown() -> dict:
    """The functions of the chapter's cell, with the names that its imports bind."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    (source,) = ("".join(c["source"]) for c in cells if "plain-loop" in c["metadata"].get("tags", []))
    space = dict(math=math, torch=torch, nn=nn, autocast=autocast, parameter_groups=parameter_groups)
    exec(compile(source, "chapter 03", "exec"), space)
    return space


@pytest.mark.parametrize("name", ["simmim", "restoration"])
def test_the_loop_of_the_chapter_trains_as_the_package_does(tiny_setup, shown, name, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    run, scale = Pretraining.of(name, seed=3), tiny_setup.scale
    folder = experiments.pretrain(tiny_setup, run)
    task = experiments.build_task(tiny_setup, run)
    crops = Crops(tiny_setup.prepared(tiny_setup.pool), roi=tiny_setup.grid.roi, seed=3)
    sizes = {"steps": scale.pretrain_steps, "batch_size": scale.pretrain_batch_size}
    losses = torch.tensor(shown["train"](task, crops, **sizes), dtype=torch.float64)
    history = runs.history(folder)
    means = losses.view(len(history), -1).mean(1)  # of the steps between two validations
    torch.testing.assert_close(means, torch.tensor(history["train_loss"].to_numpy()), rtol=1e-12, atol=0)
    assert losses[-2:].mean() < losses[:2].mean()
    saved = experiments.load_task(tiny_setup, run).state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in task.state_dict().items())


@pytest.mark.parametrize("steps", [1, 7, 20, 700])
def test_the_schedule_of_the_chapter_is_the_packages(shown, steps):
    layer = nn.Linear(1, 1)
    groups = parameter_groups([(layer, 1.0)], lr=0.5, weight_decay=0.05)
    made = configured("adamw_cosine", groups, steps=steps, betas=(0.9, 0.95))
    schedule = made["lr_scheduler"]["scheduler"]
    for step in range(steps):
        assert schedule.get_last_lr()[0] == 0.5 * shown["learning_rate"](step, steps)
        made["optimizer"].step()
        schedule.step()
