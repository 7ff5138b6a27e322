"""Integrated gradients: a closed form, completeness, and nothing left behind."""

import pytest
import torch
from torch import nn

from lifeiqa_plugin.explanation.attribution import blurred, input_gradient, integrated_gradients


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 48, 64))

    def forward(self, x):
        return (self.weight * x).sum((1, 2, 3), keepdim=False)[:, None]


def test_of_a_linear_score_it_is_weight_times_detail():
    linear, x = Linear(), torch.rand(1, 3, 48, 64)
    expected = (linear.weight * (x - blurred(x))[0]).sum(0)
    torch.testing.assert_close(integrated_gradients(linear, x, steps=3), expected)


def test_its_sum_is_what_the_detail_adds_to_the_score(network):
    x = torch.rand(1, 3, 96, 110)
    with torch.no_grad():
        added = (network(x) - network(blurred(x))).item()
    total = integrated_gradients(network, x, steps=24).sum().item()
    assert abs(added) > 1e-3
    assert total == pytest.approx(added, rel=0.2)  # a sum of 24 terms for an integral


def test_the_blurred_start_has_the_mean_and_no_detail():
    x = torch.rand(1, 3, 96, 110)
    soft = blurred(x)
    assert soft.mean().item() == pytest.approx(x.mean().item(), abs=0.01)
    assert soft.std() < 0.2 * x.std()


def test_no_gradient_is_left_in_the_network(network):
    with torch.no_grad():
        gradient = input_gradient(network, torch.rand(1, 3, 96, 110))
    assert gradient.shape == (1, 3, 96, 110)
    assert gradient.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
