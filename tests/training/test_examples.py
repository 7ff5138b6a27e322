"""The networks of one's own in ``examples/``: trained, tested, read again and exported, from the command line."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from lifeiqa_plugin import build_lifeiqa, cli
from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.training.options import read_options

EXAMPLES = Path(__file__).parents[2] / "examples"
BEST = Path("experiments/tiny/models/net_best.safetensors")


@pytest.fixture(params=["multi_scale", "lora"])
def run_of(request, write_options, tmp_path, monkeypatch):
    """The name of an example that has been trained for an epoch, and its argument."""
    name = request.param
    shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    kind, argument = {
        "multi_scale": ("MultiScaleLifeIQA", "scales=[1.0, 2.0]"),
        "lora": ("LoRALifeIQA", "rank=2"),
    }[name]
    option_file = write_options(
        f"network:type={kind}", f"network:{argument}", "train:total_epoch=1"
    )
    assert cli.main(["train", "-opt", str(option_file), "--import", name]) == 0
    return name


def test_it_is_trained_tested_and_read_as_itself(run_of, images):
    network = build_lifeiqa(pretrained_model_path=BEST)
    assert type(network).__module__ == run_of
    with open("experiments/tiny/test_scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows[:2]:
        image = read_image(row["name"] if Path(row["name"]).exists() else images / row["name"])
        assert network(image[None]).item() == pytest.approx(float(row["score"]), abs=1e-5)
    if run_of == "lora":
        start = build_lifeiqa(**plain_options())
        trained = read_checkpoint(BEST).state_dict
        own = [key for key in trained if key.endswith("parametrizations.weight.original")]
        assert own
        ups = [value for key, value in trained.items() if key.endswith(".up")]
        assert len(ups) == len(own)
        assert all(value.abs().max() > 0 for value in ups)
        moved = [p for name, p in network.set_trainable(True).named_parameters() if p.requires_grad]
        assert len(moved) == 2 * len(own) + len(list(start.decoder.parameters()))
    else:
        assert network.scales == [1.0, 2.0]
        image = torch.rand(1, 3, 40, 40)
        plain = build_lifeiqa(**plain_options())
        plain.load_state_dict(network.state_dict())
        assert not torch.equal(network(image), plain(image))


@pytest.mark.slow
def test_it_is_evaluated_compared_and_exported_elsewhere(run_of, images, start_process, tmp_path):
    """In a process that knows of it by ``--import`` alone."""
    evaluate = ["evaluate", images / "meta.csv", images, "--model", BEST]
    evaluate += ["--split", "ratio712_seed123_split_01"]
    few = tmp_path / "few"
    few.mkdir()
    for image in sorted(images.glob("*.png"))[:6]:
        shutil.copy(image, few)
    (few / "scores.csv").write_text("\n".join((images / "scores.csv").read_text().splitlines()[:7]))
    compare = ["benchmark", "-m", BEST, "-d", few / "scores.csv", "--no-speed", "--samples", "4"]
    export = ["export", "--model", BEST, "--format", "torch-export", "-o", "own.pt2"]
    score = ["score", few, "--model", BEST, "--engine", "torch", "-o", "rows.csv"]
    report = ["report", few, "--model", BEST, "-o", "report.html"]
    explain = ["explain", few / "003.png", "--model", BEST, "-o", "why"]
    given = (evaluate, compare, export, score, report, explain)
    commands = [[*map(str, command), "--import", run_of] for command in given]
    code = f"""
from contextlib import redirect_stdout
from lifeiqa_plugin import cli
with open("printed.txt", "w") as file, redirect_stdout(file):
    for command in {commands}:
        assert cli.main(command) == 0
"""
    process = start_process(exec, code)
    process.join(120)
    assert process.exitcode == 0
    tested = json.loads(Path("experiments/tiny/test_results.json").read_text())
    evaluated = json.loads(Path("printed.txt").read_text().splitlines()[0])
    assert evaluated["images"] == 8
    for name in METRICS:
        assert evaluated[name] == pytest.approx(tested[name], abs=1e-4)
    compared = pd.read_csv("benchmark/scores.csv").set_index("name")["score"]
    assert len(compared) == len(pd.read_csv("rows.csv")) == 6
    network = build_lifeiqa(pretrained_model_path=BEST)
    image = read_image(images / "003.png")
    assert network(image[None]).item() == pytest.approx(compared["003.png"], abs=1e-4)
    size = network.working_size
    batch = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    exported = torch.export.load("own.pt2").module()(batch)
    torch.testing.assert_close(exported[0], network(batch)[:, 0])


def plain_options() -> dict:
    network = read_options("experiments/tiny/options.yml")["network"]
    return {k: v for k, v in network.items() if k not in ("type", "scales", "rank")}


def test_a_wrong_argument_of_ones_own(write_options, tmp_path, monkeypatch, capsys):
    shutil.copy(EXAMPLES / "multi_scale.py", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    option_file = write_options("network:type=MultiScaleLifeIQA", "network:scale=3")
    assert cli.main(["train", "-opt", str(option_file), "--import", "multi_scale"]) == 1
    assert (
        "MultiScaleLifeIQA has no option 'scale'; did you mean 'scales'" in capsys.readouterr().err
    )
