"""The benchmarks run, small, and their equality checks hold; what they print is not timed here."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import (
    __main__ as benchmarks,
    bundles,
    crops,
    gpu,
    inflation,
    mednext,
    pairs,
    pretraining,
    race,
    segmentation,
)
from ssl_utils.data.dataset import Grid
from ssl_utils.networks import checkpoints
from ssl_utils.pretext import TASKS
from ssl_utils.segmentation.metrics import dice

TINY = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 2, "num_heads": 4}
KEYS = {"name", "ours", "theirs", "ratio", "unit", "equality", "repeats", "device", "commit", "date"}


@pytest.fixture(autouse=True)
def _threads():
    torch.manual_seed(0)


def test_a_race_is_of_medians_and_its_ratio_says_how_much_faster_ours_is(monkeypatch):
    clock = iter([9.0, 9.0, 1.0, 2.0, 1.0, 4.0, 5.0, 6.0])  # seconds of ours, theirs, in turns; the first two warm up
    monkeypatch.setattr(race, "seconds", lambda work: (work(), next(clock))[1])
    calls = []
    found = race.race("x", lambda: calls.append("o"), lambda: calls.append("t"), equality="none", repeats=3)
    assert "".join(calls) == "otototot"
    assert (found["ours"], found["theirs"], found["ratio"]) == (1.0, 4.0, 4.0) and found.keys() == KEYS


def test_of_rates_the_higher_one_wins(monkeypatch):
    clock = iter([9.0, 9.0, 2.0, 1.0])
    monkeypatch.setattr(race, "seconds", lambda work: next(clock))
    found = race.race("x", str, str, equality="none", repeats=1, made=(64, 2), unit="crops a second")
    assert (found["ours"], found["theirs"], found["ratio"]) == (32.0, 2.0, 16.0)


def test_a_bundle_and_predict_write_the_same_label_map(monkeypatch):
    monkeypatch.setattr(bundles, "race", lambda name, *work, equality, **_: equality)
    assert bundles.bundle_prediction(repeats=1, scale="smoke", spacing=10.0).startswith("0 of ")


def test_rivals_hold_the_same_weights(monkeypatch):
    """The equality that a row states is of two networks that agree, in float32, before anything is timed."""
    said = {}
    monkeypatch.setattr(pretraining, "BASE", TINY)
    monkeypatch.setattr(pretraining, "SIDES", {8: 32})
    told = {"ours": 2.0}
    monkeypatch.setattr(pretraining, "race", lambda name, *work, equality, **_: said.update({name: equality}) or told)
    monkeypatch.setattr(race, "matrix_rate", lambda size, repeats: 1e6)
    operations = pretraining.simmim(8, repeats=1)["share_of_matrix_rate"] * 2.0 * 1e6
    layers = 3 * 2 * 8 * 2 * 48 * (4 * 48 + 2 * 96)  # there and twice back: 8 tokens, 2 blocks
    ends = (2 + 3) * 2 * 8 * 48 * 16**3  # patches in (no gradient of the image), voxels out
    # attention comes on top, but not in float32 on a processor, whose kernel is not counted; the rate is rounded
    assert 0.999 * (layers + ends) < operations < 1.2 * (layers + ends)
    pretraining.mae("mae", TINY, side=32, patch=8, batch=2, repeats=1)
    assert said["mae"].endswith("True")
    assert float(said["pretraining_step_simmim_8"].split()[5]) < 1e-5


def test_pairs_of_both_ways_have_one_size_and_assignments_are_equal(tmp_path, monkeypatch):
    said = {}
    monkeypatch.setattr(pairs, "race", lambda name, *ways, equality, **_: said.update({name: equality}) or ways[1]())
    pairs.assignment(repeats=1, rows=96, clusters=5)
    assert float(said["sinkhorn"].split()[2]) < 1e-5
    pairs.step(repeats=1, side=(16, 16, 16), batch=2)
    assert float(said["pretraining_step_patch_clusters"].split()[2]) == 0
    monkeypatch.setattr(crops, "SHAPE", (120, 100, 60))
    monkeypatch.setattr(crops, "SPACING", 3.0)
    monkeypatch.setattr(pairs, "SIZES", ((40, 40, 20), (30, 30, 20)))
    monkeypatch.setattr(pairs, "PAIRS", 2)
    image, _ = crops.write_ct(tmp_path)
    first, second = map(np.load, pairs.written_pairs(image, tmp_path))
    assert (
        first.shape == (2, *pairs.ROI) and first.min() >= 0 and first.max() <= 1 and not np.array_equal(first, second)
    )


class Bright(nn.Module):
    """Class 1 where the crop is bright: a network whose label map shows where every voxel has come from."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return torch.cat([self.threshold - x, x - self.threshold], 1)


def test_both_ways_from_a_file_to_a_label_map_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "SHAPE", (120, 100, 60))
    monkeypatch.setattr(crops, "SPACING", 3.0)
    monkeypatch.setattr(segmentation, "GRID", Grid((6.0, 6.0, 6.0), (32, 32, 32)))
    monkeypatch.setattr(segmentation, "networks", lambda sizes: (Bright(), Bright()))
    image, _ = crops.write_ct(tmp_path)
    checkpoints.save_model(tmp_path / "weights.safetensors", Bright(), metadata={})
    ours, theirs = (f(tmp_path / "weights.safetensors", image) for f in (segmentation._ours, segmentation._theirs))
    assert ours.shape == theirs.shape == crops.SHAPE
    assert 0.1 < theirs.mean() < 0.9 and dice(ours == 1, theirs == 1) > 0.93  # ours is low-pass filtered first


def test_the_gpu_rows_run_on_any_device():
    size = gpu.Size(
        sides=(32,),
        batch=2,
        labelled_batch=1,
        network=tuple((TINY | {"patch_size": 8}).items()),
        feature_size=4,
        volume=(48, 32, 32),
        repeats=1,
        matrix=64,
    )
    found = gpu.measure(size)
    names = [row["name"] for row in found["rows"]]
    assert names == [*(f"{task}_32" for task in TASKS), "unetr_32", "sliding_window_32"]
    assert all(row["tflops"] > 0 and 0 <= row["error_to_float32_cpu"] < 0.1 for row in found["rows"])


def test_without_a_gpu_one_line_says_so():
    if gpu.device() != "cuda":
        assert gpu.main(record=False).startswith("error: no GPU here")


def test_rows_are_kept_by_name_and_device(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "REFERENCE", tmp_path / "rows.json")
    benchmarks.keep([{"name": name, "device": "cpu, 1 threads", "ratio": 1} for name in "ab"])
    benchmarks.keep([{"name": "a", "device": "cpu, 2 threads", "ratio": 2}])
    benchmarks.keep([{"name": "a", "device": "H200, bf16", "ratio": 9}])
    kept = [(row["name"], row["ratio"]) for row in json.loads((tmp_path / "rows.json").read_text())]
    assert sorted(kept) == [("a", 2), ("a", 9), ("b", 1)]


def test_windows_and_inflated_tokens_are_those_of_their_rivals(monkeypatch):
    said = {}
    monkeypatch.setattr(inflation, "race", lambda name, *work, equality, **_: said.update({name: equality}))
    inflation.inflated_step(repeats=1, side=32, sizes=TINY)
    assert float(said["inflated_step"].split()[-1]) < 1e-5
    inflation.volume_prediction(repeats=1, side=16, slices=6, sizes=TINY)
    assert float(said["window_prediction"].split()[-1]) < 0.02, "bfloat16 where it is fast"
    inflation.windows_per_second(repeats=1, shape=(8, 8, 12), files=2)
    assert float(said["windows_per_second"].split()[5].rstrip(",")) < 0.002


def test_mednext_has_the_gradients_of_monais_and_checkpointing_less_memory(monkeypatch):
    said = {}
    monkeypatch.setattr(mednext, "race", lambda name, *ways, equality, **_: said.update({name: equality}) or ways[0]())
    monkeypatch.setattr(mednext, "in_child", lambda module, how, side: {"plain": 2, "checkpointing": 1}[how])
    mednext.step(repeats=1, side=32)
    mednext.checkpointing(repeats=1, side=32)
    assert float(said["mednext_step"].split()[-1]) < 1e-5
    assert float(said["lever_checkpointing"].split()[2].rstrip(";")) < 1e-5
    assert said["lever_checkpointing"].endswith("peak 1.00 against 2.00 GB, a process each")
