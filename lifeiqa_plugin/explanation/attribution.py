"""Which pixels carry the score: integrated gradients.

Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017. The path begins at a blurred copy of
the image, not at black: for a quality metric black is a flaw of its own, while a blurred copy lacks just what quality
is made of, and what the attribution then says of a pixel is what its detail adds to the score.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from lifeiqa_plugin.network.lifeiqa import LifeIQA

STEPS = 16
"""Gradients along the path. The sum of the attribution then differs from what it should be by a few percent."""


def blurred(x: Tensor) -> Tensor:
    """Return (B, 3, H, W) images without their detail: a Gaussian of 1 / 24 of the shorter side."""
    sigma = min(x.shape[-2:]) / 24
    side = 2 * round(2 * sigma) + 1
    soft: Tensor = gaussian_blur(x, [side, side], [sigma, sigma])
    return soft


def integrated_gradients(network: LifeIQA, x: Tensor, steps: int = STEPS) -> Tensor:
    """Share the score of x (1, 3, H, W) minus that of its blurred copy out among the pixels.

    Nothing is left in the ``grad`` of the network's parameters.

    Returns:
        (H, W): above 0 where the detail raises the score, below 0 where it lowers it; the sum is the difference of
        the two scores, but for the error of a sum of ``steps`` terms (middle-point rule).
    """
    start = blurred(x)
    total = torch.zeros_like(x)
    for step in range(steps):
        total += input_gradient(network, torch.lerp(start, x, (step + 0.5) / steps))
    return ((x - start) * total / steps).sum((0, 1))


def input_gradient(network: LifeIQA, x: Tensor) -> Tensor:
    """Return the gradient (1, 3, H, W) of the score with respect to the image."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).sum(), x)
    return gradient
