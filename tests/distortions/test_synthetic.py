"""Ladders of distortions: same shape and range, seeded, and further from the image at every step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED, build_ladder
from lifeiqa_plugin.images.reading import read_image

KINDS = TRAINED | HELD_OUT
SEVERITIES = [0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    path = Path(__file__).parents[2] / "examples" / "photos" / "chelsea_0_clean.jpg"
    return F.interpolate(read_image(path)[None], (150, 225), mode="area")[0]


def test_kinds():
    """At least 12 are trained, and none of the held-out ones is."""
    assert len(TRAINED) >= 12
    assert len(KINDS) == len(TRAINED) + len(HELD_OUT)


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_departs_further(photo, kind):
    before = photo.clone()
    clean, *rungs = build_ladder(photo, KINDS[kind], SEVERITIES, seed=0)
    assert torch.equal(clean, before)
    departures = [0.0]
    for rung in rungs:
        assert rung.shape == photo.shape
        assert 0 <= rung.min() <= rung.max() <= 1
        departures.append((rung - photo).abs().mean().item())
    assert departures == sorted(set(departures))


@pytest.mark.parametrize("kind", KINDS)
def test_severity_zero_is_hardly_visible(photo, kind):
    difference = (KINDS[kind](photo, 0.0, torch.Generator()) - photo).abs().mean()
    assert difference < 0.03


@pytest.mark.parametrize(
    "kind", ["noise", "motion_blur", "colour_cast", "salt_and_pepper", "speckle"]
)
def test_random_kinds_are_functions_of_the_seed(photo, kind):
    def last(seed):
        return build_ladder(photo, KINDS[kind], SEVERITIES, seed)[-1]

    assert torch.equal(last(1), last(1))
    assert any(not torch.equal(last(1), last(seed)) for seed in range(2, 6))
