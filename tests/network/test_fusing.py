"""BatchNorm in the convolutions: the same scores from a copy that has none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.network.fusing import fuse_batch_norm
from lifeiqa_plugin.network.lifeiqa import LifeIQA

SMALL = {"embed_dim": 16, "num_heads": 2, "depth": 1, "num_experts": 2, "crop_size": 64}


def count_norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("backbone", "left"),
    [
        ("tf_mobilenetv3_small_minimal_100", 0),
        ("resnet10t", 0),
        ("test_convnext", 0),  # has none to begin with
        ("test_nfnet", 0),
    ],
)
def test_scores_stay_and_norms_go(backbone, left):
    torch.manual_seed(0)
    network = LifeIQA(backbone, **SMALL).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    before = count_norms(network)
    fused = fuse_batch_norm(network)
    assert count_norms(network) == before
    assert count_norms(fused) == left
    image = torch.rand(2, 3, 90, 120)
    with torch.no_grad():
        expected = network(image, return_details=True)
        found = fused(image, return_details=True)
    torch.testing.assert_close(found.query_scores, expected.query_scores, atol=1e-5, rtol=1e-5)
    assert not found.score.requires_grad
    assert not any(p.requires_grad for p in fused.parameters())


def test_the_bundled_network_fused():
    plain, fused = build_lifeiqa(), build_lifeiqa(fused=True)
    assert (count_norms(plain), count_norms(fused)) == (63, 0)
    image = torch.rand(1, 3, 224, 240, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fused(image), plain(image), atol=1e-5, rtol=0)


def test_random_weights_are_not_fused():
    with pytest.raises(ValueError, match="fused=True is for scoring with weights that are there"):
        build_lifeiqa(pretrained=False, fused=True, backbone="test_convnext", **SMALL)
