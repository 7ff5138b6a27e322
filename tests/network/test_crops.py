"""Crops cover the whole image, evenly and without random numbers."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from lifeiqa_plugin.network.crops import (
    MAX_ASPECT,
    crop_offsets,
    cut_crops,
    to_working_size,
    working_shape,
)

SIDES = [224, 225, 384, 447, 448, 449, 673]
SIZES = [(h, w) for h in SIDES for w in SIDES] + [(384, 3072), (3072, 384), (224, 1792)]
ANY = [(1, 1), (1, 3000), (3000, 1), (2, 7), (100, 150), (224, 224), (225, 224), (480, 640), (768, 1024), (500, 8000),
       (8000, 500), (10, 20_000), (6000, 4000)]  # fmt: skip


def sizes():
    """(height, width, crop size), the last much smaller as a rule."""
    yield from ((*size, 224) for size in SIZES)
    numbers = random.Random(1)
    for _ in range(300):
        size = numbers.randint(1, 40)
        yield numbers.randint(size, 200), numbers.randint(size, 200), size


def test_every_pixel_is_covered_by_the_fewest_crops_evenly():
    for height, width, size in sizes():
        offsets = crop_offsets(height, width, size)
        assert offsets == sorted(set(offsets)), (height, width, size)
        assert len(offsets) == -(-height // size) * -(-width // size), (height, width, size)
        for axis, length in enumerate((height, width)):
            starts = sorted({offset[axis] for offset in offsets})
            seen = {pixel for start in starts for pixel in range(start, start + size)}
            assert seen == set(range(length)), (height, width, size)
            steps = [b - a for a, b in pairwise(starts)]
            assert max(steps, default=0) - min(steps, default=0) <= 1, (height, width, size)


@pytest.mark.parametrize("number", [None, 1, 20])
def test_exact_at_the_crop_size(number):
    x = torch.rand(2, 3, 224, 224)
    assert to_working_size(x, 224, 384) is x
    offsets = crop_offsets(224, 224, 224, number)
    assert offsets == [(0, 0)]
    assert torch.equal(cut_crops(x, offsets, 224), x)


def test_crops_of_an_image_lie_side_by_side():
    x = torch.rand(2, 3, 300, 250)
    offsets = [(0, 0), (76, 26), (5, 7)]
    crops = cut_crops(x, offsets, 224)
    assert crops.shape == (6, 3, 224, 224)
    for b in range(2):
        for n, (top, left) in enumerate(offsets):
            assert torch.equal(crops[b * 3 + n], x[b, :, top : top + 224, left : left + 224])


@pytest.mark.parametrize(
    ("size", "number", "grid"),
    [
        ((384, 384), 1, (1, 1)), ((384, 384), 4, (2, 2)), ((384, 384), 5, (2, 2)), ((384, 384), 9, (3, 3)),
        ((384, 512), 20, (4, 5)), ((512, 384), 20, (5, 4)), ((384, 576), 6, (2, 3)), ((384, 3072), 8, (1, 8)),
        ((3072, 384), 8, (8, 1)), ((384, 384), 7, (2, 3)), ((225, 225), 100, (2, 2)), ((224, 300), 9, (1, 3)),
    ],
)  # fmt: skip
def test_asking_for_a_number(size, number, grid):
    offsets = crop_offsets(*size, 224, number)
    assert (len({top for top, _ in offsets}), len({left for _, left in offsets})) == grid
    assert len(offsets) == grid[0] * grid[1] <= number


def test_any_number_gives_a_grid_that_touches_the_edges():
    for height, width in [(384, 384), (384, 512), (640, 384), (384, 3072)]:
        for number in range(4, 60):
            offsets = crop_offsets(height, width, 224, number)
            tops, lefts = {top for top, _ in offsets}, {left for _, left in offsets}
            assert len(offsets) == len(tops) * len(lefts) <= number, (height, width, number)
            assert len(offsets) >= 0.7 * number, (height, width, number)
            for positions, room in ((tops, height - 224), (lefts, width - 224)):
                ends = (min(positions), max(positions))
                wanted = (0, room) if len(positions) > 1 else (room // 2, room // 2)
                assert ends == wanted, (height, width, number)


@pytest.mark.parametrize("number", [0, -3])
def test_no_crops_are_refused(number):
    with pytest.raises(ValueError, match=f"num_crops must be None or at least 1, got {number}"):
        crop_offsets(384, 384, 224, number)


@pytest.mark.parametrize("size", [(223, 500), (500, 223)])
def test_too_small_images_are_refused(size):
    message = f"image must be at least 224 x 224, got {size[0]} x {size[1]}; resize it first"
    with pytest.raises(ValueError, match=message):
        crop_offsets(*size, 224)


# --------------------------------------------------------------------------------------------------------- working size


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((224, 224), (224, 224)),  # fits: untouched
        ((300, 380), (300, 380)),
        ((384, 2000), (384, 2000)),
        ((768, 1024), (384, 512)),  # too large: shorter side to 384
        ((4000, 6000), (384, 576)),
        ((112, 150), (224, 300)),  # too small: shorter side to 224
        ((1, 1), (224, 224)),
        ((1, 3000), (224, 1792)),  # longer than 8:1: squeezed to 8:1
        ((1000, 9000), (384, 3072)),
        ((385, 386), (384, 385)),
    ],
)
def test_working_shape(size, expected):
    assert working_shape(*size, 224, 384) == expected
    assert working_shape(*size[::-1], 224, 384) == expected[::-1]


def test_working_shape_rules():
    numbers = random.Random(2)
    for _ in range(2000):
        height, width = (int(2 ** numbers.uniform(0, 15)) for _ in range(2))
        new = working_shape(height, width, 224, 384)
        assert 224 <= min(new) <= 384, (height, width)
        assert max(new) <= MAX_ASPECT * min(new), (height, width)
        assert working_shape(*new, 224, 384) == new, "an image at its working size stays there"
        assert (new[0] - new[1]) * (height - width) >= 0, "landscape stays landscape"
        if max(height, width) <= MAX_ASPECT * min(height, width):
            stretch = new[0] / height * width / new[1]
            assert abs(stretch - 1) <= 0.5 / min(new) + 0.5 / max(new), (height, width)


@pytest.mark.parametrize("size", ANY)
def test_any_size_gives_full_crops_of_finite_pixels(size):
    x = to_working_size(torch.rand(1, 1, *size), 224, 384)
    assert tuple(x.shape[-2:]) == working_shape(*size, 224, 384)
    assert 0 <= x.min() <= x.max() <= 1
    crops = cut_crops(x, crop_offsets(*x.shape[-2:], 224), 224)
    assert crops.shape[1:] == (1, 224, 224)
    assert len(crops) <= 2 * 14  # 8:1 at 384


def test_reduction_is_antialiased():
    """Stripes finer than the new grid turn gray; without the low-pass filter they alias, here to white."""
    stripes = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(384).expand(1, 1, 1536, 1536)
    assert F.interpolate(stripes, (384, 384), mode="bicubic").min() > 0.9
    gray = to_working_size(stripes, 224, 384)
    torch.testing.assert_close(
        gray, torch.full((1, 1, 384, 384), 0.5), atol=0.05, rtol=0
    )  # the edges see one-sided
    torch.testing.assert_close(gray[..., 4:-4], torch.full((1, 1, 384, 376), 0.5))


def test_resizing_is_clamped_where_bicubic_overshoots():
    edge = (torch.arange(60) >= 30).float().expand(1, 1, 60, 60)
    assert F.interpolate(edge, (224, 224), mode="bicubic", antialias=True).min() < 0
    resized = to_working_size(edge, 224, 384)
    assert (resized.min(), resized.max()) == (0, 1)
