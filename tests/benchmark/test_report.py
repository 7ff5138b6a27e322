"""Tables: cells, marks, matrices, and every format; figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lifeiqa_plugin.benchmark import report, tables
from lifeiqa_plugin.benchmark.accuracy import (
    COLUMNS,
    FAILURES,
    PAIRS,
    STATUS,
    Results,
    evaluate,
)
from lifeiqa_plugin.benchmark.figures import write_figures
from lifeiqa_plugin.benchmark.metrics import MetricSpec
from lifeiqa_plugin.benchmark.photos import Number
from lifeiqa_plugin.benchmark.speed import COLUMNS as COSTS
from lifeiqa_plugin.benchmark.table import Table, rank
from lifeiqa_plugin.benchmark.tables import all_tables, number, with_interval
from lifeiqa_plugin.correlation import Interval, ceiling
from lifeiqa_plugin.datasets.labelled import LabelledDataset, LabelledImage

NAN = float("nan")


def dataset(name: str, **more: str) -> LabelledDataset:
    return LabelledDataset(name, ".", [], lambda row, with_reference: [], "all 9 rows", **more)


@pytest.fixture
def results() -> list[Results]:
    """Three metrics on two datasets: a is best on both, c has no scores on the second."""
    first = {"a": 0.9, "b": 0.8, "c": 0.8}
    pairs = [
        ("x", "a", "b", 9, 0.1, 0.05, 0.2, 0.01, True),
        ("x", "a", "c", 9, 0.1, -0.05, 0.2, 0.2, False),
        ("x", "b", "c", 9, -0.1, -0.2, -0.05, 0.04, True),
    ]
    return [build("x", first, pairs), build("y_1", {"a": 0.7, "b": -0.5}, [])]


def build(name: str, values: dict[str, float], pairs: list[tuple]) -> Results:
    """Make the results of one dataset; metrics without a value have no weights."""
    numbers = [
        (name, metric, *Number(statistic, srcc, srcc - 0.1, srcc + 0.05, 9))
        for metric, srcc in values.items()
        for statistic in ("srcc", "plcc")
    ]
    status = [
        (name, metric, *((9, 0, 0, "") if metric in values else (0, NAN, NAN, "no weights")), False)
        for metric in "abc"
    ]
    table = pd.DataFrame(status, columns=STATUS).set_index("metric")
    return Results(
        dataset(name),
        pd.DataFrame(numbers, columns=COLUMNS),
        table.assign(complete=table["n"] == 9),
        pd.DataFrame(pairs, columns=PAIRS),
        pd.DataFrame(columns=FAILURES),
    )


def test_cells():
    assert number(0.12345) == "0.123"
    assert number(NAN) == number(None) == ""
    assert with_interval(Interval(-0.5, -0.6, -0.4)) == "-0.500 (-0.600 to -0.400)"
    assert with_interval(Interval(0.5, NAN, NAN)) == "0.500"
    assert with_interval(Interval(NAN, NAN, NAN)) == ""
    times = {"seconds": 0.01234, "seconds_q1": 0.01, "seconds_q3": 0.02, "rounds": 5}
    assert tables.seconds(pd.Series(times)) == "0.0123 (0.01 to 0.02)"
    assert tables.seconds(pd.Series(times | {"rounds": 1})) == "0.0123"


def test_formats():
    rows = [["a_b", "0.9 (0.8 to 1.0)", ""], ["c|d", "", "50 % & more\nlines"]]
    table = Table("A_B", ["metric", "SRCC", "note"], rows, "t", {(0, 1): "best"})
    markdown = report.markdown(table).splitlines()
    assert "**0.9 (0.8 to 1.0)**" in markdown[2]
    assert " ".join(markdown[3].split()) == r"| c\|d | . | 50 % & more lines |"
    assert len(markdown) == 4
    text = report.latex(table)
    assert r"a\_b & \textbf{0.9 (0.8 to 1.0)} & . \\" in text
    assert r"50 \% \& more lines" in text
    assert r"\caption{A\_B}" in text
    assert r"\label{tab:t}" in text
    assert text.count(r"\midrule") == 1
    only = Table("", ["x", "empty"], [["1", ""], ["22", ""]], "t")
    assert report.plain(only) == "x\n1\n22"
    assert report.markdown(only).splitlines() == ["| x   |", "|-----|", "| 1   |", "| 22  |"]


def test_latex_says_of_an_error_only_its_kind():
    notes = ("no weights: OSError: no route to host", "ValueError: bad {", "3 of 9 images: 6 left")
    table = Table("", ["note"], [[note] for note in notes], "t")
    assert report.latex(table).splitlines()[8:11] == [
        r"no weights \\", r"ValueError \\", r"3 of 9 images: 6 left \\",
    ]  # fmt: skip


def test_one_dataset_has_a_table_for_a_paper(results, tmp_path, capsys):
    failures = pd.DataFrame([("x", "c", "1.png", "OSError: gone")], columns=FAILURES)
    found = [replace(results[0], failures=failures)]
    every = all_tables(found, pd.DataFrame(columns=COSTS))
    assert every.summary is None
    report.write_tables(tmp_path, found, every)
    latex, markdown = ((tmp_path / f"benchmark.{end}").read_text() for end in ("tex", "md"))
    assert latex.startswith(
        "\\begin{table}\n\\centering\n\\caption{Best in bold, second underlined. Rows: x: all"
    )
    assert "tab:summary" in latex
    assert "gone" not in latex
    assert "gone" in markdown


def test_the_summary_marks_the_best_and_the_second(results):
    table = tables.summary_table(results, intervals=False)
    assert table.rows == [
        ["a", "0.900", "0.900", "0.700", "0.700"],
        ["b", "0.800", "0.800", "-0.500", "-0.500"],
        ["c", "0.800", "0.800", "", ""],
    ]
    assert table.marks[0, 1] == "best"
    assert table.marks[1, 1] == table.marks[2, 1] == "second"
    assert (2, 3) not in table.marks
    assert "x: all 9 rows; y_1: all 9 rows" in table.caption
    assert table.flat_header[1:4] == ["x SRCC", "x PLCC", "y_1 SRCC"]
    text = report.latex(table)
    assert r"\multicolumn{1}{c}{} & \multicolumn{2}{c}{x} & \multicolumn{2}{c}{y\_1} \\" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in text
    assert r"a & \textbf{0.900}" in text
    assert r"b & \underline{0.800}" in text
    assert "<u>0.800</u>" in report.markdown(table)
    with_intervals = tables.summary_table(results, intervals=True)
    assert with_intervals.rows[0][1] == "0.900 (0.800 to 0.950)"


def test_a_single_metric_is_not_marked():
    assert rank([0.5]) == {}
    assert rank([0.5, NAN]) == {}
    assert rank([0.1, 0.5, 0.3]) == {1: "best", 2: "second"}


def test_the_matrix_says_who_is_better(results):
    table = tables.significance_table(results[0])
    assert table.header == ["", "a", "b", "c"]
    assert table.rows == [["a", "", "+", "="], ["b", "-", "", "-"], ["c", "=", "+", ""]]
    assert table.caption.endswith("or is not told apart from it (=), all on the same 9 images")


def test_a_metric_of_fewer_images_is_neither_in_the_matrix_nor_best(results):
    pairs = results[0].pairs.assign(n=[9, 5, 5])
    pairs[["a", "b"]] = [["b", "c"], ["a", "b"], ["a", "c"]]
    status = results[0].status.assign(n=[5, 9, 9], complete=[False, True, True])
    incomplete = [replace(results[0], pairs=pairs, status=status), results[1]]
    table = tables.significance_table(incomplete[0])
    assert table.rows == [["b", "", "+"], ["c", "-", ""]]
    assert table.caption.endswith("same 9 images; left out, as they have scores of fewer: a (5)")
    marks = tables.summary_table(incomplete, intervals=False).marks
    assert {place: marks[place] for place in marks if place[1] == 1} == {}  # b and c are level
    assert marks[0, 3] == "best"


def test_cells_of_a_dataset(results):
    table = tables.accuracy_table(results[1])
    assert table.header[:3] == ["metric", "SRCC", "PLCC"]
    interval = "0.700 (0.600 to 0.750)"
    assert table.rows[0] == ["a", interval, interval, "", "", "", "", "9", "0", ""]
    assert table.rows[2] == ["c", *[""] * 6, "0", "", "no weights"]


def test_a_note_where_the_curve_goes_against_the_ranks():
    mos = np.linspace(0, 1, 20)
    scores = mos.copy()
    scores[-1] = -30  # one image turns the correlation round, but not the ranks
    frame = pd.DataFrame({"dataset": "x", "metric": "m", "name": range(20), "mos": mos})
    frame = frame.assign(score=scores, error="")
    (found,) = evaluate(frame, [MetricSpec("m", "NR", False)], [dataset("x")], {}, samples=0)
    assert found.values["m", "srcc"].value > 0 > found.values["m", "plcc"].value
    assert (
        found.status["note"]["m"]
        == "the fitted curves have the direction of PLCC, which is not that of SRCC"
    )


def test_within_groups_is_the_mean_of_their_correlations():
    mos = np.concatenate([np.arange(6.0), 10 + np.arange(6.0)])
    scores = np.concatenate(
        [np.arange(6.0), 10 - np.arange(6.0)]
    )  # right in one group, wrong in the other
    frame = pd.DataFrame({"dataset": "x", "metric": "m", "name": range(12), "mos": mos})
    frame = frame.assign(score=scores, error="", part=["u"] * 6 + ["v"] * 6)
    image = LabelledImage("0", "0.png", 0.0, groups={"part": "u"})
    people = replace(dataset("x", within="part"), images=[image])
    found = evaluate(frame, [MetricSpec("m", "NR", False)], [people], {}, 5)
    assert found[0].values["m", "srcc_within"].value == pytest.approx(0)
    assert found[0].values["m", "srcc"].value > 0.4
    table = tables.summary_table(found, intervals=False)
    assert table.header == ["metric", "SRCC", "PLCC", "SRCC within"]


def test_figures_are_written_twice_alike(results, tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    frames = []
    for metric in "ab":
        frame = pd.DataFrame(
            {"dataset": "x", "metric": metric, "error": "", "mos": np.arange(20.0)}
        )
        frames.append(frame.assign(score=rng.normal(size=20)))
    costs = pd.DataFrame([dict.fromkeys(COSTS, 1.0) | {"metric": m} for m in "ab"])
    costs = costs.assign(size="8x8", device="CPU", seconds=[0.1, 0.2])
    for folder in ("one", "two"):
        found = all_tables(results, costs)
        write_figures(tmp_path / folder, pd.concat(frames), results, found, costs)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    kinds = ("scatter", "cost", "significance")
    assert names == {f"{kind}-x.{end}" for kind in kinds for end in ("svg", "pdf")}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "all 9 rows" in (tmp_path / "one" / "scatter-x.svg").read_text()


def test_the_caption_says_what_no_metric_can_pass():
    mos = np.linspace(0, 1, 20)
    frame = pd.DataFrame({"dataset": "x", "metric": "m", "name": range(20), "mos": mos})
    frame = frame.assign(score=mos, error="")
    images = [
        LabelledImage(str(i), f"{i}.png", value, mos_error=0.1) for i, value in enumerate(mos)
    ]
    people = replace(dataset("x"), images=images)
    (found,) = evaluate(frame, [MetricSpec("m", "NR", False)], [people], {}, 0)
    expected = "; raters' noise lets no metric pass SRCC {srcc:.3f}, PLCC {plcc:.3f}"
    caption = tables.accuracy_table(found).caption
    assert caption.endswith(expected.format(**ceiling(mos, np.full(20, 0.1))))
    assert "noise" not in tables.accuracy_table(replace(found, dataset=dataset("x"))).caption
