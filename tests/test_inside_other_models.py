"""The metric as a part of something that is trained, and in several threads: its scores stay the same bits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyiqa
import pytest
import torch
from torch import nn

import lifeiqa_plugin
from lifeiqa_plugin import LifeIQA, build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint

lifeiqa_plugin.register()

SMALL = {
    "backbone": "test_efficientnet", "embed_dim": 24, "num_heads": 2, "depth": 1,
    "num_experts": 2, "dropout": 0.5, "score_range": (0.0, 1.0), "crop_size": 64, "working_size": 110,
}  # fmt: skip
THREADS = 4


class Restorer(nn.Module):
    """A network that learns to please a metric."""

    def __init__(self, metric):
        super().__init__()
        self.metric = metric
        self.layer = nn.Conv2d(3, 3, 1)

    def loss(self, x):
        return -self.metric(self.layer(x).sigmoid())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    network = LifeIQA(**SMALL)
    nn.init.normal_(network.decoder.head.weight)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(network, path, ModelCard("nothing", "none"))
    return str(path)


@pytest.fixture
def metric(checkpoint):
    return pyiqa.create_metric("lifeiqa", device="cpu", pretrained_model_path=checkpoint)


def copy_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_unchanged(module, before):
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_train_mode_of_a_parent_changes_nothing(metric):
    x, parent, before = torch.rand(2, 3, 70, 90), Restorer(metric), copy_of(metric)
    score = metric(x)
    parent.train()
    assert parent.layer.training
    assert not any(module.training for module in metric.net.modules())
    for _ in range(3):
        assert torch.equal(metric(x), score)
    parent.eval()
    assert torch.equal(metric(x), score)
    assert_unchanged(metric, before)


def test_a_training_loop_trains_the_other_and_not_the_metric(checkpoint):
    """As Lightning does it: all parameters to the optimiser, train mode in each epoch, eval mode for validation."""
    options = {"device": "cpu", "as_loss": True, "pretrained_model_path": checkpoint}
    metric = pyiqa.create_metric("lifeiqa", **options)
    x, parent = torch.rand(2, 3, 64, 64), Restorer(metric)
    before, layer = copy_of(metric), copy_of(parent.layer)
    optimizer = torch.optim.AdamW(parent.parameters(), lr=0.05, weight_decay=0.1)
    validated = []
    for _ in range(3):
        parent.train()
        optimizer.zero_grad()
        parent.loss(x).backward()
        optimizer.step()
        parent.eval()
        with torch.no_grad():
            validated.append(parent.loss(x).item())
    assert_unchanged(metric, before)
    assert not torch.equal(parent.layer.weight, layer["weight"])
    assert validated[-1] < validated[0]


def test_a_model_of_pyiqa_trains_loaded_weights_too(checkpoint):
    """It asks for architecture and options; a metric by its name asks for weights that stay."""
    options = {"type": "LifeIQA", "pretrained_model_path": checkpoint}
    network = pyiqa.archs.build_network(options)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.train().training
    fused = pyiqa.archs.build_network(options | {"fused": True})
    assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_a_network_that_shall_learn_learns(checkpoint):
    network = build_lifeiqa(pretrained_model_path=checkpoint)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.train().training is False
    assert network.set_trainable(True) is network
    assert network.training
    before = copy_of(network)
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.decoder.head.parameters())
    changed = [
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert changed
    assert all("running_" in name or "num_batches" in name for name in changed)
    assert network.set_trainable(False).training is False


def in_threads(function):
    """Call ``function`` in four threads at the same moment."""
    start = Barrier(THREADS)

    def run(number):
        start.wait()
        return function(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_created_in_four_threads():
    x, state = torch.full((1, 3, 230, 230), 0.5), torch.get_rng_state()
    x[..., 100:] = 0.1
    metrics = in_threads(lambda _: pyiqa.create_metric("lifeiqa", device="cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    scores = [metric(x) for metric in metrics]
    assert all(torch.equal(score, scores[0]) for score in scores)


def test_scoring_in_four_threads(metric):
    images = [torch.rand(1, 3, 70 + number, 90) for number in range(THREADS)]
    expected, state = [metric(image) for image in images], torch.get_rng_state()
    for _ in range(3):
        scores = in_threads(lambda number: metric(images[number]))
        assert all(torch.equal(*pair) for pair in zip(scores, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
