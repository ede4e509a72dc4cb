"""The audit: copies are found, equal sets are alike, and too little variety shows."""

import numpy as np
import pytest
import torch

from ssl_utils.errors import CourseError
from ssl_utils.networks import build
from ssl_utils.synthesis import audit


def rows(number, width=8, *, seed=0, shift=0.0):
    return torch.randn(number, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_a_copy_is_found_and_named_and_a_new_case_is_not():
    training = rows(12)
    synthetic = torch.cat([training[3:4] + 0.01, rows(6, seed=1)])
    table = audit.memorisation(synthetic, training, [f"case_{n}" for n in range(12)])
    assert table["nearest"][0] == "case_3" and table["ratio"][0] < 0.05
    assert table["ratio"][1:].min() > audit.COPY and audit.share_copied(table) == pytest.approx(1 / 7)
    real = torch.cdist(training, training)[3]
    assert table["real distance"][0] == pytest.approx(float(real[real > 0].min()), rel=1e-5)


def test_a_shifted_set_is_further_away_than_an_equal_one():
    real = rows(60)
    equal, shifted = (audit.distances(rows(60, seed=1, shift=s), real, seed=0, repeats=50) for s in (0.0, 1.0))
    for name in ("FID", "MMD"):
        assert shifted[name].low > equal[name].high
        assert equal[name].low < equal[name].high
    assert equal["MMD"].low < 0.1 < equal["MMD"].high
    four = audit.distances(rows(200, 4, seed=1, shift=1.0), rows(200, 4), seed=0, repeats=10)
    assert four["FID"].value == pytest.approx(4, rel=0.25)  # four features, each one standard deviation apart
    assert audit.distances(real, real, seed=0, repeats=50) == audit.distances(real, real, seed=0, repeats=50)


def test_a_set_without_variety_is_more_alike():
    generator = torch.Generator().manual_seed(0)
    varied = torch.rand(6, 1, 16, 16, 16, generator=generator)
    alike = varied[:1] + 0.02 * varied
    real, collapsed = (audit.similarity(images, seed=0, repeats=50) for images in (varied, alike))
    assert collapsed.low > real.high and collapsed.value > 0.95


def test_an_interval_of_similarity_is_over_volumes_and_no_fid_is_negative():
    halves = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    one_pair = audit.similarity(halves, seed=0)
    assert one_pair.low == one_pair.value == one_pair.high  # a volume is no pair with itself
    six = torch.cat([halves[:1].expand(5, -1, -1, -1, -1), halves[1:]])  # five are the same, and one is unlike them
    odd = audit.similarity(six, seed=0)
    unlike = (1 - odd.value) / (1 - one_pair.value)  # the share of pairs with the odd one
    assert unlike == pytest.approx(5 / 15, abs=1e-3)
    assert odd.high - odd.low > 0.6 * (1 - one_pair.value)  # 15 pairs on their own would give .47
    assert audit.distances(rows(12, seed=1), rows(12), seed=0)["FID"].low >= 0
    assert audit._estimate(torch.tensor(1.0), torch.tensor([0.0, 4.0]), least=0.0).low == 0


def test_features_are_the_mean_token_of_an_encoder():
    sizes = {"in_channels": 2, "out_channels": 2, "img_size": [16, 16, 16], "feature_size": 4, "levels": 3}
    encoder, images = build({"network": "unet", **sizes}).encoder.eval(), torch.randn(3, 2, 16, 16, 16)
    found = audit.features(encoder, images)
    assert found.shape == (3, encoder.hidden_size)
    torch.testing.assert_close(found[1], encoder(images[1:2])[0].mean(1)[0])


@pytest.mark.parametrize(
    ("synthetic", "real", "message"),
    [(rows(0), rows(4), "0 synthetic and 4 real volumes"), (rows(3, 4), rows(3, 5), "4 and 5 numbers a volume")],
)
def test_sets_that_cannot_be_compared_are_refused(synthetic, real, message):
    for measure in (lambda: audit.distances(synthetic, real, seed=0), lambda: audit.memorisation(synthetic, real, [])):
        with pytest.raises(CourseError, match=message):
            measure()
    with pytest.raises(CourseError, match="1 images make no pair"):
        audit.similarity(torch.rand(1, 1, 16, 16, 16), seed=0)


def test_sets_of_one_volume_again_and_again_have_a_distance_and_no_warning(recwarn):
    alike = torch.ones(4, 6)
    estimates = audit.distances(alike, torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), seed=0, repeats=5)
    assert all(np.isfinite(one.value) for one in estimates.values())
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]
