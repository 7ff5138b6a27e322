"""An option that ``tools/write_option.py`` writes is in the checkpoint and in the exported files beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa, load
from lifeiqa_plugin.network.detail import DetailRule
from lifeiqa_plugin.runtimes import create_engine
from lifeiqa_plugin.runtimes.metadata import parse_metadata

ROOT = Path(__file__).parents[1]
RULE = {"offset": 0.1, "score": -0.02, "upscaled": 0.01}


def test_an_option_reaches_every_engine(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import write_option

    monkeypatch.setattr(write_option, "SOURCES", ())
    for name in ("lifeiqa.safetensors", "lifeiqa.onnx", "lifeiqa-int8.onnx"):
        shutil.copy(ROOT / "lifeiqa_plugin" / "checkpoints" / name, tmp_path)
    checkpoint = tmp_path / "lifeiqa.safetensors"
    image = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    before = create_engine(model=tmp_path / "lifeiqa.onnx", device="cpu").score(image)
    write_option.write_option(checkpoint, "detail", RULE)
    expected = DetailRule.parse(RULE)
    for file in ("lifeiqa.onnx", "lifeiqa-int8.onnx"):
        engine = create_engine(model=tmp_path / file, device="cpu")
        assert engine.detail == expected
        assert engine.metadata == parse_metadata(engine.metadata.to_json(), file)
    after = create_engine(model=tmp_path / "lifeiqa.onnx", device="cpu").score(image)
    assert np.array_equal(before.score, after.score)
    network = load(checkpoint)
    assert network.detail == expected
    assert create_engine("torch", checkpoint, "cpu").detail == expected
    assert build_lifeiqa(pretrained_model_path=checkpoint, detail=False).detail is None
