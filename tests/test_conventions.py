"""Every Dice convention worked out by hand, and what must hold between them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import DiceMetric

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning
from ssl_utils.figures import lens as picture
from ssl_utils.segmentation import conventions, metrics
from ssl_utils.segmentation.conventions import CONVENTIONS, lens
from ssl_utils.segmentation.overlaps import Overlap, Scored, centre, measure, overlap, with_background

SIX = np.array([0.90, 0.82, 0.70, 0.65, 0.55, 0.394])


def counted(*structures: tuple[float, float, float], background: float = 1000, name: str = "a") -> Scored:
    """A case from (both, predicted, reference) of its structures, alike in file, grid and crop."""
    both, predicted, reference = np.array([(background, background, background), *structures], float).T
    counts = Overlap(both, predicted, reference)
    return Scored(name, name, counts, counts, counts)


def of_dice(values) -> list[Scored]:
    """One structure per case, with the Dice asked for: 1000 voxels in both masks each."""
    return [counted((1000 * value, 1000, 1000), name=str(i)) for i, value in enumerate(values)]


def random_masks(seed: int, structures: int = 3, shape=(6, 7, 8)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pair = rng.integers(0, structures + 1, (2, *shape))
    pair[0] = np.where(rng.random(shape) < 0.6, pair[1], pair[0])
    return tuple(with_background({str(k): labels == k for k in range(1, structures + 1)}) for labels in pair)


def random_cases(number: int = 5) -> list[Scored]:
    counts = [overlap(*random_masks(seed)) for seed in range(number)]
    return [Scored(str(i), str(i), c, c, c) for i, c in enumerate(counts)]


def test_the_toy_of_the_running_means():
    cases = of_dice(SIX)
    assert conventions.honest(cases) == pytest.approx(0.669, abs=5e-4)
    assert conventions.mean_of_running_means(SIX) == pytest.approx(0.788, abs=5e-4)
    assert conventions.running_means(cases) == pytest.approx(0.788, abs=5e-4)
    weights = [sum(1 / n for n in range(i, 7)) / 6 for i in range(1, 7)]
    assert conventions.mean_of_running_means(SIX) == pytest.approx(np.dot(weights, SIX))


def test_background_by_hand():
    cases = [counted((60, 100, 100), background=99)]  # .6 and 1
    assert conventions.background_in(cases) == pytest.approx(0.8)
    thirteen = counted(*[(63, 100, 100)] * 13, background=99)
    thirteen = replace(thirteen, file=replace(thirteen.file, both=np.array([0.99 * 99, *[63] * 13])))
    assert conventions.background_in([thirteen]) == pytest.approx((13 * 0.63 + 0.99) / 14)


def test_pooled_by_hand():
    large, small = counted((900, 1000, 1000)), counted((1, 10, 10))
    assert conventions.honest([large, small]) == pytest.approx((0.9 + 0.1) / 2)
    assert conventions.pooled([large, small]) == pytest.approx(2 * 901 / 2020)
    assert conventions.pooled_with_background([large, small]) == pytest.approx((1 + 2 * 901 / 2020) / 2)


def test_absent_structures_by_hand():
    absent, invented = (0, 0, 0), (0, 5, 0)
    cases = [counted((8, 10, 10)), counted((6, 10, 10)), counted(absent)]
    assert conventions.honest(cases) == pytest.approx(0.7)
    assert conventions.absent_is_zero(cases) == pytest.approx(1.4 / 3)
    assert conventions.absent_is_one(cases) == pytest.approx(2.4 / 3)
    assert conventions.absent_is_skipped(cases) == pytest.approx(0.7)
    cases[2] = counted(invented)
    for score in (conventions.honest, conventions.absent_is_zero, conventions.absent_is_one):
        assert score(cases) == pytest.approx(1.4 / 3)
    assert conventions.absent_is_skipped(cases) == pytest.approx(0.7)


def test_soft_by_hand():
    probability = np.array([0.2, 0.2, 0.9, 0.9, 0.9, 0.4])[None, :, None, None]
    soft = np.concatenate([1 - probability, probability])
    inside = np.array([0, 0, 1, 1, 1, 0])[None, :, None, None]
    counts = overlap(soft, np.concatenate([1 - inside, inside]))
    case = replace(counted((3, 3, 3)), crop=counts)
    assert conventions.soft_on_crop([case]) == pytest.approx(2 * 2.7 / (3.5 + 3))
    assert conventions.honest([case]) == 1.0
    elsewhere = replace(case, crop=replace(counts, reference=np.array([6.0, 0.0]), both=np.array([2.5, 0.0])))
    assert np.isnan(conventions.soft_on_crop([elsewhere]))  # nothing of it in the crop
    assert conventions.soft_on_crop([case, elsewhere]) == conventions.soft_on_crop([case])


def test_grid_and_maximum_by_hand():
    case = replace(counted((6, 10, 10)), grid=counted((8, 10, 10)).grid)
    assert (conventions.honest([case]), conventions.on_grid([case])) == (pytest.approx(0.6), pytest.approx(0.8))
    assert conventions.best_validation([0.5, float("nan"), 0.8, 0.7]) == 0.8


def test_the_tutorial_is_all_three_together():
    cases = [replace(c, grid=counted((8, 10, 10)).grid) for c in of_dice([0.2, 0.4])]
    cases[1] = replace(cases[1], grid=counted((2, 10, 10)).grid)
    # on the grid, with background: .9 and .6; running means .9 and .75
    assert conventions.monai_tutorial(cases) == pytest.approx(0.825)


def test_overlap_counts_what_dice_counts():
    predicted, reference = random_masks(0)
    found = overlap(predicted, reference).dice()
    assert found == pytest.approx([metrics.dice(p, r) for p, r in zip(predicted, reference, strict=True)])
    assert predicted.sum(0).max() == predicted.sum(0).min() == 1  # background is what is left
    with np.errstate(all="raise"):
        assert np.isnan(overlap(np.zeros((2, 2, 2, 2)), np.zeros((2, 2, 2, 2))).dice()).all()


@pytest.mark.parametrize("include, score", [(True, conventions.background_in), (False, conventions.absent_is_skipped)])
def test_monai_says_the_same(include, score):
    pairs = [random_masks(seed) for seed in range(5)]
    pairs[0][1][2] = False  # a structure that is not in the label of one case
    cases = [Scored("", "", c, c, c) for c in (overlap(p, r) for p, r in pairs)]
    metric = DiceMetric(include_background=include, reduction="mean_channel" if include else "mean")
    each = [metric(*(torch.from_numpy(side)[None].float() for side in pair)) for pair in pairs]
    if include:  # MONAI skips the structure, we count it as 0
        each = [torch.nan_to_num(e) for e in each]
    assert score(cases) == pytest.approx(np.mean([float(e.nanmean()) for e in each]), abs=1e-6)


def test_pooled_is_dice_of_the_stack():
    pairs = [random_masks(seed) for seed in range(4)]
    stacks = [np.concatenate(side, axis=1) for side in zip(*pairs, strict=True)]
    cases = [Scored("", "", c, c, c) for c in (overlap(p, r) for p, r in pairs)]
    dice = [metrics.dice(p, r) for p, r in zip(*stacks, strict=True)]
    assert conventions.pooled(cases) == pytest.approx(np.mean(dice[1:]))
    assert conventions.pooled_with_background(cases) == pytest.approx(np.mean(dice))


def test_all_agree_on_a_perfect_case():
    masks = random_masks(1)[1]
    counts = overlap(masks, masks)
    table = lens([Scored("a", "a", counts, counts, counts)], [1.0])
    assert len(table) == len(CONVENTIONS) + 1
    assert (table["score"] == 1).all() and (table["points"] == 0).all() and picture.moved(table) == 0


@pytest.mark.parametrize("seed", range(5))
def test_background_raises_an_imperfect_score_and_less_of_a_better_one(seed):
    rng = np.random.default_rng(seed)
    poor, good = (of_dice(rng.uniform(*ends, 6)) for ends in ((0.3, 0.5), (0.7, 0.9)))
    added = [conventions.background_in(cases) - conventions.honest(cases) for cases in (poor, good)]
    assert added[0] > added[1] > 0


def test_only_running_means_care_for_the_order():
    cases = random_cases()
    table, backwards = lens(cases).set_index("convention"), lens(cases[::-1]).set_index("convention")
    apart = (table["score"] - backwards["score"]).abs()
    names = ["mean of running means", "both, and on the network's grid"]
    assert (apart[names] > 1e-6).all() and (apart.drop(names) < 1e-12).all()
    rng = np.random.default_rng(0)
    low, high = table.loc[names[0], ["low", "high"]]
    shuffled = [conventions.running_means([cases[i] for i in rng.permutation(5)]) for _ in range(200)]
    assert low <= min(shuffled) + 1e-12 and max(shuffled) - 1e-12 <= high
    assert low < conventions.honest(cases) < high


def test_the_order_of_the_rules_for_absent_structures():
    cases = [counted((8, 10, 10), (0, 0, 0)), counted((6, 10, 10), (0, 3, 0))]
    zero, ours, one, skipped = (
        score(cases)
        for score in (
            conventions.absent_is_zero,
            conventions.honest,
            conventions.absent_is_one,
            conventions.absent_is_skipped,
        )
    )
    assert zero < ours < one and ours < skipped


def test_lens_measures_from_the_honest_score():
    table = lens(of_dice(SIX), [0.6, 0.72, 0.7])
    first, running, best = table.iloc[0], table.iloc[2], table.iloc[-1]
    assert first["points"] == 0 and first["used_by"] == "this course"
    assert running["points"] == pytest.approx(100 * (0.788 - 0.669), abs=0.05)
    assert best["score"] == 0.72 and not best["same_cases"] and table["same_cases"].sum() == len(CONVENTIONS)
    assert best["wrong"] and set(table["convention"][table["wrong"]]) == {
        best["convention"], *(name for name, (_, wrong, _) in CONVENTIONS.items() if wrong)
    }  # fmt: skip
    assert picture.moved(table) == pytest.approx(100 * (table["score"][:-1].max() - table["score"][:-1].min()))
    with pytest.raises(CourseError, match="no case"):
        lens([])


def test_every_convention_names_its_system_and_judges_it():
    systems = ("MONAI", "SimMIM3D", "RadioSSL", "BraTS-UGRIP", "TransSeg")
    judged = [score.__doc__ for _, _, score in CONVENTIONS.values() if score is not conventions.honest]
    for text in [*judged, conventions.mean_of_running_means.__doc__, conventions.best_validation.__doc__]:
        assert any(name in text for name in systems) and ("Different" in text or "Wrong" in text), text
    named = " ".join(who for who, _, _ in CONVENTIONS.values())
    assert all(name in named for name in systems)


def test_centre_crop():
    assert centre((10, 4, 7), (4, 6, 4)) == (slice(3, 7), slice(0, 6), slice(1, 5))


@pytest.mark.parametrize("regions", [None, {"ball": (1, 2), "core": (2,)}])
def test_the_honest_score_is_that_of_the_run(tiny_setup, regions):
    where = replace(tiny_setup, dataset=replace(tiny_setup.dataset, regions=regions))
    network = experiments.build_network(where, Finetuning(init="random", seed=0))[0]
    cases = [
        measure(network, case, dataset=where.dataset, grid=where.grid, overlap_share=0.25)
        for case in where.datalist.test
    ]
    table = experiments.evaluate(where, network, where.datalist.test).groupby("case")["dice"].mean()
    assert conventions.case_scores(cases) == pytest.approx(table[[case.id for case in cases]].to_numpy())
    structures = len(regions or {"a": 1, "b": 2})
    assert all(len(side.both) == 1 + structures for case in cases for side in (case.file, case.grid, case.crop))
    assert np.isfinite(lens(cases)["score"]).all()


class Bright(torch.nn.Module):
    """Class 1 where the standardised image is above its mean; class 2 nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.none = torch.nn.Parameter(torch.tensor(-9.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), image, self.none.expand_as(image)], 1)


def test_the_network_is_shown_a_standardised_image(tiny_setup):
    case = tiny_setup.datalist.test[0]
    scored = measure(Bright(), case, dataset=tiny_setup.dataset, grid=tiny_setup.grid, overlap_share=0.25)
    (prepared,) = tiny_setup.prepared([case])
    above = prepared.standardised(prepared.image) > 0
    assert scored.grid.predicted[1:] == pytest.approx([above.sum(), 0], rel=0.05)  # the cache holds float16
    crop = [min(n, r) for n, r in zip(prepared.image.shape[1:], tiny_setup.grid.roi, strict=True)]
    assert scored.crop.predicted.sum() == pytest.approx(np.prod(crop), rel=1e-5), "probabilities add up to 1"


def test_the_figure_says_by_how_much_it_moves():
    table = lens(of_dice(SIX), [0.7, 0.72])
    figure = picture.dice_lens(table, interval=(0.5, 0.8), subject="six cases")
    (axes,) = figure.axes
    assert f"{picture.moved(table):.1f} points" in figure.get_suptitle() and "six cases" in figure.get_suptitle()
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(labels) == len(table) and all(
        name in label for name, label in zip(table["convention"], labels, strict=True)
    )
    dots = [line for line in axes.get_lines() if line.get_marker() in ("o", "D")]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx(list(table["score"][1:]))
    assert dots[-1].get_markerfacecolor() == "white" != dots[0].get_markerfacecolor()
    assert picture.dice_lens(table, interval=(float("nan"),) * 2).axes
    with pytest.raises(CourseError, match="pass that of"):
        picture.dice_lens(pd.DataFrame())
