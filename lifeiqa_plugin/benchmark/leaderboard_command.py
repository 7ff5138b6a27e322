"""``lifeiqa leaderboard``: training runs side by side, on each of their test sets, over splits."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifeiqa_plugin.arguments import UsageError, check_target
from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.journal import read_json, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from lifeiqa_plugin.benchmark.table import Table

FEWEST = 5
"""Shared splits below which nothing is said about significance."""

RESULTS = "test_results.json"
CAPTION = (
    "Median over splits (standard deviation). Best in bold, second underlined, of the runs with the most splits. "
    "p: two-sided Wilcoxon test of the SRCC on shared splits against the best run, Holm-corrected for the set; - for "
    f"fewer than {FEWEST} shared splits. Splits share images, so p is rather too small than too large"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa leaderboard`` takes."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folder of 'lifeiqa train'; NAME_split01, NAME_split02, ... are one run; files are passed over",
    )
    parser.add_argument(
        "-o", "--out", type=Path, help=".csv for all numbers, .md or .tex for the table"
    )


def run(args: argparse.Namespace) -> None:
    """Print one table of all runs and sets, or write it.

    Raises:
        OSError, ValueError: nothing there, not tested yet, not written by a training run, or other test images under
            the name of one set.
    """
    if args.out is not None:
        if args.out.suffix not in (".csv", ".md", ".tex"):
            raise UsageError(f"--out {args.out}: expected a name that ends in .csv, .md or .tex")
        check_target(args.out)
    board = summarize(read_runs(_find_folders(args.runs)))
    from lifeiqa_plugin.benchmark.table import latex, markdown, plain

    table = to_table(board)
    if args.out is None:
        print(f"{table.caption}\n\n{plain(table)}")
        return
    if args.out.suffix == ".csv":
        text = board.to_csv(index=False)
    else:
        text = latex(table) if args.out.suffix == ".tex" else f"{markdown(table)}\n"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(args.out) as file:
        file.write(text.encode())


def _find_folders(paths: list[Path]) -> list[Path]:
    """Return the folders of runs with results, and say which have none."""
    if missing := [path for path in paths if not path.exists()]:
        raise UsageError(f"{missing[0]}: no such folder; expected one that 'lifeiqa train' wrote")
    folders = list(dict.fromkeys(path for path in paths if path.is_dir()))
    tested = [path for path in folders if (path / RESULTS).is_file()]
    without = [str(path) for path in folders if path not in tested]
    if not tested:
        raise UsageError(
            f"{paths[0]}: no {RESULTS}; expected folders of finished runs with a test set, such as experiments/*"
        )
    if without:
        print(f"{len(without)} without {RESULTS}, the first is {without[0]}", file=sys.stderr)
    return tested


def read_runs(folders: list[Path]) -> pd.DataFrame:
    """Return a row for each test of each run: set, run, split (0 for a run without splits) and METRICS.

    Raises:
        ValueError: a folder is not of a training run, or two runs tested other images under the name of one set.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    parents = {folder.parent for folder in folders}  # whose runs may have the same names
    seen: dict[tuple[str, int], tuple[Path, Any]] = {}
    for folder in folders:
        match = re.fullmatch(r"(.+_split)(\d+)", folder.name)
        name, split = (f"{match[1]}s", int(match[2])) if match else (folder.name, 0)
        label = (folder.parent / name).as_posix() if len(parents) > 1 else name
        for dataset, numbers, images in _tests_of(folder):
            first, expected = seen.setdefault((dataset, split), (folder, images))
            if images != expected:
                raise ValueError(
                    f"{first} and {folder}: other images or opinion scores in the test set {dataset!r}; "
                    "compare runs of the same test rows"
                )
            values = {metric: numbers.get(metric, float("nan")) for metric in METRICS}
            rows.append({"set": dataset, "run": label, "split": split} | values)
    return pd.DataFrame(rows)


def _tests_of(folder: Path) -> list[tuple[str, dict[str, Any], Any]]:
    """Return name, results, and the images with their MOS, of each test set of a run."""
    import pandas as pd
    import yaml

    found: list[tuple[str, dict[str, Any], Any]] = []
    results = read_json(folder / RESULTS)
    try:
        sections = yaml.safe_load((folder / "options.yml").read_text("utf-8"))["datasets"]
        for phase in [phase for phase in sections if phase.startswith("test")]:
            name = sections[phase]["name"]
            scores = folder / f"{phase.replace('test', 'test_scores', 1)}.csv"
            rows = pd.read_csv(scores, dtype={"name": str})[["name", "mos"]]
            images = frozenset(rows.itertuples(index=False, name=None))
            found.append((name, results[name] if found else results, images))
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{folder}: not as 'lifeiqa train' writes it ({error})") from error
    return found


def summarize(tests: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each set and run: splits, median and std of METRICS, and how it compares with the best.

    ``against`` is the best run of the set, by the median SRCC of those with the most splits; ``shared`` counts the
    splits that both have; ``p`` is NaN for the best itself, and for fewer than FEWEST of them.

    Args:
        tests: as :func:`read_runs` returns it.
    """
    import pandas as pd

    from lifeiqa_plugin.correlation import holm

    boards = []
    for name, of_set in tests.groupby("set", sort=False):
        srcc = of_set.pivot(index="split", columns="run", values="srcc")
        groups = of_set.groupby("run", sort=False)
        board = groups["split"].count().rename("splits").to_frame()
        for metric in METRICS:
            board[f"{metric}_median"] = groups[metric].median()
            board[f"{metric}_std"] = groups[metric].std()
        complete = board["srcc_median"][board["splits"] == board["splits"].max()].dropna()
        best = complete.idxmax() if len(complete) else None
        pairs = {one: srcc[[one, best]].dropna() for one in board.index if best not in (None, one)}
        board["against"] = best
        board["shared"] = pd.Series({one: len(pair) for one, pair in pairs.items()}, dtype=float)
        p = pd.Series({one: _wilcoxon(pair.to_numpy()) for one, pair in pairs.items()}, dtype=float)
        board["p"] = pd.Series(holm(p.to_numpy()), p.index)
        board = board.reset_index()
        board.insert(0, "set", name)
        boards.append(board)
    return pd.concat(boards, ignore_index=True)


def _wilcoxon(pair: Any) -> float:
    """Return p of the differences between two columns (N, 2); NaN for fewer than FEWEST rows."""
    from scipy.stats import wilcoxon

    differences = (pair[:, 0] - pair[:, 1]).round(9)  # equal ones tie in spite of rounding
    if len(differences) < FEWEST:
        return float("nan")
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def to_table(board: pd.DataFrame) -> Table:
    """Return the table: a row for each run, and SRCC, PLCC, splits and p for each set."""
    from lifeiqa_plugin.benchmark.table import Table, rank

    runs = list(board["run"].unique())
    columns, header, spans = [runs], ["run"], [("", 1)]
    marks: dict[tuple[int, int], str] = {}
    for name, of_set in board.groupby("set", sort=False):
        lines = of_set.set_index("run").reindex(runs)
        is_ranked = lines["splits"] == lines["splits"].max()
        for metric in ("srcc", "plcc"):
            medians, stds = lines[f"{metric}_median"], lines[f"{metric}_std"]
            ranked = rank(medians.where(is_ranked).round(3).tolist())
            marks |= {(i, len(columns)): mark for i, mark in ranked.items()}
            columns.append([_cell(*pair) for pair in zip(medians, stds, strict=True)])
        columns.append([f"{count:.0f}" if count > 0 else "" for count in lines["splits"]])
        columns.append([_p(line) for line in lines.reset_index().to_dict("records")])
        header += ["SRCC", "PLCC", "splits", "p"]
        spans.append((str(name), 4))
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(CAPTION, header, rows, "leaderboard", marks, spans)


def _cell(median: float, std: float) -> str:
    if median != median:
        return ""
    return f"{median:.3f} ({std:.3f})" if std == std else f"{median:.3f}"


def _p(line: dict[str, Any]) -> str:
    if not line["splits"] > 0:
        return ""
    if line["run"] == line["against"]:
        return "best"
    return f"{line['p']:.2g}" if line["p"] == line["p"] else "-"
