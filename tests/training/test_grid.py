"""``lifeiqa train --grid``: one run for each combination, chosen by validation; only the chosen one is tested."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from lifeiqa_plugin import cli
from lifeiqa_plugin.training.grid import read_grid

RATES = "train:optim:lr=1e-5,6e-3"


def train(option_file: Path, *more: str) -> int:
    return cli.main(["train", "-opt", str(option_file), "--grid", RATES, *more])


def values(option_file: Path, *grid: str) -> list[tuple]:
    runs = read_grid(option_file, ["train:total_epoch=2"], list(grid))
    assert {run["train"]["total_epoch"] for run in runs} == {2}
    return [(run["name"], run["train"]["optim"]["lr"], run["network"]["depth"]) for run in runs]


def test_each_combination_has_a_name_of_its_own(write_options):
    assert values(write_options(), RATES, "network:depth=1, 2") == [
        ("tiny_lr1e-5_depth1", 1e-5, 1),
        ("tiny_lr1e-5_depth2", 1e-5, 2),
        ("tiny_lr6e-3_depth1", 6e-3, 1),
        ("tiny_lr6e-3_depth2", 6e-3, 2),
    ]


def test_a_path_makes_a_name_of_a_folder(write_options):
    runs = read_grid(write_options(), [], ["network:pretrained_model_path=a/b.pth,null"])
    assert [run["name"] for run in runs] == [
        "tiny_pretrained_model_patha-b.pth", "tiny_pretrained_model_pathnull",
    ]  # fmt: skip
    assert runs[0]["network"]["pretrained_model_path"] == "a/b.pth"


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ("train:optim:lr", "--grid takes section:key=value,value, got 'train:optim:lr'"),
        ("train:optim:lr=", "--grid takes section:key=value,value, got 'train:optim:lr='"),
        (
            "train:optim:lr=1e-4,1e-4",
            "two of the runs are called tiny_lr1e-4; give each value once",
        ),
        ("train:optim:rate=1,2", "unknown key train:optim:rate"),
    ],
)
def test_what_is_no_grid(write_options, capsys, grid, says):
    assert cli.main(["train", "-opt", str(write_options()), "--grid", grid]) == 1
    assert says in capsys.readouterr().err


def test_nothing_to_choose_by(write_options, capsys):
    option_file = write_options(drop=("datasets:val", "val"))
    assert train(option_file) == 1
    assert (
        f"chooses by validation, and {option_file} has no datasets: val:" in capsys.readouterr().err
    )


@pytest.mark.parametrize("other", [["--splits", "2"], ["--launcher", "pytorch"]])
def test_one_run_after_the_other(write_options, capsys, other):
    assert train(write_options(), *other) == 2
    assert "leave out --splits and --launcher" in capsys.readouterr().err


@pytest.mark.slow
def test_validation_chooses_and_only_that_run_is_tested(write_options, capsys):
    option_file = write_options("train:total_epoch=2")
    assert train(option_file) == 0
    caption, _, header, *rows, _, chosen, result = capsys.readouterr().out.splitlines()
    assert caption == "Best validation of each run; the first has the best srcc"
    assert header.split() == ["run", "iteration", "SRCC", "PLCC", "KRCC", "RMSE"]
    best = {}
    for name in ("tiny_lr1e-5", "tiny_lr6e-3"):
        table = pd.read_csv(f"experiments/{name}/curves_validation.csv")
        best[name] = table.loc[table["srcc"].idxmax()]
    names = sorted(best, key=lambda name: -best[name]["srcc"])
    assert best[names[0]]["srcc"] > best[names[1]]["srcc"]
    assert [row.split()[:3] for row in rows] == [
        [name, str(best[name]["iteration"]), f"{best[name]['srcc']:.4f}"] for name in names
    ]
    assert chosen == f"chosen: {names[0]}"
    tested = Path("experiments", names[0], "test_results.json")
    assert json.loads(result) == json.loads(tested.read_text())
    assert not Path("experiments", names[1], "test_results.json").exists()
    states = [path.stat().st_mtime_ns for path in sorted(Path().rglob("latest.state"))]
    assert train(option_file) == 0  # nothing is trained or tested again
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == json.loads(result)
    assert [path.stat().st_mtime_ns for path in sorted(Path().rglob("latest.state"))] == states
    assert train(option_file, "--force-yml", "network:dropout=0.5") == 1
    assert re.search("holds the results of other options", capsys.readouterr().err)


@pytest.mark.slow
def test_the_lowest_rmse_is_the_best(write_options, capsys):
    assert train(write_options("train:total_epoch=1", "val:key_metric=rmse")) == 0
    rows = capsys.readouterr().out.splitlines()[3:5]
    errors = [float(row.split()[-1]) for row in rows]
    assert errors[0] < errors[1]
