"""Every new flaw keeps shape and range, leaves an image nearly alone at severity zero, and grows."""

import pytest
import torch
from torch import Generator, Tensor

from lifeiqa_plugin.images.kinds import (
    KINDS,
    colour_noise,
    defocus,
    grain,
    overexpose,
    oversharpen,
    oversmooth,
    shake,
    soften,
    tint,
    underexpose,
)

NEW = [
    soften,
    defocus,
    shake,
    colour_noise,
    grain,
    oversharpen,
    oversmooth,
    underexpose,
    overexpose,
    tint,
]


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 40, 56, generator=Generator().manual_seed(0))


@pytest.mark.parametrize("distort", NEW)
def test_shape_and_range(distort, image: Tensor) -> None:
    out = distort(image, 0.7, Generator().manual_seed(1))
    assert out.shape == image.shape
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("distort", NEW)
def test_grows_with_severity(distort, image: Tensor) -> None:
    changes = [
        (distort(image, s, Generator().manual_seed(1)) - image).abs().mean()
        for s in (0.1, 0.5, 1.0)
    ]
    assert changes[0] < changes[1] < changes[2]


def test_same_generator_same_flaw(image: Tensor) -> None:
    first, second = (shake(image, 0.5, Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_flat_images_stay_flat() -> None:
    flat = torch.full((3, 32, 32), 0.4)
    for distort in (soften, defocus, shake, oversharpen, oversmooth):
        torch.testing.assert_close(distort(flat, 0.8, Generator().manual_seed(0)), flat)


def test_names_are_distinct() -> None:
    assert len(KINDS) == 13
    assert all(kind.generators for kind in KINDS.values())
