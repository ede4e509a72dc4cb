"""Windows of slices from the cache: the right slices along any axis, edges, augmentation in the plane alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_utils.data.cache import Prepared
from ssl_utils.data.datalists import Case
from ssl_utils.data.windows import Windows, in_plane, neighbours, slices_of, windows
from ssl_utils.errors import CourseError
from ssl_utils.files import write_json


@pytest.fixture
def case(tmp_path) -> Prepared:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "image.npy", rng.random((2, 6, 8, 10)).astype(np.float16))
    np.save(tmp_path / "label.npy", rng.integers(0, 3, (6, 8, 10), dtype=np.uint8))
    write_json(tmp_path / "case.json", {"mean": 0.25, "std": 0.5})
    return Prepared("one", "one", tmp_path, Case("one", Path("image"), Path("label"), "one"))


def test_edges_are_repeated_or_mirrored():
    assert neighbours(0, 2, depth=5, total=6).tolist() == [0, 0, 0, 1, 2, 3]
    assert neighbours(4, 2, depth=5, total=6, edge="reflect").tolist() == [2, 3, 4, 5, 4, 3]
    assert neighbours(0, 1, depth=5, total=1).tolist() == [0] * 5, "fewer slices than the window"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 4}, "depth=4: a window needs a middle slice"),
        ({"depth": 3, "edge": "wrap"}, "edge='wrap': unknown; choose one of clamp, reflect"),
        ({"depth": 13, "edge": "reflect"}, "6 slices cannot be mirrored that far"),
        ({"depth": 3, "count": 7}, "windows 0 to 6: the volume has 6 slices"),
    ],
)
def test_bad_windows_are_refused(options, words):
    with pytest.raises(CourseError, match=words):
        neighbours(**{"first": 0, "count": 1, "total": 6} | options)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("edge", ["clamp", "reflect"])
def test_a_window_holds_its_slices_and_the_label_of_the_middle_one(case, axis, edge):
    data = Windows([case], seed=3, depth=5, axis=axis, edge=edge, count=4)
    for number in range(5):
        item = data[number]
        rng = np.random.default_rng([3, number])
        rng.integers(1)  # the case
        total = (6, 8, 10)[axis]
        first = int(rng.integers(total - 3))
        plain = np.moveaxis(case.standardised(case.image), 1 + axis, 0)  # (S, C, H, W)
        for n in range(4):
            rows = neighbours(first + n, 1, depth=5, total=total, edge=edge)
            expected = torch.from_numpy(np.moveaxis(plain[rows], 0, -1).copy())
            torch.testing.assert_close(item["image"][n], expected, atol=1e-6, rtol=1e-6)
            assert np.array_equal(item["label"][n, 0], np.moveaxis(case.label, axis, 0)[first + n])
        assert all(torch.equal(value, data[number][key]) for key, value in item.items()), "always the same"


def test_windows_share_their_slices(case):
    slices = slices_of(case, np.arange(6))
    assert windows(slices, 3).data_ptr() == slices.data_ptr() and windows(slices, 3).shape == (4, 2, 6, 8, 3)


def test_all_slices_are_changed_alike_and_only_in_the_plane():
    plane = torch.randn(1, 1, 12, 20)
    slices, label = plane.expand(5, 1, -1, -1), (plane > 0).byte()
    turned, mask = in_plane(slices, label, np.random.default_rng(1))
    assert turned.shape == slices.shape and mask.dtype == torch.uint8 and set(mask.unique().tolist()) <= {0, 1}
    assert all(torch.equal(one, turned[0]) for one in turned) and not torch.equal(turned[0], plane[0])
    ramp = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 12, 20)
    torch.testing.assert_close(in_plane(ramp, None, np.random.default_rng(2))[0], ramp)


def test_a_turn_keeps_lengths_of_planes_that_are_no_squares():
    plane = torch.zeros(1, 1, 20, 40)
    plane[..., 10, 10:30] = 1  # a bar along the long side
    mask = in_plane(plane, None, np.random.default_rng(0))[0][0, 0] > 0.4
    rows, columns = mask.nonzero().float().T
    length = float(((rows.max() - rows.min()) ** 2 + (columns.max() - columns.min()) ** 2) ** 0.5)
    assert 17 <= length <= 22.5
