"""What the frozen front of a backbone gives is kept, and the rest of the network goes on from it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch

from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.training import dataset as data
from lifeiqa_plugin.training import launch
from lifeiqa_plugin.training.dataset import LifeIQADataset
from lifeiqa_plugin.training.mixture import Mixture
from lifeiqa_plugin.training.optim import freeze
from lifeiqa_plugin.training.options import read_options
from lifeiqa_plugin.training.splits import train_splits
from lifeiqa_plugin.training.views import Front, frozen_steps

SMALL = {"embed_dim": 16, "num_heads": 2, "num_experts": 4, "crop_size": 32, "memory_grid": 2}
FRONT = ["backbone.stem_0", "backbone.stem_1", "backbone.stages_0"]
VIEWS = ("datasets:train:views=3", f"train:freeze=[{', '.join(FRONT)}]")


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = LifeIQA("test_convnext", **SMALL, distortions=("blur", "noise")).eval()
    freeze(network, FRONT)
    return network


@pytest.fixture
def decoded(monkeypatch):
    """The files that a training set has decoded."""
    found, read = [], data.read_image
    monkeypatch.setattr(data, "read_image", lambda path: found.append(path) or read(path))
    monkeypatch.setattr(launch, "describe_effort", lambda *_: "")  # decodes two
    return found


def test_the_network_goes_on_from_a_front(network):
    front = Front(network)
    crops = torch.rand(3, 3, 32, 32)
    features = front(crops)
    assert features.dtype == torch.float16
    judged, whole = front.judge(features), network(crops, return_details=True)
    for name in judged._fields:
        one, other = getattr(judged, name), getattr(whole, name)
        torch.testing.assert_close(one, other, rtol=5e-3, atol=5e-3, msg=name)
    assert judged.distortions.shape == (3, 2)
    torch.testing.assert_close(network(crops), whole.score)  # nothing is left out for good
    torch.autograd.backward(judged.score.sum())
    assert network.backbone.stages_1.blocks[0].conv_dw.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("backbone", "frozen", "expected"),
    [
        ("test_convnext", FRONT, ["stem_0", "stem_1", "stages_0"]),
        ("test_convnext", ["backbone"], ["stem_0", "stem_1", "stages_0", "stages_1", "stages_2"]),
        ("test_convnext", ["backbone.stages_0"], []),
        ("tf_efficientnet_lite0", ["backbone.conv_stem", "backbone.bn1", "backbone.blocks.0"],
         ["conv_stem", "bn1", "0"]),
        ("tf_efficientnet_lite0", ["backbone"], ["conv_stem", "bn1", "0", "1", "2", "3", "4"]),
        ("resnet18", ["backbone.conv1", "backbone.bn1"], ["conv1", "bn1", "act1", "maxpool"]),
        ("vit_tiny_patch16_224", ["backbone"], []),
    ],
)  # fmt: skip
def test_the_front_ends_at_stage3_or_before_what_is_trained(backbone, frozen, expected):
    assert front_of(backbone, (-2, -1), frozen) == expected


def test_the_front_ends_at_the_first_stage_that_is_seen():
    names = front_of("tf_efficientnet_lite0", (-3, -2, -1), ["backbone"])
    assert names == ["conv_stem", "bn1", "0", "1", "2"]


def front_of(backbone, stages, frozen):
    with torch.device("meta"):
        net = torch.nn.Module()
        net.backbone = timm.create_model(backbone, features_only=True, out_indices=stages)
    freeze(net, frozen)
    return [step.name for step in frozen_steps(net.backbone)]


class Twice(LifeIQA):
    def forward_crops(self, crops, need_weights=False):
        return super().forward_crops(super().normalize(crops), need_weights)


class Brighter(LifeIQA):
    def stages_of(self, crops):
        return super().stages_of(crops + 1)


@pytest.mark.parametrize(
    ("kind", "frozen", "message"),
    [
        (LifeIQA, ["backbone.stages_0"], "the backbone begins with none; name its first in train:"),
        (Twice, FRONT, "Twice on this backbone does not simply go on from what its frozen modules"),
        (Brighter, FRONT, "Brighter on this backbone does not simply go on"),
    ],
)
def test_no_front(kind, frozen, message):
    network = kind("test_convnext", **SMALL)
    freeze(network, frozen)
    with pytest.raises(ValueError, match=message):
        Front(network)


def make_training_set(root: Path, **changes) -> LifeIQADataset:
    opt = {
        "name": "train", "phase": "train", "meta_info_file": str(root / "meta.csv"), "views": 3,
        "dataroot_target": str(root), "batch_size_per_gpu": 6, "crops_per_image": 2, "crop_size": 32,
        "working_size": 48,
    }  # fmt: skip
    return LifeIQADataset(opt | changes)


def test_views_are_functions_of_seed_and_name(network, images, tmp_path, monkeypatch, decoded):
    """Wherever the folder is; and drawn once."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, tmp_path / "copy")
    front, items = Front(network), []
    for root, seed in ((images, 1), (tmp_path / "copy", 1), (images, 2)):
        training_set = make_training_set(root)
        training_set.keep_views(front, seed)
        items.append(training_set[5, 77]["img"])
        assert torch.equal(training_set[5, 77]["img"], items[-1])
    assert len(decoded) == 3
    assert items[0].shape == (2, *front(torch.rand(1, 3, 32, 32)).shape[1:])
    assert torch.equal(items[0], items[1])
    assert not torch.equal(items[0], items[2])
    assert not torch.equal(items[0][0], items[0][1])
    seen = {training_set[5, seed]["img"][0].sum().item() for seed in range(20)}
    assert len(seen) > 1  # places in a small image may coincide
    kept = list(Path("views").glob("*/*.npy"))
    assert len(kept) == 3
    assert np.load(kept[0]).shape[0] == 3


@pytest.mark.parametrize("changes", [{"views": 1}, {"ladder_share": 0.5}])
def test_views_that_cannot_be(images, changes):
    with pytest.raises(ValueError, match="views must be at least crops_per_image, and goes wit"):
        make_training_set(images, **changes)


def test_views_of_several_processes(images):
    model = SimpleNamespace(opt={"dist": True})
    training_set = make_training_set(images)
    with pytest.raises(ValueError, match="views works in one process, without --launcher"):
        launch.keep_views(model, Mixture([training_set], training_set.opt))


@pytest.mark.slow
def test_splits_share_their_views(write_options, decoded):
    """The same run as one that has all views already, and no image is decoded twice by two splits."""
    changes = (*VIEWS, "train:total_epoch=2", "train:amp=bf16")
    option_file = write_options(*changes, drop=("datasets:val",))
    results = train_splits(read_options(option_file), 2)
    assert len(decoded) == len(set(decoded)) > 28
    assert json.loads(Path("experiments/tiny_split02/test_results.json").read_text()) == results[1]
    before = read_losses("tiny_split02")
    shutil.rmtree("experiments")
    train_splits(read_options(option_file), 2)
    assert read_losses("tiny_split02") == before
    assert len(decoded) == len(set(decoded))


def read_losses(name: str) -> list[str]:
    log = next(Path("experiments", name).glob("train_*.log")).read_text()
    return re.findall(r"l_total: (\S+)", log)
