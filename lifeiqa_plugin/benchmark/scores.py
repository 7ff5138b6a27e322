"""One score for each metric and image, computed once and kept: a csv for each metric and dataset, grown line by line.

``scores/METRIC/DATASET.csv`` holds ``name,score,error``; of lines with the same name the last one counts.
``scores/METRIC/metric.json`` says what computed them. Scores of other options or weights are never mixed.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lifeiqa_plugin.benchmark.datasets import read_items
from lifeiqa_plugin.benchmark.metrics import (
    Builder,
    LoadedMetric,
    MetricSpec,
    first_line,
)
from lifeiqa_plugin.datasets.labelled import LabelledDataset
from lifeiqa_plugin.journal import open_journal, write_json

GIVE_UP = 20
"""Failures from the first image on, after which a metric is given up on a dataset."""

NOT_SCORED = "not scored"

COLUMNS = ["name", "score", "error"]


class Score(NamedTuple):
    """What a metric says of an image: a number, or an error and NaN."""

    score: float
    error: str


def in_one_line(name: str) -> str:
    """Return the name of an image as a kept score has it: line ends escaped, so that a line is a whole row."""
    escaped = name.replace("\\", "\\\\")
    return escaped.replace("\n", "\\n").replace("\r", "\\r")


class Store:
    """The folder ``scores`` of one output folder.

    Args:
        folder: where it is.
        metrics: name -> what :meth:`~lifeiqa_plugin.benchmark.metrics.MetricSpec.description` says, in the order of the
            tables.
    """

    def __init__(
        self, folder: Path, metrics: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    ) -> None:
        self.folder = folder
        self.metrics = metrics

    def path(self, metric: str, dataset: str) -> Path:
        """Return the csv of a metric and a dataset."""
        return self.folder / metric / f"{dataset}.csv"

    def about(self, metric: str) -> dict[str, Any]:
        """Return what ``metric.json`` says; empty if there is none.

        Raises:
            ValueError: it is damaged.
        """
        path = self.folder / metric / "metric.json"
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({first_line(error)}); {_advice(path)}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path}: damaged (no table of names); {_advice(path)}")
        return found

    def untrained(self) -> dict[str, str]:
        """Return why metrics have no weights and therefore no scores, of those of which that is known."""
        reasons = {metric: self.about(metric).get("untrained") for metric in self.metrics}
        return {metric: f"untrained, {reason}" for metric, reason in reasons.items() if reason}

    def read(self, metric: str, dataset: str) -> dict[str, Score]:
        """Return image name (see :func:`in_one_line`) -> score; a last line that was cut off is ignored.

        Raises:
            ValueError: the csv is damaged.
        """
        path = self.path(metric, dataset)
        if not path.is_file():
            return {}
        try:
            whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
            header, *rows = csv.reader(whole.split("\n")) if whole else [COLUMNS]
            if header != COLUMNS:
                raise ValueError(f"header {header}")
            return {name: Score(float(score or "nan"), error) for name, score, error in rows}
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path}: damaged ({first_line(error)}); {_advice(path)}") from error

    def check(self, datasets: Sequence[LabelledDataset]) -> None:
        """Read all that is kept, and see that it was computed by these metrics from these images.

        Raises:
            ValueError: a file is damaged, or scores of something else are kept.
        """
        for metric in self.metrics:
            self.about(metric)
            for dataset in datasets:
                self.read(metric, dataset.name)
            self.check_origin(metric, datasets)

    def check_origin(
        self, metric: str, datasets: Sequence[LabelledDataset], weights: str = ""
    ) -> None:
        """See that what is kept was computed by this metric (with these weights, if given) from these images.

        Raises:
            ValueError: it was not; says what differs.
        """
        folder = self.folder / metric
        if not any(folder.glob("*.csv")):
            return
        kept = self.about(metric)
        now = json.loads(json.dumps(self.metrics[metric]))
        found = _differences(kept.get("metric", {}), now)
        if weights and kept.get("weights") != weights:
            found.append("other weights")
        if found:
            raise ValueError(
                f"the scores in {folder} were computed with {'; '.join(found)}; {_advice(folder / 'metric.json')}"
            )
        for dataset in datasets:
            path, origin = self.path(metric, dataset.name), dict(dataset.origin)
            found = _differences(kept.get("datasets", {}).get(dataset.name, origin), origin)
            if path.is_file() and found:
                raise ValueError(
                    f"the scores in {path} were computed with {'; '.join(found)}; delete this file or give another -o"
                )

    def describe(self, metric: str, **about: Any) -> None:
        """Write ``metric.json``."""
        folder = self.folder / metric
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metric.json", {"metric": self.metrics[metric], **about})

    def missing(self, metric: str, dataset: LabelledDataset) -> list[int]:
        """Return the rows without a score, among them those that failed before."""
        found = self.of_images(metric, dataset)
        return [row for row, score in enumerate(found) if score.error]

    def of_images(self, metric: str, dataset: LabelledDataset) -> list[Score]:
        """Return the score of every image; those without have the error ``NOT_SCORED``."""
        kept, nothing = self.read(metric, dataset.name), Score(float("nan"), NOT_SCORED)
        return [kept.get(in_one_line(image.name), nothing) for image in dataset.images]

    def table(self, datasets: Sequence[LabelledDataset]) -> pd.DataFrame:
        """Return all scores: dataset, name, mos, group columns, metric, score, error; a row per metric and image."""
        rows = []
        for dataset, metric in itertools.product(datasets, self.metrics):
            found = self.of_images(metric, dataset)
            for image, score in zip(dataset.images, found, strict=True):
                row = {"dataset": dataset.name, "name": image.name, "mos": image.mos}
                rows.append({**row, **image.groups, "metric": metric, **score._asdict()})
        return pd.DataFrame(rows)


def _differences(kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which values differ, each as ``name old, now new``."""
    found = []
    for key in [*now, *(kept.keys() - now.keys())]:
        was, is_now = kept.get(key), now.get(key)
        if isinstance(was, dict) and isinstance(is_now, dict):
            found += _differences(was, is_now)
        elif was != is_now:
            found.append(f"{key} {_short(was)}, now {_short(is_now)}")
    return found


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) != 64 else f"{text[:12]}..."


def _advice(path: Path) -> str:
    return f"delete the folder {path.parent} or give another -o"


def score_all(
    store: Store,
    builder: Builder,
    specs: Sequence[MetricSpec],
    datasets: Sequence[LabelledDataset],
    device: str,
    workers: int,
    notes: dict[str, str],
) -> None:
    """Compute the scores of all metrics; what goes wrong with one becomes its note."""
    for spec in specs:
        try:
            score_metric(store, builder, spec, datasets, device, workers)
        except Exception as error:
            notes[spec.name] = first_line(error)
            tqdm.write(f"{spec.name}: {notes[spec.name]}", file=sys.stderr)


def score_metric(
    store: Store,
    builder: Builder,
    spec: MetricSpec,
    datasets: Sequence[LabelledDataset],
    device: str = "cpu",
    workers: int = 0,
) -> None:
    """Compute the scores of one metric that are not there yet; each is on the disk as soon as it is known.

    Args:
        store: where scores are kept.
        builder: creates the metric, if a score is missing.
        spec: the metric; a full-reference one skips datasets without references.
        datasets: to score.
        device: ``cpu`` or ``cuda``.
        workers: processes that decode.

    Raises:
        ValueError: scores of something else are kept (see :meth:`Store.check`), or some are and the weights for the
            others cannot be had.
        Exception: whatever pyiqa raised while it built the metric.
    """
    todo = []
    for dataset in datasets:
        if spec.mode == "NR" or dataset.has_references:
            rows = store.missing(spec.name, dataset)
            if rows:
                todo.append((dataset, rows))
    about = store.about(spec.name)
    if not todo:
        return
    loaded = builder.create(spec, device)
    if loaded.untrained and about.get("weights"):
        count = sum(len(rows) for _, rows in todo)
        raise ValueError(f"{count} images have no score yet, and the metric has {loaded.untrained}")
    if loaded.untrained:
        store.describe(spec.name, untrained=loaded.untrained)
        return
    weights = loaded.weights
    store.check_origin(spec.name, datasets, weights)
    origins = about.get("datasets", {}) | {one.name: dict(one.origin) for one, _ in todo}
    more = {"weights": weights, "device": device, "torch": str(torch.__version__)}
    store.describe(spec.name, **more, datasets=origins)
    for dataset, rows in todo:
        _score_dataset(store, loaded, dataset, rows, workers)


def _score_dataset(
    store: Store, loaded: LoadedMetric, dataset: LabelledDataset, rows: list[int], workers: int
) -> None:
    spec = loaded.spec
    what = f"{spec.name} on {dataset.name}"
    total = len(dataset.images)
    progress = tqdm(total=total, initial=total - len(rows), desc=what, unit="image")
    path = store.path(spec.name, dataset.name)
    with progress, open_journal(path, ",".join(COLUMNS)) as file:
        writer = csv.writer(file, lineterminator="\n")
        failures = 0
        items = read_items(dataset, rows, spec.mode == "FR", workers)
        for done, item in enumerate(items, 1):
            name = dataset.images[item.row].name
            score = Score(float("nan"), item.error)
            if not item.error:
                score = compute(loaded.metric, item.tensors, name)
            number = "" if score.error else repr(score.score)
            writer.writerow([in_one_line(name), number, score.error])
            file.flush()
            progress.update()
            failures += bool(score.error)
            if done == failures == GIVE_UP:
                tqdm.write(f"{what}: the first {GIVE_UP} images failed; the rest is left out")
                break


def compute(metric: Any, tensors: list[Tensor], name: str) -> Score:
    """Score one image; random numbers depend on its name only, so that metrics with random crops repeat too."""
    try:
        with own_random_numbers(name), torch.no_grad():
            output = metric(*tensors)
        if isinstance(output, tuple):
            output = output[0]
        score = float(torch.as_tensor(output).squeeze())
    except Exception as error:
        return Score(float("nan"), first_line(error))
    if not np.isfinite(score):
        return Score(float("nan"), f"the score is {score}")
    return Score(score, "")


@contextlib.contextmanager
def own_random_numbers(name: str) -> Iterator[None]:
    """Seed Python, NumPy and torch by a name, and put their states back afterwards."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).digest()
    seed = int.from_bytes(digest, "big")
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
