"""What the doctor says a run will cost: counted exactly, timed roughly."""

import pytest
import torch
from torch import nn

from ssl_utils.data.doctor.forecast import Forecast, forecast
from ssl_utils.networks.unetr import UNETR


def unetr() -> UNETR:
    return UNETR(
        in_channels=2,
        out_channels=3,
        img_size=(16, 24, 16),
        patch_size=8,
        feature_size=4,
        hidden_size=24,
        mlp_dim=48,
        num_layers=2,
        num_heads=2,
    )


def test_tokens_and_weights_are_counted_and_time_grows_with_the_steps():
    how = {"channels": 2, "roi": (16, 24, 16), "patch_size": (8, 8, 8), "batch_size": 1}
    short, long = (forecast(unetr, steps=steps, **how) for steps in (10, 1000))
    assert short.tokens == 2 * 3 * 2 and short.parameters == sum(p.numel() for p in unetr().parameters())
    assert 30 < long.seconds / short.seconds < 300
    assert forecast(unetr, steps=10, **how | {"batch_size": 4}).gigabytes > 2 * short.gigabytes


def test_the_memory_of_one_layer_is_its_states_and_what_it_keeps():
    layer = lambda: nn.Conv3d(1, 4, 3, padding=1, bias=False)  # noqa: E731
    found = forecast(layer, channels=1, roi=(8, 8, 8), patch_size=(8, 8, 8), batch_size=2, steps=1)
    weights = 4 * 27
    assert found.gigabytes == pytest.approx(4 * (4 * weights + 2 * 512 + weights) / 1e9)
    assert torch.get_default_device().type == "cpu", "the device of the count is left behind"


def test_a_forecast_reads_in_seconds_minutes_or_hours():
    words = [Forecast(8, 1_500_000, 0.12, seconds).line() for seconds in (50, 600, 90_000)]
    assert "about 50 s" in words[0] and "about 10 min" in words[1] and "about 25 h" in words[2]
    assert "8 tokens" in words[0] and "1.50 million" in words[0] and "0.1 GB" in words[0]
