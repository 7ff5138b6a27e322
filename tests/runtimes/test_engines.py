"""Engines: the same numbers as the network, whoever runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lifeiqa_plugin import runtimes
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.runtimes import ENGINES, choose_engine, create_engine, exported
from lifeiqa_plugin.runtimes.exported import ExportedEngine
from lifeiqa_plugin.runtimes.metadata import Metadata
from lifeiqa_plugin.runtimes.torch_engine import TorchEngine


def test_the_torch_engine_gives_the_networks_numbers():
    network = build_lifeiqa().eval()
    engine = create_engine("torch", device="cpu")
    batch = np.random.default_rng(0).random((2, 3, 384, 400), dtype=np.float32)
    assert engine.working_shape(3000, 4000) == (384, 512)
    assert engine.working_shape(384, 400) == (384, 400)
    output = engine.score(batch)
    with torch.no_grad():
        score, std = network(torch.from_numpy(batch), return_std=True)
    np.testing.assert_allclose(output.score, score[:, 0].numpy(), atol=1e-6)
    np.testing.assert_allclose(output.std, std[:, 0].numpy(), atol=1e-6)
    assert output.distortions.shape == (2, len(engine.names))


def test_a_network_of_ones_own():
    torch.manual_seed(0)
    network = build_lifeiqa(
        pretrained=False, backbone="test_convnext", embed_dim=16, num_heads=2, depth=1, crop_size=32
    )
    engine = TorchEngine(network)
    assert not network.training
    assert engine.working_shape(100, 200) == (55, 110)
    assert np.isfinite(engine.score(np.zeros((1, 3, 55, 110), np.float32)).score).all()


@pytest.mark.parametrize(
    ("setting", "expected"), [("3", 3), ("0", 5), ("", 5), ("many", 5), (None, 5)]
)
def test_threads_are_what_is_set_else_the_cores(setting, expected, monkeypatch):
    monkeypatch.setattr(exported, "count_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if setting is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert exported.count_threads() == expected


def test_cores_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(runtimes.os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert runtimes.count_cores() == 2
    monkeypatch.delattr(runtimes.os, "sched_getaffinity")
    monkeypatch.setattr(runtimes.os, "cpu_count", lambda: None)
    assert runtimes.count_cores() == 1


def test_files_in_8_bits_let_jpegs_shrink_further():
    exact, rounded = (
        ExportedEngine(Path("x"), Metadata(224, 384, True, (), "1", "00", precision=name).to_json())
        for name in ("float32", "int8")
    )
    assert rounded.shrink_to < exact.shrink_to


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("trch", "no engine is called 'trch'; did you mean 'torch'?"),
        ("zzz", "no engine is called 'zzz'; known are auto, torch, onnxruntime, openvino"),
    ],
)
def test_unknown_engines(engine, message):
    assert "torch" in ENGINES
    with pytest.raises(ValueError, match=message):
        create_engine(engine)


@pytest.mark.parametrize(
    ("model", "device", "gpu", "engine"),
    [
        ("lifeiqa", "auto", None, "onnxruntime"),
        ("lifeiqa-biq2021", "cpu", "nvidia-smi", "onnxruntime"),
        ("lifeiqa", "auto", "nvidia-smi", "torch"),
        ("lifeiqa", "cuda", "nvidia-smi", "torch"),
        ("mine.safetensors", "cpu", None, "torch"),
        ("mine.onnx", "cuda", None, "onnxruntime"),
        ("mine.xml", "auto", None, "openvino"),
    ],
)
def test_what_auto_chooses(model, device, gpu, engine, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.safetensors", "mine.onnx", "mine.xml"):
        (tmp_path / name).touch()
    monkeypatch.setattr(runtimes.shutil, "which", lambda name: gpu)
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: name)
    assert choose_engine(model=model, device=device).engine == engine


@pytest.mark.parametrize(
    ("engine", "install"),
    [
        ("torch", r"pip install \. in a checkout of lifeiqa_plugin"),
        ("onnxruntime", "pip install onnxruntime"),
        ("openvino", r"pip install 'lifeiqa_plugin\[openvino\]' or openvino"),
    ],
)
def test_engines_that_are_not_installed(engine, install, monkeypatch):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"engine {engine} is not installed: {install}$"):
        create_engine(engine)
    with pytest.raises(ImportError, match="engine torch is not installed"):
        create_engine("auto")


@pytest.mark.parametrize(
    ("engine", "name", "message"),
    [
        ("torch", "a.onnx", r"a\.onnx: a onnx file, but torch reads checkpoints"),
        (
            "onnxruntime",
            "a.pth",
            r"a\.pth: a checkpoint file, but this engine reads onnx",
        ),
    ],
)
def test_files_of_another_kind(engine, name, message, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        create_engine(engine, tmp_path / name)
