"""The baseline that never looks at the image."""

from dataclasses import replace

import numpy as np
import pytest

from ssl_utils.data import volumes
from ssl_utils.segmentation import average_label


def test_the_average_is_a_frequency():
    left, right = (np.zeros((4, 4, 4), bool) for _ in range(2))
    left[:2], right[1:3] = True, True
    average = average_label.average_label([{"a": left}, {"a": right}], (4, 4, 4))
    assert average.shape == (1, 4, 4, 4)
    assert average[0, :, 0, 0].tolist() == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert average_label.average_label([{"a": left}], (8, 4, 4))[0, :, 0, 0].tolist()[::7] == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("regions", [None, {"whole": (1, 2), "core": (2,)}])
def test_it_finds_what_is_always_at_the_same_place(tiny_setup, regions, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    where = replace(tiny_setup, dataset=replace(tiny_setup.dataset, regions=regions))
    table = average_label.evaluate(
        where.prepared(where.datalist.training), where.datalist.test, dataset=where.dataset, grid=where.grid
    )
    assert list(table["class"].unique()) == (list(regions) if regions else [where.dataset.labels[v] for v in (1, 2)])
    assert table["case"].nunique() == len(where.datalist.test) and table["dice"].between(0.15, 0.95).all()


def test_it_does_not_look_at_the_image(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    where, (case, *_) = tiny_setup, tiny_setup.datalist.test
    masks = [average_label.metrics.masks(np.asarray(p.label), {1: "a", 2: "b"}, None) for p in where.prepared([case])]
    average = average_label.average_label(masks, where.grid.roi)
    image = volumes.read_image(case.image)
    noise = replace(image, array=np.random.default_rng(0).random(image.array.shape).astype(np.float32))
    found, blind = (average_label.predict(average, v, dataset=where.dataset, grid=where.grid) for v in (image, noise))
    assert all(np.array_equal(found[name], blind[name]) for name in found)
