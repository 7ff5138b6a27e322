"""Measure the bundled models again, and write what is found into docs/results.csv.

    python tools/measure.py --seen SEEN              all; about an hour on one core
    python tools/measure.py --parts naming int8      some parts
    cog -r -I tools *.md docs/*.md                   then the pages

The images are those of an option file of ``lifeiqa benchmark``. The part ``benchmark`` leaves out what is not on this
machine; its scores are kept below ``--out``, where the next run goes on. A number is written if a table of
``tables.md`` shows it. Every statistic is that of the package, or of the script that the column ``command`` names.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tables import RESULTS, read_results, read_templates

import lifeiqa_plugin
from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.metrics import Builder, find_metrics
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.benchmark.photos import CHANGES, CLEAN, measure_levels
from lifeiqa_plugin.benchmark.scores import Store, score_all
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.models import BUNDLED, DEFAULT
from lifeiqa_plugin.correlation import Interval, measure, srcc_within
from lifeiqa_plugin.datasets.labelled import LabelledDataset

ROOT = Path(__file__).parents[1]
DATA_OPT = "options/benchmark/closed.yml"
BENCHMARK = f"lifeiqa benchmark -m {' '.join(BUNDLED)} --data-opt {DATA_OPT} --no-speed"
PREFIX = {"lifeiqa": "default", "lifeiqa-biq2021": "biqonly"}
"""Model -> how the ids of its rows begin."""

TRAINED_ON = {("livec", "lifeiqa")}
"""Set and model whose number would flatter; ``--seen`` cross-validates instead."""


class Found(NamedTuple):
    """Values of one model, by words that their ids are made of, and what the columns beside them say."""

    model: str
    about: str
    values: Mapping[str, str]
    command: str
    condition: str


class Sets(NamedTuple):
    """The datasets that are on this machine, and the folder of their scores."""

    datasets: Mapping[str, LabelledDataset]
    out: Path

    def photos(self, name: str) -> list[Path]:
        """Return the files of a dataset."""
        return list(dict.fromkeys(Path(image.path) for image in self.datasets[name].images))

    def opinions(self, name: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Return the files of a dataset, and what people say of them, (N,)."""
        images = self.datasets[name].images
        return tuple(one.path for one in images), np.array([one.mos for one in images])


def number(value: float, digits: int = 3) -> str:
    """Return ``.848``."""
    return re.sub(r"\b0\.", ".", f"{value:.{digits}f}")


def with_interval(found: Interval) -> str:
    """Return ``.848 (.828 - .865)``."""
    return f"{number(found.value)} ({number(found.low)} - {number(found.high)})"


def percent(share: float, digits: int = 0) -> str:
    """Return ``85 %``."""
    return f"{100 * share:.{digits}f} %"


# ---- what `lifeiqa benchmark` scores


def benchmark(sets: Sets) -> Iterator[Found]:
    """Score every dataset with both models."""
    specs, datasets = find_metrics(list(BUNDLED)), list(sets.datasets.values())
    store = Store(sets.out / "scores", {spec.name: spec.description for spec in specs})
    store.check(datasets)
    failures: dict[str, str] = {}
    score_all(store, Builder(), specs, datasets, "cpu", 0, failures)
    if failures:
        raise SystemExit(f"no scores: {failures}")
    of_kind = {"mos": of_opinions, "levels": of_levels, "stability": of_stability}
    for (name, model), scores in store.table(datasets).groupby(["dataset", "metric"], sort=False):
        if (name, model) not in TRAINED_ON:
            dataset = sets.datasets[name]
            yield from of_kind[dataset.kind](dataset, model, scores)


def of_opinions(dataset: LabelledDataset, model: str, scores: pd.DataFrame) -> Iterator[Found]:
    """Correlate with people, in all and within groups, and count what verdicts cost."""
    import verdicts

    parts = {"": scores} | (dict(list(scores.groupby(dataset.within))) if dataset.within else {})
    arrays = {group: part[["score", "mos"]].to_numpy(float).T for group, part in parts.items()}
    for group, both in arrays.items():
        values = {k: with_interval(v) for k, v in measure(*both, fitted=False).items()}
        condition = f"{both.shape[1]:,} images, bootstrap 95 % interval, no curve fitted"
        about = f"{dataset.name} {group}".strip()
        yield Found(model, about, values, BENCHMARK, condition)
    whole = arrays.pop("")
    values = {"bias": number(float(np.subtract(*whole).mean()))}
    if arrays:
        values["within srcc"] = number(srcc_within([tuple(both) for both in arrays.values()]).value)
    yield Found(model, dataset.name, values, BENCHMARK, f"{len(scores):,} images")
    values = {what: percent(share, 1) for what, share in verdicts.costs(*whole).items()}
    command = f"python measurements/verdicts.py benchmark --data_opt {DATA_OPT}"
    yield Found(model, dataset.name, values, command, "--drop 0.3 --keep 0.6")


def of_levels(dataset: LabelledDataset, model: str, scores: pd.DataFrame) -> Iterator[Found]:
    """Count photos whose score falls at every level of a distortion."""
    values = {
        f"{one.group or 'all'} {one.statistic}": percent(one.value, 0 if one.group else 1)
        for one in measure_levels(scores, 1.0, 1000)
    }
    yield Found(model, dataset.name, values, BENCHMARK, dataset.rows)


def of_stability(dataset: LabelledDataset, model: str, scores: pd.DataFrame) -> Iterator[Found]:
    """Take the median and 99 % of the moves."""
    table = scores.pivot(index="photo", columns="change", values="score")
    moves = {name: (table[name] - table[CLEAN]).abs().quantile([0.5, 0.99]) for name in CHANGES}
    values = {name: ", ".join(number(move, 4) for move in of) for name, of in moves.items()}
    condition = f"median and 99 % of the moves; {dataset.rows}"
    yield Found(model, dataset.name, values, BENCHMARK, condition)


# ---- what scripts of measurements/ measure


@functools.cache
def score(paths: tuple[str, ...], model: str = DEFAULT, fast: bool = False) -> pd.DataFrame:
    """Return ``score`` and ``std`` of images; what two parts need is scored once."""
    found = lifeiqa_plugin.score(paths, model=model, engine="onnxruntime", exact=True, fast=fast)
    return pd.DataFrame([{"score": one.score, "std": one.std} for one in found])


def calibration(sets: Sets) -> Iterator[Found]:
    """Compare scores and ``std`` with opinions."""
    import calibration

    paths, mos = sets.opinions("biq2021-test")
    for model in BUNDLED:
        found = calibration.calibrate(score(paths, model).assign(mos=mos))
        values = {
            "line": f"{number(found.slope)}, {number(found.offset)}",
            "bias": number(found.bias),
            "rmse": number(found.rmse),
            "std srcc": number(found.std_srcc, 2),
            "std inside": f"{percent(found.inside)}, {percent(found.inside_two)}",
        }
        evaluate = f"lifeiqa evaluate CSV BIQ2021 --split official_split --model {model} -o SCORES"
        command = f"{evaluate}; python measurements/calibration.py SCORES"
        yield Found(model, "calibration", values, command, f"{len(mos):,} images")


def by_name(names: Iterable[str], values: Iterable[str]) -> dict[str, str]:
    """Name values, and write .02 for 0.02."""
    return {k: re.sub(r"\b0\.", ".", v) for k, v in zip(names, values, strict=True)}


def int8(sets: Sets) -> Iterator[Found]:
    """Compare the faster ways with ``--exact`` and with opinions."""
    import scoring_agreement as script

    command = "python measurements/scoring_agreement.py"
    for name in ("biq2021-test", "agiqa-test"):
        paths, mos = sets.opinions(name)
        both = (score(paths, fast=fast)["score"].to_numpy() for fast in (False, True))
        values = script.compare_mos(*both, mos)
        named = by_name(("float", "int8", "gain", "median", "most", "both"), values)
        about = f"{len(mos):,} images, {script.machine()}"
        yield Found(DEFAULT, f"int8 {name}", named, f"{command} --data_opt {DATA_OPT}", about)
    phones = [str(path) for path in sets.photos("phone")]
    for way, *values in script.compare_photos(phones):
        named = by_name(("median", "most", "srcc", "count", "within"), values)
        about = f"{len(phones)} phone photos, {script.machine()}"
        yield Found(DEFAULT, f"way {way}", named, f"{command} --photos SQAD", about)


def naming(sets: Sets) -> Iterator[Found]:
    """Name distortions of clean photos."""
    import naming

    network, photos = build_lifeiqa().eval(), sets.photos("levels")
    table = naming.name_all(network, photos, side=512, seed=0)
    values = {}
    for one in (naming.evaluate(table, kind) for kind in network.distortion_names):
        values[f"{one.kind} area"] = number(one.area)
        values[f"{one.kind} named"] = percent(one.named)
        values[f"{one.kind} rank"] = number(one.rank, 2)
    shares, clean = naming.evaluate_all(table)
    values["right"] = " / ".join(percent(share, 1) for share in shares)
    values["middle"] = percent(shares[1], 1)
    values["clean"] = ", ".join(number(value, 2) for value in clean)
    condition = f"{len(photos)} clean photos of levels, shorter side 512, seed 0"
    yield Found(DEFAULT, "naming", values, "python measurements/naming.py PHOTOS", condition)


def explanations(sets: Sets) -> Iterator[Found]:
    """Look whether maps find distorted quarters."""
    import explanations as script

    network, clean = build_lifeiqa().eval(), sets.photos("levels")
    images = sets.datasets["biq2021-test"].images
    rated = sorted((-one.mos, one.path) for one in images if one.groups["subset"] == "ss03")
    second = [Path(path) for _, path in rated[:25]]
    values = {}
    for name, photos in (("clean", clean), ("second", second)):
        for place in ("corner", "anywhere"):
            hits = script.find_quarters(network, photos, 100, 0.6, place == "anywhere")
            for of, by_kind in hits.items():
                each = ", ".join(f"{k} {100 * np.mean(found):.0f}" for k, found in by_kind.items())
                together = np.mean([hit for found in by_kind.values() for hit in found])
                values[f"{name} {of} {place}"] = f"{percent(together)} ({each})"
    condition = f"{len(clean)} clean photos of levels; second photos the 25 best of BIQ2021 test's subset 03"
    command = "python measurements/explanations.py PHOTOS"
    yield Found(DEFAULT, "explain", values, command, condition)


def folds(seen: Path) -> Iterator[Found]:
    """Cross-validate the read-outs of ``lifeiqa`` on LIVE Challenge."""
    import fit_readouts

    looked = fit_readouts.open_sets(seen)
    livec = looked["livec"]
    scores = fit_readouts.scores_of_folds(looked, livec, 10, 7)
    found = measure(scores, livec.mos, fitted=False)
    values = {name: with_interval(value) for name, value in found.items()}
    values["bias"] = number(float((scores - livec.mos).mean()))
    condition = f"{len(scores):,} photos, each scored by read-outs fitted without its tenth"
    yield Found(DEFAULT, "livec", values, "python tools/fit_readouts.py check", condition)


PARTS = {part.__name__: part for part in (benchmark, calibration, int8, naming, explanations)}


def write(found: list[Found]) -> None:
    """Put the rows that a table shows into results.csv, each in the place of the one of its id."""
    shown = set(re.findall(r"\{(\w+)", " ".join(read_templates().values())))
    git = ["git", "log", "-1", "--format=%h", "--", "lifeiqa_plugin"]
    commit = subprocess.check_output(git, cwd=ROOT, text=True).strip()
    today, results = datetime.date.today().isoformat(), read_results()
    columns = list(next(iter(results.values())))
    for one in found:
        for name, value in one.values.items():
            what = f"{one.about} {name}".strip()
            row_id = re.sub(r"\W+", "_", f"{PREFIX[one.model]} {what}").strip("_").lower()
            about = (row_id, f"{what}, {one.model}", value, one.command, commit)
            row = (*about, BUNDLED[one.model].sha256, one.condition, today)
            if row_id in shown:
                results[row_id] = dict(zip(columns, row, strict=True))
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(results.values())


def main() -> None:
    """Parse the command line, measure, and write after each part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-opt", type=Path, default=ROOT / DATA_OPT, metavar="YML")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("measured"), help="folder of the scores")
    parser.add_argument("--seen", type=Path, help="what fit_readouts.py look wrote")
    args = parser.parse_args()
    sys.path.append(str(ROOT / "measurements"))
    datasets = find_datasets([], read_option_file(args.data_opt).entries)
    sets = Sets({one.name: one for one in datasets}, args.out)
    for part in args.parts:
        write(list(PARTS[part](sets)))
    if args.seen:
        write(list(folds(args.seen)))


if __name__ == "__main__":
    main()
