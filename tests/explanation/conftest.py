"""Tiny networks of both kinds, and a small photo."""

import pytest
import torch
from torch import nn

from lifeiqa_plugin.network.lifeiqa import LifeIQA

TINY = "test_efficientnet"  # timm's own for tests: 0.1 M parameters, any input size
KINDS = ("blur", "noise", "dark")


def tiny(**options):
    """A network whose scores differ visibly from image to image."""
    torch.manual_seed(0)
    decoder = {"embed_dim": 24, "num_heads": 2, "num_queries": 3, "depth": 2, "num_experts": 4}
    scoring = {"score_range": (0.0, 1.0), "crop_size": 64, "working_size": 110}
    network = LifeIQA(TINY, **(decoder | scoring | options)).eval()
    nn.init.normal_(network.decoder.head.weight, std=0.5)
    return network


@pytest.fixture(scope="session", params=["crops", "whole image"])
def network(request):
    return tiny() if request.param == "crops" else tiny(whole_image=True, distortions=KINDS)


@pytest.fixture(scope="session")
def whole():
    return tiny(whole_image=True, distortions=KINDS, distortions_from="stages")


@pytest.fixture
def photo():
    """Smooth colours with noise in the lower right quarter, (3, 90, 130)."""
    ramp = torch.linspace(0.2, 0.8, 130).expand(3, 90, -1).clone()
    ramp[:, 45:, 65:] += 0.15 * torch.randn(3, 45, 65, generator=torch.Generator().manual_seed(0))
    return ramp.clamp(0, 1)
