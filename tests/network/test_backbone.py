"""Weights of a backbone from a file or from a hub that is not there, and other input sizes than timm's."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from lifeiqa_plugin.network.lifeiqa import LifeIQA

SMALL = {"embed_dim": 24, "num_heads": 2, "depth": 1, "num_experts": 2}


@pytest.fixture
def weights():
    """The weights of a whole timm model, classifier and all."""
    return timm.create_model("test_efficientnet").state_dict()


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "wrapped.pth"])
def test_weights_from_a_file(weights, tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights} if "wrapped" in suffix else weights, path)
    network = LifeIQA("test_efficientnet", backbone_pretrained=path, **SMALL)
    loaded = network.backbone.state_dict()
    assert loaded
    for name, value in loaded.items():
        assert torch.equal(value, weights[name]), name
    assert LifeIQA("test_efficientnet", backbone_pretrained=str(path), **SMALL)


def test_weights_of_another_backbone(weights, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({f"other.{name}": value for name, value in weights.items()}, path)
    message = r"weights\.pth: no weights of the backbone 'test_efficientnet': of its 82,300 .* only [0-9,]{1,5} are"
    with pytest.raises(ValueError, match=message):
        LifeIQA("test_efficientnet", backbone_pretrained=path, **SMALL)
    torch.save(timm.create_model("test_vit").state_dict(), path)
    with pytest.raises(
        ValueError, match=r"weights\.pth: no weights of the backbone 'test_efficientnet'"
    ):
        LifeIQA("test_efficientnet", backbone_pretrained=path, **SMALL)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "no such file; backbone_pretrained takes True, False, or a timm .safetensors or .pth"),
        ("page.pth", b"<html>", "damaged, or not the weights of a timm model"),
        ("page.safetensors", b"<html>", "damaged, or not the weights of a timm model"),
    ],
)  # fmt: skip
def test_files_that_are_no_weights(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=re.escape(f"{tmp_path / name}: {message}")):
        LifeIQA("test_efficientnet", backbone_pretrained=tmp_path / name, **SMALL)


def test_a_hub_that_is_not_reached(monkeypatch):
    """One error: which model, which file, where to put it."""
    create = timm.create_model

    def without_hub(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to host\nand much more")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", without_hub)
    message = (
        "backbone 'test_efficientnet': its weights cannot be fetched (ConnectionError: no route to host). Wanted "
        "https://huggingface.co/timm/test_efficientnet.r160_in1k/resolve/main/model.safetensors; fetch it elsewhere, "
        "save it anywhere on this machine and give backbone_pretrained: path"
    )
    with pytest.raises(OSError, match=re.escape(message)):
        LifeIQA("test_efficientnet", backbone_pretrained=True, **SMALL)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("backbone", "size"),
    [("test_vit", 96), ("test_vit2", 192), ("swin_tiny_patch4_window7_224", 112)],
)
def test_other_sizes_reach_backbones_of_fixed_size(monkeypatch, backbone, size, whole):
    create = timm.create_model

    def create_tiny(name, **options):
        tiny = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}
        return create(name, **options, **(tiny if "swin" in name else {}))

    monkeypatch.setattr(timm, "create_model", create_tiny)
    network = LifeIQA(backbone, crop_size=size, **SMALL).eval()
    assert network.crop_size == size
    with torch.no_grad():
        score = network(torch.rand(1, 3, size + 20 * whole, size))
    assert score.isfinite().all()


def test_a_size_that_a_backbone_cannot_take():
    message = "backbone 'test_vit' cannot give stages of 8x8: "
    with pytest.raises(ValueError, match=message):
        LifeIQA("test_vit", crop_size=8, **SMALL)


def test_a_backbone_whose_input_size_is_not_known(monkeypatch):
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: None)
    message = "backbone 'resnet18': timm does not know its input size; choose another"
    with pytest.raises(ValueError, match=message):
        LifeIQA("resnet18", **SMALL)
