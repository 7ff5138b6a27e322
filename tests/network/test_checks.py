"""Images that are refused, pixels that count as the nearest inside, and scores that are none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.long), "torch.int64"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bool), "torch.bool"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "torch.complex64"),
        (np.zeros((1, 3, 8, 8), dtype=np.float32), "ndarray"),
        ([torch.zeros(3, 8, 8)], "list"),
        ("photo.jpg", "str"),
        (None, "NoneType"),
    ],
)
def test_wrong_types_are_refused(network, x, got):
    message = rf"images must be a floating-point tensor in \[0, 1\], got {got}; divide 8-bit images by 255"
    with pytest.raises(TypeError, match=message):
        network(x)


@pytest.mark.parametrize(
    "shape",
    [
        (3, 8, 8), (8, 8), (1, 1, 3, 8, 8), (1, 2, 8, 8), (1, 4, 8, 8), (1, 8, 8, 3),
        (0, 3, 8, 8), (1, 3, 0, 8), (1, 3, 8, 0),
    ],
)  # fmt: skip
def test_wrong_shapes_are_refused(network, shape):
    message = r"images must be \(B, 1 or 3, H, W\) with no empty side, got "
    with pytest.raises(ValueError, match=message) as error:
        network(torch.zeros(shape))
    assert str(error.value).endswith(str(shape))


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (float("nan"), "minimum nan and maximum nan"),
        (float("inf"), r"minimum 0\.\d+ and maximum inf"),
        (-float("inf"), r"minimum -inf and maximum 0\.\d+"),
    ],
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_images_that_are_not_finite_are_refused(network, value, got, requires_grad):
    x = torch.rand(2, 3, 20, 20)
    x[1, 2, 7, 9] = value
    with pytest.raises(ValueError, match=f"images must be finite, got {got}"):
        network(x.requires_grad_(requires_grad))


@pytest.mark.parametrize(("low", "high"), [(-0.51, 1), (0, 255)])
def test_images_far_outside_the_range_are_a_warning(network, low, high):
    """An error would end a training whose loss this is."""
    x = torch.full((1, 3, 20, 20), 0.5)
    x[0, 0, 0, 0], x[0, 1, 1, 1] = low, high
    with torch.no_grad():
        expected = network(x.clamp(0, 1))
    for image in (x, x.clone().requires_grad_()):
        with pytest.warns(UserWarning, match=r"further outside \[0, 1\] than 0.5.*by 255"):
            torch.testing.assert_close(network(image), expected)


def test_the_warning_is_shown_once(network):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for scale in (3, 4, 5):
            network(scale * torch.rand(1, 3, 20, 20))
    assert len(seen) == 1


def test_pixels_a_little_outside_count_as_the_nearest_inside(network):
    """With and without a gradient; the score is that of the image as it would be saved."""
    x = 2 * torch.rand(1, 3, 80, 90) - 0.5
    with torch.no_grad():
        score = network(x)
        assert torch.equal(score, network(x.clamp(0, 1)))
    x.requires_grad_()
    torch.testing.assert_close(network(x), score)
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    outside = (x < 0) | (x > 1)
    assert 0.4 < outside.float().mean() < 0.6
    assert not gradient[outside].any()
    assert gradient[~outside].any()


def test_damaged_weights_give_no_score(network):
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        network.decoder.head.weight[0, 3] = float("nan")
    for options in ({}, {"return_std": True}, {"return_details": True}):
        with pytest.raises(FloatingPointError, match="the score is not finite: the weights are"):
            network(x, **options)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # of torch.jit, at times
def test_tracing_is_refused(network):
    with pytest.raises(RuntimeError, match=r"cannot be traced.*trace network\.forward_crops"):
        torch.jit.trace(network, torch.rand(1, 3, 64, 64))
