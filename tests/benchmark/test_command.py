"""``lifeiqa benchmark`` from end to end: all files, tables whose numbers are right, one run after the other."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import spearmanr

from lifeiqa_plugin import cli

pytestmark = pytest.mark.slow

FILES = {
    "accuracy.csv", "benchmark.html", "benchmark.md", "benchmark.tex", "efficiency.csv", "failures.csv", "groups.csv",
    "pairs.csv", "pyiqa.csv", "scores", "scores.csv", "scores.parquet",
}  # fmt: skip
SPEED = ["--cpu-only", "--sizes", "32x24", "--rounds", "2", "--batch", "2", "--no-memory"]


def test_all_files_and_their_numbers(command, capsys, images):
    assert command(*SPEED) == 0
    printed = capsys.readouterr().out
    out = Path("out")
    assert {path.name for path in out.iterdir()} == FILES
    scores = pd.read_parquet(out / "scores.parquet")
    pd.testing.assert_frame_equal(
        scores, pd.read_csv(out / "scores.csv", keep_default_na=False, na_values={"score": [""]})
    )
    right = scores[scores["metric"] == "right"]
    expected = spearmanr(right["score"], right["mos"]).statistic
    table = pd.read_csv(out / "accuracy.csv").set_index("metric")
    assert " ".join(table.index) == "right wrong lower dark weightless broken paired"
    assert table.loc["right", "srcc"] == pytest.approx(expected)
    assert table.loc["wrong", "srcc"] == pytest.approx(-expected)
    assert table.loc["lower", "srcc"] == pytest.approx(expected)
    assert table.loc["paired", "srcc"] == pytest.approx(expected)
    assert table.loc["wrong", "plcc_logistic4"] < -0.9
    assert table.loc["right", "srcc_low"] < expected < table.loc["right", "srcc_high"]
    assert tuple(table.loc["dark", ["n", "failed", "missing"]]) == (19, 5, 0)
    assert table.loc["weightless", "note"].startswith("untrained, no weights: OSError: no network")
    assert table.loc["weightless", ["srcc", "plcc", "krcc"]].isna().all()
    assert "NoSuchArch" in table.loc["broken", "note"]
    assert f"right       {expected:.3f} (" in printed
    failures = pd.read_csv(out / "failures.csv")
    assert list(failures["name"]) == [f"0{i}.png" for i in range(5)]
    assert "Images without a score: 5" in printed


def test_groups_and_pairs(command):
    command("--no-speed", "--by", "official_split")
    groups = pd.read_csv("out/groups.csv")
    assert set(groups["column"]) == {"subset", "official_split"}
    assert set(groups["group"]) == {"even", "odd", "test"}  # four training images are too few
    scores = pd.read_csv("out/scores.csv")
    odd = scores[(scores["subset"] == "odd") & (scores["metric"] == "lower")]
    line = groups[(groups["group"] == "odd") & (groups["metric"] == "lower")].iloc[0]
    assert line["srcc"] == pytest.approx(-spearmanr(odd["score"], odd["mos"]).statistic)
    assert line["n"] == 12
    pairs = pd.read_csv("out/pairs.csv").set_index(["a", "b"])
    assert len(pairs) == 10  # of five metrics with scores
    assert pairs.loc[("right", "wrong"), "significant"]
    assert pairs.loc[("right", "wrong"), "difference"] > 1.5
    assert not pairs.loc[("right", "lower"), "significant"]
    assert pairs.loc[("right", "dark"), "n"] == 19


def test_pyiqas_table(command):
    command("--no-speed")
    with open("out/pyiqa.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["Metric name", "scores(PLCC/SRCC/KRCC)"]
    cells = dict(rows[1:])
    assert re.fullmatch(r"0\.\d{1,4}/0\.\d{1,4}/0\.\d{1,4}", cells["right"])
    assert cells["wrong"] == "/".join(f"-{value}" for value in cells["right"].split("/"))
    assert cells["weightless"] == cells["broken"] == ""


def test_a_second_run_computes_nothing_and_writes_the_same(command, stubs):
    def written() -> dict[str, bytes]:
        names = ("accuracy.csv", "benchmark.html", "efficiency.csv", "scores.csv")
        return {name: Path("out", name).read_bytes() for name in names}

    command(*SPEED)
    first, calls = written(), len(stubs.calls)
    command(*SPEED)
    assert len(stubs.calls) == calls + 5  # the images that failed are tried again
    assert written() == first
    command("--redraw")
    assert len(stubs.calls) == calls + 5
    redrawn = written()
    assert redrawn["efficiency.csv"] == first["efficiency.csv"]
    assert redrawn["scores.csv"] == first["scores.csv"]
    lines = zip(*(run["accuracy.csv"].splitlines() for run in (first, redrawn)), strict=True)
    changed = [before for before, after in lines if before != after]
    assert len(changed) == 1
    assert changed[0].startswith(b"scores,broken,")  # not built, so its error is not known


def test_ctrl_c_writes_what_is_done_and_the_next_run_goes_on(command, stubs, monkeypatch, capsys):
    monkeypatch.setattr(stubs, "interrupt_after", 24 + 15)
    assert command("--no-speed") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    table = pd.read_csv("out/accuracy.csv").set_index("metric")
    assert tuple(table.loc["right", ["n", "missing"]]) == (24, 0)
    assert tuple(table.loc["wrong", ["n", "missing"]]) == (15, 9)
    assert "incomplete: 9 images not scored" in Path("out/benchmark.md").read_text()
    monkeypatch.setattr(stubs, "interrupt_after", 10**9)
    assert command("--no-speed") == 0
    assert pd.read_csv("out/accuracy.csv").set_index("metric").loc["wrong", "n"] == 24


def test_cost_alone_needs_no_set(metric_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["benchmark", "-m", "entropy", "-o", "out", *SPEED]) == 0
    assert re.search(r"entropy +32x24 ", capsys.readouterr().out)
    assert (
        json.loads(
            re.search(
                r'type="application/json">(.*)</script>', Path("out/benchmark.html").read_text()
            )[1]
        )["datasets"]
        == []
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-m", "piqe", "--no-speed"],
            "nothing to do: give datasets with -d or --data-opt, or leave out --no-speed",
        ),
        (["-m", "piqe", "--samples", "-1"], "--samples takes a number from 0 on, got -1"),
        (["-m", "piqe", "-o", "a.txt"], "-o a.txt: a file; expected a folder to write to"),
        (
            ["-m", "piqe", "--no-speed", "--rounds", "3"],
            "--rounds changes nothing: cost is not measured with --no-speed",
        ),
        (
            ["-m", "piqe", "--redraw", "--no-memory"],
            "--no-memory changes nothing: cost is not measured with --redraw",
        ),
        (["-m", "piqe", "--by", "x"], "--by changes nothing: there is no dataset"),
        (
            ["-m", "piqe", "--mos-column", "x"],
            "--mos-column changes nothing: it is of a csv given with -d, and there is none",
        ),
        (["-m", "piqe", "-d", "nothing.csv"], "nothing.csv: cannot be read as a csv"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").touch()
    assert cli.main(["benchmark", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "benchmark").exists()


def test_missing_matplotlib_is_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["benchmark", "-m", "piqe", "--figures"]) == 1
    assert "pip install 'lifeiqa_plugin[figures]'" in capsys.readouterr().err
