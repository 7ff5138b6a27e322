"""Inputs that people give by mistake, each at the door where they would give it; the rooms test their own words."""

from __future__ import annotations

from pathlib import Path

import pyiqa
import pytest
import torch
from PIL import Image

from lifeiqa_plugin import cli

ROOT = Path(__file__).parents[2]
QUICK = str(ROOT / "options" / "train" / "quick.yml")
PREPARE = ["prepare", "folder", "photos", "--scores", "scores.csv", "--out", "meta.csv"]
BENCHMARK = ["benchmark", "-o", "out", "--no-speed", "-d"]


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("empty").mkdir()
    for i in range(6):
        Image.new("RGB", (40, 40), (40 * i,) * 3).save(f"photos/{i}.png")
    Path("scores.csv").write_text("name,mos\n" + "".join(f"{i}.png,{i * 18}\n" for i in range(6)))
    Path("binary.yml").write_bytes(b"\xff\xfe\x00")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["photos/none.png"], "photos/none.png"),
        (["scroe", "photos/0.png"], "did you mean 'lifeiqa score'"),
        (["score", "nothing"], "nothing"),
        (["score", "empty"], "empty"),
        (["score", "photos", "--batch-size", "0"], "--batch-size"),
        (["train", "-opt", "missing.yml"], "missing.yml"),
        (["train", "-opt", "binary.yml"], "binary.yml"),
        (["train", "-opt", QUICK, "--force-yml", "x"], "got 'x'"),
        ([*PREPARE, "--mos-range", "0", "50"], "0 to 90"),
        ([*PREPARE, "--mos-range", "100", "0"], "--mos-range"),
        ([*PREPARE, "--mos-range", "5", "5"], "--mos-range"),
        (["evaluate", "scores.csv", "photos"], "0 to 90"),
        ([*BENCHMARK, "scores.csv", "-m", "piqqe"], "piqe"),
        ([*BENCHMARK, "none.csv", "-m", "piqe"], "none.csv"),
        (["benchmark", "-m", "piqe", "--sizes", "big"], "'big'"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_one_line(world, capsys, arguments, names):
    before = sorted(world.rglob("*"))
    assert cli.main(arguments) in (1, 2)
    *_, error = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("lifeiqa")
    assert names in error
    assert sorted(world.rglob("*")) == before


@pytest.mark.parametrize(
    "image",
    [
        torch.full((1, 3, 64, 64), 255.0),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        torch.full((1, 3, 64, 64), float("nan")),
        torch.full((1, 3, 64, 64), float("inf")),
        torch.zeros(3, 64, 64),
        torch.zeros(1, 4, 64, 64),
        torch.zeros(0, 3, 64, 64),
        torch.zeros(1, 3, 0, 64),
    ],
    ids=["255", "uint8", "nan", "inf", "3-d", "four channels", "empty batch", "no height"],
)
def test_a_tensor_that_is_no_image_gets_no_score(image):
    """By pyiqa's own checks, whose errors have no type of their own, or by ours."""
    metric = pyiqa.create_metric(
        "lifeiqa", device="cpu", pretrained=False, backbone="test_convnext"
    )
    with pytest.raises((AssertionError, RuntimeError, TypeError, ValueError), match=r"\w+"):
        metric(image)
