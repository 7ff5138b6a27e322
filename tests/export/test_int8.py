"""Convolutions in 8 bits, with a small random network."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from lifeiqa_plugin import cli
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.checkpoints.models import resolve
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.runtimes import create_engine

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from lifeiqa_plugin.export import int8, write  # noqa: E402  # need what is skipped for above

SMALL = {
    "backbone": "tf_mobilenetv3_small_minimal_100", "embed_dim": 16, "num_heads": 2, "depth": 1, "num_experts": 2,
    "score_range": (0.0, 1.0), "crop_size": 48, "working_size": 96, "whole_image": True,
}  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a checkpoint, photos, and what the command made of them."""
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    network = LifeIQA(**SMALL).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    save_checkpoint(network, folder / "small.safetensors", ModelCard("random numbers", "none"))
    (folder / "photos").mkdir()
    for i in range(write.MIN_PHOTOS):
        noise = Image.effect_noise((40 + i, 40), 5 * i).convert("RGB")
        noise.resize((130, 96)).save(folder / "photos" / f"{i:02d}.png")
    arguments = ["export", "--model", str(folder / "small.safetensors"), "--int8"]
    out = folder / "int8.onnx"
    assert cli.main([*arguments, str(folder / "photos"), "-o", str(out)]) == 0
    return folder


def test_convolutions_compute_with_integers(folder):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(folder / "int8.onnx", options)
    before, after = (
        Counter(node.op_type for node in onnx.load(folder / name).graph.node)
        for name in ("int8.onnx", "optimised.onnx")
    )
    assert after["QLinearConv"] == before["Conv"] - int8.FLOAT_CONVOLUTIONS > 20
    assert after["Conv"] == int8.FLOAT_CONVOLUTIONS


def test_scores_are_near_and_the_file_says_how_near(folder):
    rounded = create_engine(model=folder / "int8.onnx")
    exact = create_engine(model=folder / "small.safetensors", device="cpu")
    images = np.random.default_rng(0).random((2, 3, 96, 130), np.float32)
    error = np.abs(rounded.score(images).score - exact.score(images).score)
    assert 0 < error.max() < 0.02
    says = rounded.metadata.precision
    assert says.startswith("int8; scores of 8 other photos differ from float32 by a median of 0.0")
    assert (folder / "int8.onnx").stat().st_size < 0.5 * (
        folder / "small.safetensors"
    ).stat().st_size


def test_channels_keep_their_means(folder):
    """Layer by layer, on the images of the calibration, whatever the layers before did to them."""
    from lifeiqa_plugin.checkpoints.factory import build_lifeiqa

    network = build_lifeiqa(pretrained_model_path=folder / "small.safetensors", fused=True)
    images = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0)) ** 2
    names = [n for n, m in network.backbone.named_modules() if isinstance(m, torch.nn.Conv2d)]
    layers = [int8.Layer(name, name, f"{name} in", name) for name in names]
    found = int8.calibrate(layers, network, images)
    assert list(found.biases) == names

    last = network.backbone.get_submodule(names[-1])
    means = []
    last.register_forward_hook(lambda *args: means.append(args[2].mean((0, 2, 3))))
    with torch.no_grad():
        network.forward_crops(images)
        for layer in layers:
            imitate(network.backbone.get_submodule(layer.name), layer, found)
        network.forward_crops(images)
    step = found.ranges[names[-1]].step
    torch.testing.assert_close(means[1], means[0], atol=step, rtol=0)


def imitate(conv, layer, found):
    """Round what a convolution reads, holds and returns, by the definition."""

    def rounded(x, span):
        levels = (x / span.step + span.zero).round().clamp(0, 255)
        return (levels - span.zero) * span.step

    steps = conv.weight.abs().amax((1, 2, 3), keepdim=True) / 127
    conv.weight.copy_((conv.weight / steps).round() * steps)
    conv.bias.copy_(torch.from_numpy(found.biases[layer.name]))
    before, after = found.ranges[layer.input], found.ranges[layer.output]
    conv.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0], before),))
    conv.register_forward_hook(lambda _, inputs, out: rounded(out, after), prepend=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--format", "torch-export", "-o", "x.pt2"],
            "int8 is for the format onnx, not for torch-export",
        ),
        (["-o", "x.onnx"], "photos: 3 images; int8 needs 16 or more, of all kinds"),
    ],
)
def test_bad_arguments(options, words, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / f"{i}.png")
    model = str(folder / "small.safetensors")
    assert cli.main(["export", "--model", model, "--int8", "photos", *options]) == 2
    assert capsys.readouterr().err == f"lifeiqa export: {words}\n"


def test_a_network_that_comes_out_wrong_is_not_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "MAX_MEDIAN", -1.0)
    monkeypatch.setattr(int8, "quantize", lambda *_: None)
    model = onnx.load(folder / "int8.onnx")
    monkeypatch.setattr("lifeiqa_plugin.export.onnx_file.build_onnx", lambda *_: model)
    with pytest.raises(ValueError, match="this network cannot be quantized so: scores of 8 other"):
        write.export_checkpoint(
            tmp_path / "x.onnx", "onnx", folder / "small.safetensors", photos=folder / "photos"
        )
    assert list(tmp_path.iterdir()) == []


def test_damaged_photos_are_named(folder, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    network = LifeIQA(**SMALL).eval()
    with pytest.raises(ValueError, match=r"bad\.jpg: cannot be read as an image"):
        int8.find_differences(network, folder / "int8.onnx", [str(tmp_path / "bad.jpg")])


def test_the_bundled_one():
    exact, fast = create_engine("torch", device="cpu"), create_engine(fast=True)
    assert fast.names == exact.names
    assert fast.metadata.weights_sha256 == create_engine("onnxruntime").metadata.weights_sha256
    assert fast.metadata.precision.startswith("int8; ")
    assert resolve().exported(int8=True).path.stat().st_size < 8_000_000
    images = np.random.default_rng(0).random((1, 3, 250, 300), np.float32)
    assert 0 < abs(fast.score(images).score - exact.score(images).score) < 0.1


@pytest.mark.parametrize("options", [{"engine": "torch"}, {"device": "cuda"}])
def test_fast_is_one_engine(options):
    with pytest.raises(ValueError, match="fast is a bundled network in 8 bits, which ONNX Runtime"):
        create_engine(fast=True, **options)


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [("avx2", "x86_64", False), ("avx512_vnni", "x86_64", True), ("", "arm64", True)],
)
def test_where_sums_of_8_bit_products_fit(flags, machine, expected, monkeypatch):
    from lifeiqa_plugin.runtimes import onnxruntime_engine

    monkeypatch.setattr(onnxruntime_engine.platform, "machine", lambda: machine)
    monkeypatch.setattr(onnxruntime_engine.Path, "read_text", lambda self: flags)
    assert onnxruntime_engine.has_vnni() is expected
