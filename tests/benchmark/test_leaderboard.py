"""``lifeiqa leaderboard``: made-up runs with known medians and p values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lifeiqa_plugin import cli

BASE = [0.70, 0.72, 0.74, 0.76, 0.78, 0.80]
NUMBERS = {"images": 2.0, "krcc": 0.5, "rmse": 0.1, "trained_on": 0}


def write_run(folder: str, sets: dict[str, float], mos: float = 0.5) -> None:
    """Write what ``lifeiqa train`` leaves of a run that was tested on these sets, by their SRCC."""
    path = Path(folder)
    path.mkdir(parents=True)
    results = {name: NUMBERS | {"srcc": srcc, "plcc": srcc + 0.1} for name, srcc in sets.items()}
    first = next(iter(sets))
    (path / "test_results.json").write_text(json.dumps(results.pop(first) | results))
    phases = ["test", "test_2"][: len(sets)]
    sections = {
        phase: {"name": name, "split_index": 1} for phase, name in zip(phases, sets, strict=True)
    }
    options = {"name": path.name, "datasets": {"train": {"name": "x"}} | sections}
    (path / "options.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    for phase in phases:
        text = f"name,mos,score,std\na.png,{mos},.4,nan\nb.png,.9,.8,nan\n"
        (path / f"{phase.replace('test', 'test_scores', 1)}.csv").write_text(text)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Six splits of ``good`` and ``bad``, four of ``short``, and ``bad`` on a second set too."""
    monkeypatch.chdir(tmp_path)
    for i, srcc in enumerate(BASE, 1):
        write_run(f"e/good_split{i:02d}", {"live": srcc})
        write_run(f"e/bad_split{i:02d}", {"live": srcc - i / 100, "biq": 0.6})
    for i in range(1, 5):
        write_run(f"e/short_split{i:02d}", {"live": 0.99})
    write_run("e/good", {"live": 0.95})  # its name does not make it one of the splits
    Path("e/good_splits.csv").write_text("split,srcc\n")
    Path("e/running").mkdir()


def leaderboard(*arguments: str) -> int:
    return cli.main(["leaderboard", *sorted(map(str, Path("e").iterdir())), *arguments])


def test_numbers_are_those_of_the_runs(runs, capsys):
    assert leaderboard("-o", "new/board.csv") == 0
    assert capsys.readouterr().err == "1 without test_results.json, the first is e/running\n"
    board = pd.read_csv("new/board.csv").set_index(["set", "run"])
    assert list(board.index) == [
        ("live", "bad_splits"),
        ("live", "good"),
        ("live", "good_splits"),
        ("live", "short_splits"),
        ("biq", "bad_splits"),
    ]
    assert list(board["splits"]) == [6, 1, 6, 4, 6]
    good, bad, short = (board.loc[("live", f"{name}_splits")] for name in ("good", "bad", "short"))
    assert good["srcc_median"] == pytest.approx(0.75)
    assert good["srcc_std"] == pytest.approx(0.0374166, abs=1e-6)
    assert bad["srcc_median"] == pytest.approx(0.715)
    assert bad["plcc_median"] == pytest.approx(0.815)
    # six differences of one sign: 2 of the 2 ** 6 signs are as far out
    assert bad["p"] == pytest.approx(2 / 64)
    assert pd.isna(good["p"])
    assert pd.isna(short["p"])
    assert list(board["shared"].fillna(-1)) == [6, 0, -1, 4, -1]
    assert list(board["against"]) == ["good_splits"] * 4 + ["bad_splits"]


def test_the_table_marks_the_best_of_the_runs_with_most_splits(runs, capsys):
    assert leaderboard() == 0
    caption, _, header, *rows = capsys.readouterr().out.splitlines()
    assert caption.startswith("Median over splits (standard deviation).")
    assert re.split(r"  +", header)[:4] == ["run", "live SRCC", "live PLCC", "live splits"]
    assert [re.split(r"  +", row.strip()) for row in rows] == [
        [
            "bad_splits",
            *("0.715 (0.019)", "0.815 (0.019)", "6", "0.031"),
            *("0.600 (0.000)", "0.700 (0.000)", "6", "best"),
        ],
        ["good", "0.950", "1.050", "1", "-", *"...."],
        ["good_splits", "0.750 (0.037)", "0.850 (0.037)", "6", "best", *"...."],
        ["short_splits", "0.990 (0.000)", "1.090 (0.000)", "4", "-", *"...."],
    ]
    assert leaderboard("-o", "board.md") == 0
    text = re.sub(" +", " ", Path("board.md").read_text())
    assert "| **0.750 (0.037)** |" in text
    assert "| <u>0.715 (0.019)</u> |" in text
    assert "| 0.990 (0.000) |" in text
    assert leaderboard("-o", "board.tex") == 0
    text = Path("board.tex").read_text()
    assert (
        r"good\_splits & \textbf{0.750 (0.037)} & \textbf{0.850 (0.037)} & 6 & best & . & ." in text
    )
    assert r" & \multicolumn{4}{c}{live} & \multicolumn{4}{c}{biq} \\" in text


def test_runs_that_are_the_same_are_not_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, srcc in enumerate(BASE, 1):
        for folder in ("e/x", "f/x", "f/far"):
            srcc_here = srcc - 0.01 * (folder == "f/far")
            write_run(f"{folder}_split{i:02d}", {"live": srcc_here})
    folders = sorted(map(str, [*Path("e").iterdir(), *Path("f").iterdir()]))
    assert cli.main(["leaderboard", *folders, "-o", "board.csv"]) == 0
    board = pd.read_csv("board.csv").set_index("run")
    assert list(board.index) == ["e/x_splits", "f/far_splits", "f/x_splits"]
    assert board.loc["f/x_splits", "p"] == 1
    assert board.loc["f/far_splits", "p"] == pytest.approx(2 * 2 / 64)  # Holm: the smaller p of two


def test_one_run_without_splits_has_neither_spread_nor_p(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run("e/a", {"live": 0.7})
    write_run("e/b", {"live": 0.8})
    assert leaderboard() == 0
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split() for row in rows] == [
        ["a", "0.700", "0.800", "1", "-"],
        ["b", "0.800", "0.900", "1", "best"],
    ]


def _other_rows() -> None:
    write_run("e/other_split01", {"live": 0.7}, mos=0.6)


def _damaged() -> None:
    Path("e/bad_split01/options.yml").write_text("datasets: 3\n")


@pytest.mark.parametrize(
    ("spoil", "arguments", "code", "message"),
    [
        (None, ["e/no"], 2, "e/no: no such folder; expected one that 'lifeiqa train' wrote"),
        (None, ["e/running"], 2, "e/running: no test_results.json; expected folders of finished"),
        (None, ["e", "-o", "x.txt"], 2, "--out x.txt: expected a name that ends in .csv, .md or"),
        (
            _other_rows,
            ["e/bad_split01", "e/other_split01"],
            1,
            "e/bad_split01 and e/other_split01: other images or opinion scores in the test set 'live'; compare",
        ),
        (_damaged, ["e/bad_split01"], 1, "e/bad_split01: not as 'lifeiqa train' writes it ("),
    ],
)
def test_errors_are_one_line(runs, capsys, spoil, arguments, code, message):
    if spoil:
        spoil()
    assert cli.main(["leaderboard", *arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"lifeiqa leaderboard: {message}")
    assert error.count("\n") == 1


def test_torch_is_not_imported(runs, run_python):
    code = (
        "import sys; from lifeiqa_plugin import cli; cli.main(['leaderboard', 'e/bad_split01']); "
        "print({'torch', 'pyiqa'} & set(sys.modules))"
    )
    done = run_python("-c", code, cwd=".")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
