"""``lifeiqa_plugin.torchmetrics``: the mean of the metric's scores, also over processes."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torchmetrics")

from lifeiqa_plugin import build_lifeiqa
from lifeiqa_plugin.torchmetrics import LifeIQA


@pytest.fixture(scope="module")
def batches() -> list[torch.Tensor]:
    return [torch.rand(2, 3, 224, 224), torch.rand(1, 3, 230, 260)]


@pytest.fixture(scope="module")
def expected(batches) -> list[float]:
    network = build_lifeiqa(pretrained=True)
    with torch.no_grad():
        return [value for batch in batches for value in network(batch)[:, 0].tolist()]


def test_the_mean_over_batches(batches, expected):
    metric = LifeIQA().train()
    for batch in batches:
        metric.update(batch)
    assert metric.compute().item() == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert not metric.network.training
    assert not metric.compute().requires_grad
    metric.reset()
    assert metric(batches[1]).item() == pytest.approx(expected[2], abs=1e-5)


def test_processes_are_summed(batches, expected):
    """As torchmetrics does it: states are gathered, stacked and reduced."""
    second = LifeIQA()
    second.update(batches[1])
    others = {"total": second.total, "count": second.count}
    names = iter(others)
    first = LifeIQA(
        dist_sync_fn=lambda state, group: [state, others[next(names)]],
        distributed_available_fn=lambda: True,
    )
    first.update(batches[0])
    assert first.compute().item() == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert next(names, None) is None
    assert first.count == 2  # what is this process's own again


def test_errors_are_the_networks():
    with pytest.raises(ValueError, match=r"images must lie in .0, 1., got minimum 255"):
        LifeIQA().update(torch.full((1, 3, 224, 224), 255.0))
