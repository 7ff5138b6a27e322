"""The command line: every command of the tutorial, and errors of one line."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lifeiqa_plugin import cli
from lifeiqa_plugin.training import recipes

ROOT = Path(__file__).parents[2]
TUTORIAL = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
COMMANDS = [line for block in TUTORIAL for line in block.strip().splitlines()]
TINY = {
    "type": "LifeIQA", "pretrained": False, "backbone": "test_convnext", "embed_dim": 16, "num_heads": 2, "depth": 1,
    "num_experts": 4, "crop_size": 32, "working_size": 48,
}  # fmt: skip


@pytest.fixture
def folder(images, tmp_path, monkeypatch):
    """What the tutorial starts from: ``photos`` and the option file, here with a network that trains in seconds."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, tmp_path / "photos", ignore=lambda *_: ["meta.csv"])
    name = "options/train/quick.yml"
    options = yaml.safe_load((ROOT / name).read_text())
    options["network"] = TINY
    options["train"]["total_epoch"], options["num_gpu"] = 2, 0
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(yaml.safe_dump(options, sort_keys=False))
    monkeypatch.setattr(recipes, "PACKAGE", tmp_path / "lifeiqa_plugin")
    return tmp_path


def run(command: str, capsys) -> str:
    """Run one command of the tutorial, ours and Python's in this process, and return what it printed."""
    if command.startswith("lifeiqa "):
        code = cli.main(shlex.split(command)[1:])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out
    if command.startswith("python -c "):
        exec(shlex.split(command)[2], {})
        return capsys.readouterr().out
    return subprocess.run(shlex.split(command), check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_tutorial(folder, capsys):
    assert len(COMMANDS) == 10
    out = [run(command, capsys) for command in COMMANDS]
    assert out[0].startswith("name,mos\n000.png,100.00")
    assert "40 images, scores 0 to 100 (higher better) -> 0 to 1" in out[1]
    assert "28 train, 4 val, 8 test" in out[1]
    results = json.loads(out[5])
    assert json.loads(out[3].splitlines()[-1]) == results
    assert json.loads(out[4].splitlines()[-1]) == results  # the finished run that was "resumed"
    assert re.search(r"^\| median \|( -?\d\.\d{4} \|){4} \. \|", out[7], re.MULTILINE)
    evaluated = json.loads(out[8])
    assert evaluated.pop("intervals").keys() == results.keys() - {"images", "trained_on"}
    assert evaluated == pytest.approx(results)
    rows = (folder / "scores.csv").read_text().splitlines()
    assert rows[0] == "name,mos,score,std"
    assert len(rows) == 9
    assert np.isfinite(float(out[9].splitlines()[-1]))


def test_evaluate_all_rows_of_any_phase(folder, capsys):
    run(COMMANDS[1], capsys)
    from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
    from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint

    torch.manual_seed(0)
    network = build_lifeiqa(**{k: v for k, v in TINY.items() if k != "type"})
    save_checkpoint(network, folder / "m.safetensors", ModelCard("none", "none"))
    base = "lifeiqa evaluate meta_info_folder.csv photos --model m.safetensors"
    assert json.loads(run(base, capsys))["images"] == 40
    split = " --split ratio712_seed123_split_02"
    counts = [
        json.loads(run(f"{base}{split} --phase {phase}", capsys))["images"]
        for phase in ("train", "val", "test")
    ]
    assert counts == [28, 4, 8]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train -opt nowhere.yml", r"lifeiqa train: .*nowhere\.yml"),
        (
            "prepare folder nowhere",
            r"lifeiqa prepare: nowhere: .*no such folder",
        ),
        ("prepare csiq photos", r"expected csiq\.DMOS\.csv or csiq\.DMOS\.xlsx; found 000\.png, "),
        (
            "prepare kadid photos",
            "no dataset is called 'kadid'; known are agiqa3k, avt_ai, biq2021, csiq",
        ),
        ("prepare livec photos --lower-better", "--lower-better describes folder, not livec"),
        (
            "evaluate photos/scores.csv photos --model nowhere",
            "--model 'nowhere' is neither a file nor a bundled model",
        ),
        (
            "train -opt options/train/quick.yml --force_yml trian:x=1",
            "did you mean 'train'",
        ),
        (
            "train -opt options/train/quick.yml --splits 0",
            "needs a number of 1 or more",
        ),
        (
            "train -opt options/train/quick.yml --launcher pytorch",
            "needs torchrun",
        ),
    ],
)
def test_errors_are_one_line(folder, capsys, command, message):
    assert cli.main(shlex.split(command)) in (1, 2)
    printed = capsys.readouterr()
    assert re.search(message, printed.err)
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not Path("experiments").exists()


def test_errors_of_the_data_come_before_training(folder, capsys):
    run(COMMANDS[1], capsys)
    option_file = "options/train/quick.yml"
    (folder / "photos" / "017.png").unlink()
    assert cli.main(["train", "-opt", option_file]) == 1
    assert "1 of 8 images cannot be used: photos/017.png: no such file" in capsys.readouterr().err
    shutil.copy(folder / "photos" / "018.png", folder / "photos" / "017.png")
    train_on_test = "datasets:test:split_index=2"
    assert cli.main(["train", "-opt", option_file, "--force_yml", train_on_test]) == 1
    assert "images or references" in capsys.readouterr().err
    assert not Path("experiments").exists()
