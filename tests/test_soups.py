"""Soups: means of weights, greedy choice, learnt shares, and what cannot be averaged."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.unet_plain import PlainUNet
from ssl_utils.segmentation import soups


def linear(*values: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([values]), "seen": torch.tensor(int(values[0]))}


def test_a_soup_of_one_linear_network_is_its_mean():
    members = [linear(1.0, 5.0), linear(3.0, 9.0)]
    assert soups.uniform(members)["weight"].tolist() == [[2.0, 7.0]]
    mixed = soups.mix(members, [0.25, 0.75])
    assert mixed["weight"].tolist() == [[2.5, 8.0]]
    assert mixed["seen"] == 3 and mixed["seen"].dtype == torch.int64  # of the larger share, not averaged
    assert soups.uniform([members[0]] * 3)["weight"].tolist() == members[0]["weight"].tolist()


def test_other_architectures_are_refused():
    one, wide, other = linear(1.0), linear(1.0, 2.0), {"bias": torch.zeros(1)}
    with pytest.raises(CourseError, match=r"b: weight is \(1, 2\), in a \(1, 1\); a soup needs one architecture"):
        soups.check_alike([one, wide], ["a", "b"])
    with pytest.raises(CourseError, match=r"member 1: bias is \(1,\), in member 0 missing"):
        soups.uniform([one, other])
    with pytest.raises(CourseError, match="a: a soup needs at least two"):
        soups.check_alike([one], ["a"])


SINGLE = {(0,): 0.70, (1,): 0.80, (2,): 0.75, (3,): 0.60}


def test_greedy_adds_the_best_first_where_the_score_rises_and_scores_everything_once():
    table = SINGLE | {(1, 2): 0.82, (1, 2, 0): 0.81, (1, 2, 3): 0.83}
    calls = []
    found = soups.greedy(4, lambda members: (calls.append(members), table[members])[1])
    assert found.kept == (1, 2, 3) and found.score == 0.83 and not found.keeps_one
    assert len(calls) == len({*calls}) == 2 * 4 - 1 and found.scores == table


def test_greedy_may_keep_one():
    equal = soups.greedy(4, lambda members: SINGLE.get(members, 0.80))  # no better than the best one
    assert equal.kept == (1,) and equal.keeps_one and equal.score == 0.80


def test_the_greedy_soup_is_the_mean_of_what_it_kept():
    torch.manual_seed(0)
    members = [linear(0.0), linear(2.0), linear(5.0)]
    weights, found = soups.greedy_soup(members, lambda mixed: -abs(float(mixed["weight"]) - 1))
    assert found.kept == (0, 1) and weights["weight"] == 1 and found.score == 0
    members = [{"w": torch.randn(50)} for _ in range(6)]
    weights, found = soups.greedy_soup(members, lambda mixed: -float(mixed["w"].square().sum()))
    expected = torch.stack([members[i]["w"] for i in found.kept]).mean(0)
    assert len(found.kept) > 2
    torch.testing.assert_close(weights["w"], expected)


def test_shares_are_learnt():
    """The targets are those of three quarters of the second network and a quarter of the first one."""
    torch.manual_seed(0)
    network = nn.Linear(4, 2)
    members = [nn.Linear(4, 2).state_dict() for _ in range(2)]
    truth = nn.Linear(4, 2)
    truth.load_state_dict(soups.mix(members, [0.25, 0.75]))
    images = torch.randn(64, 4)
    batches = [(images, truth(images).detach())] * 100
    mixed, shares = soups.learned(network, members, F.mse_loss, batches)
    assert shares == pytest.approx([0.25, 0.75], abs=0.02) and sum(shares) == pytest.approx(1)
    torch.testing.assert_close(mixed["weight"], truth.weight.detach(), atol=0.02, rtol=0)
    assert not mixed["weight"].requires_grad


def test_statistics_of_batch_norm_are_measured_again():
    torch.manual_seed(0)
    network, batches = PlainUNet(in_channels=1, out_channels=2), [torch.randn(2, 1, 16, 16, 16) for _ in range(2)]
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm3d))
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    norm.running_mean.fill_(9.0)
    assert soups.recalibrate(network, batches) == sum(isinstance(m, nn.BatchNorm3d) for m in network.modules())
    handle.remove()
    torch.testing.assert_close(norm.running_mean, torch.cat(seen).mean((0, 2, 3, 4)))
    assert norm.momentum == 0.1 and not norm.training
    assert soups.recalibrate(nn.Conv3d(1, 1, 1), batches) == 0


@pytest.mark.alone
def test_fifteen_networks_are_mixed_in_less_than_five_seconds():
    members = [{f"w{i}": torch.randn(1_000_000) for i in range(6)} for _ in range(15)]  # as large as MedNeXt-S
    started = time.process_time()
    _, found = soups.greedy_soup(members, lambda _: time.process_time())  # every score is better: all are kept
    assert len(found.kept) == 15 and time.process_time() - started < 5
