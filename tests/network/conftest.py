"""A tiny network, whose scores differ visibly from image to image."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from lifeiqa_plugin.network.lifeiqa import LifeIQA

SMALL = {"embed_dim": 24, "num_heads": 2, "depth": 2, "num_experts": 4}
SCORING = {"score_range": (0.0, 1.0), "crop_size": 64, "working_size": 110}


@pytest.fixture
def tiny():
    """Build timm's own network for tests (0.1 M parameters, any input size) in evaluation mode."""

    def build(**options):
        network = LifeIQA("test_efficientnet", **(SMALL | SCORING | options)).eval()
        nn.init.normal_(network.decoder.head.weight, std=0.5)
        return network

    return build


@pytest.fixture
def network(tiny):
    return tiny()


@pytest.fixture
def whole(tiny):
    return tiny(whole_image=True)


@pytest.fixture(params=["crops", "whole"])
def either(request, tiny):
    """Cut into crops, or whole."""
    return tiny(whole_image=request.param == "whole")


@pytest.fixture
def no_memory(monkeypatch):
    """Build backbones without their weights, for counting."""
    create = timm.create_model

    def create_on_meta(*args, **options):
        with torch.device("meta"):
            return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", create_on_meta)
