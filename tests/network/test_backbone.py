"""Backbones of all kinds, their weights from a file or from a hub that is not there, other input sizes than timm's."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from lifeiqa_plugin.network.config import SWIN_B
from lifeiqa_plugin.network.lifeiqa import LifeIQA

SMALL = {"embed_dim": 24, "num_heads": 2, "depth": 1, "num_experts": 2}


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("resnet18", (256, 512)), ("tf_efficientnet_lite0", (112, 320)), ("mobilenetv3_small_100", (48, 576)),
        ("pvt_v2_b0", (160, 256)), ("convnext_atto", (160, 320)), ("test_vit", (64, 64)),
    ],
)  # fmt: skip
def test_backbones_run(backbone, channels):
    network = LifeIQA(backbone, embed_dim=24, num_heads=2, depth=1, num_experts=2).eval()
    assert tuple(network.backbone.feature_info.channels()) == channels
    with torch.no_grad():
        score = network(torch.rand(2, 3, network.crop_size, network.crop_size))
    assert score.shape == (2, 1)
    assert score.isfinite().all()


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("swin_tiny_patch4_window7_224", (384, 768)), ("swin_small_patch4_window7_224", (384, 768)),
        (SWIN_B, (512, 1024)), ("convnext_tiny", (384, 768)), ("resnet50", (1024, 2048)),
        ("tf_efficientnet_lite2", (120, 352)), ("efficientnet_b0", (112, 320)), ("mobilenetv3_large_100", (112, 960)),
        ("pvt_v2_b2", (320, 512)), ("vgg11", (512, 512)), ("vit_tiny_patch16_224", (192, 192)),
    ],
)  # fmt: skip
def test_backbones_build(no_memory, backbone, channels):
    network = LifeIQA(backbone, embed_dim=24, num_heads=2, depth=1, num_experts=2)
    assert tuple(network.backbone.feature_info.channels()) == channels


def test_channels_last_backbone():
    """Swin gives (B, H, W, C); its decoder must see what it would see of the same stages channels-first."""
    network = LifeIQA(
        "swin_tiny_patch4_window7_224", embed_dim=24, num_heads=2, depth=1, num_experts=2
    ).eval()
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        stage3, stage4 = network.backbone((x - network.mean) / network.std)
        assert (stage3.shape, stage4.shape) == ((1, 14, 14, 384), (1, 7, 7, 768))
        expected = network.decoder(
            stage3.permute(0, 3, 1, 2), stage4.permute(0, 3, 1, 2), need_weights=True
        )
        details = network(x, return_details=True)
    torch.testing.assert_close(details.query_scores[:, 0], expected.query_scores)
    torch.testing.assert_close(
        details.attention[:, 0], expected.attention
    )  # rows and columns in their places
    assert details.attention.std() > 1e-5, "even attention would prove nothing"


@pytest.mark.parametrize(
    ("backbone", "crop_size", "mean"),
    [
        ("test_efficientnet", 160, (0.485, 0.456, 0.406)), ("resnet18", 224, (0.485, 0.456, 0.406)),
        ("tf_efficientnet_lite2", 260, (0.5, 0.5, 0.5)),
    ],
)  # fmt: skip
def test_input_comes_from_timm(no_memory, backbone, crop_size, mean):
    config = timm.get_pretrained_cfg(backbone)
    network = LifeIQA(backbone, embed_dim=24, num_heads=2)
    assert network.crop_size == config.input_size[-1] == crop_size
    assert network.working_size == round(crop_size * 12 / 7)
    assert config.mean == mean
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(config.mean))
    torch.testing.assert_close(network.std.flatten(), torch.tensor(config.std))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("swin_tiny_patch4_window7", "did you mean 'swin_tiny_patch4_window7_224', "),
     ("resnet_50", "did you mean 'resnet50"),
     ("resnet50.a1_in1", "did you mean 'resnet50.a1_in1k', "), ("qqqqqq", "see timm.list_models()")],
)  # fmt: skip
def test_unknown_backbone_names_the_nearest(name, hint):
    message = f"backbone must be a timm model, got '{name}'; {hint}"
    with pytest.raises(ValueError, match=re.escape(message)):
        LifeIQA(name)


def test_backbone_with_one_stage_is_refused(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, out_indices, **options: create(name, out_indices=(-9, -1), **options),
    )
    with pytest.raises(
        ValueError, match="backbone 'resnet18' cannot give its last 2 feature stages: "
    ):
        LifeIQA("resnet18")


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
        ("page.pth", b"<html>", "neither a safetensors nor a torch file, or truncated ("),
        ("half.pth", b"PK\x03\x04", "damaged or truncated torch file ("),
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
