"""What measurements/explanations.py counts: planted answers on toy networks, and the real map on two photos."""

import pytest
import torch

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa


@pytest.fixture
def explanations(load):
    return load("explanations")


@pytest.mark.parametrize("anywhere", [False, True])
def test_quarters_differ_from_case_to_case_and_repeat(explanations, anywhere):
    x = torch.rand(1, 3, 64, 96)
    seen = set()
    for case in range(24):
        distorted, quarter, kind = explanations.distort_a_quarter(x, case, 0.6, anywhere)
        again, *_ = explanations.distort_a_quarter(x, case, 0.6, anywhere)
        assert torch.equal(distorted, again)
        outside = torch.ones(64, 96, dtype=torch.bool)
        outside[quarter.top : quarter.top + 32, quarter.left : quarter.left + 48] = False
        assert torch.equal(distorted[..., outside], x[..., outside])
        assert not torch.equal(distorted, x)
        assert quarter.holds(quarter.top, quarter.left)
        assert not quarter.holds(quarter.top + 32, quarter.left)
        seen.add((quarter.top, quarter.left, kind.__name__))
    assert len(seen) > 8
    in_corners = all(top in (0, 32) and left in (0, 48) for top, left, _ in seen)
    assert in_corners != anywhere


def test_the_bundled_maps_find_blur_noise_and_jpeg_in_a_quarter(explanations):
    photos = explanations.find_photos(explanations.ROOT / "examples" / "photos", 1)
    assert len(photos) == 1
    network = build_lifeiqa().eval()
    hits = explanations.find_quarters(network, photos, cases=4, severity=0.6, anywhere=False)
    for name in (explanations.QUALITY, explanations.OWN):
        assert set(hits[name]) == {"blur", "noise", "jpeg", "darken"}
        assert all(len(found) == 1 for found in hits[name].values())
        assert sum(sum(hits[name][kind]) for kind in ("blur", "noise", "jpeg")) == 3
    clean = explanations.look_at_clean_photos(network, photos)
    assert len(clean) == 5
    assert all(len(found) == 1 for found in clean.values())
