"""Every new flaw keeps shape and range, leaves an image nearly alone at severity zero, and grows."""

import pytest
import torch
from torch import Generator, Tensor

from lifeiqa_plugin.distortions import kinds
from lifeiqa_plugin.distortions.kinds import KINDS, random_ladder
from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED, blur

DRAWN = [distort for kind in KINDS.values() for distort in kind.generators]
NEW = [distort for distort in DRAWN if distort not in TRAINED.values()]


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 96, 128, generator=Generator().manual_seed(0))


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
    first, second = (kinds.shake(image, 0.5, Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_flat_images_stay_flat() -> None:
    flat = torch.full((3, 32, 32), 0.4)
    for distort in (blur, kinds.defocus, kinds.shake, kinds.oversharpen, kinds.oversmooth):
        torch.testing.assert_close(distort(flat, 0.8, Generator().manual_seed(0)), flat)


def test_training_draws_what_ladders_call_trained() -> None:
    assert (len(KINDS), len(NEW)) == (15, 11)
    assert set(DRAWN) >= set(TRAINED.values())
    assert set(DRAWN).isdisjoint(HELD_OUT.values())


def test_random_ladder_is_drawn_from_the_generator(image: Tensor) -> None:
    def draw(seed):
        return random_ladder(image, 3, torch.Generator().manual_seed(seed))

    def stack(seed):
        return torch.stack(draw(seed)[0])

    assert stack(5).shape == (3, *image.shape)
    assert torch.equal(stack(5), stack(5))
    assert not torch.equal(stack(5), stack(6))
    assert all(
        torch.equal(rungs[0], image) == is_clean for rungs, is_clean, _ in map(draw, range(8))
    )
    assert {ladder.is_clean for ladder in map(draw, range(8))} == {True, False}
    assert {ladder.kind for ladder in map(draw, range(20))} <= set(KINDS)
