"""One score for each metric and image, computed once and kept: a csv for each metric and set, grown line by line.

``scores/METRIC/SET.csv`` holds ``name,score,error``; of lines with the same name the last one counts.
``scores/METRIC/metric.json`` says what computed them. Scores of other options or weights are never mixed.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lifeiqa_plugin.benchmark.datasets import LabelledDataset, read_items
from lifeiqa_plugin.benchmark.metrics import Builder, Built, Candidate, fingerprint, first_line
from lifeiqa_plugin.journal import open_journal

GIVE_UP = 20
"""Failures from the first image on, after which a metric is given up on a set."""

NOT_SCORED = "not scored"


class Score(NamedTuple):
    """What a metric says of an image: a number, or an error and NaN."""

    score: float
    error: str


def in_one_line(name: str) -> str:
    """Return the name of an image as a kept score has it: line ends escaped, so that a line is a whole row."""
    escaped = name.replace("\\", "\\\\")
    return escaped.replace("\n", "\\n").replace("\r", "\\r")


class Store:
    """The folder ``scores`` of one output folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, metric: str, dataset: str) -> Path:
        """Return the csv of a metric and a set."""
        return self.folder / metric / f"{dataset}.csv"

    def about(self, metric: str) -> dict[str, Any]:
        """Return what ``metric.json`` says; empty if there is none."""
        path = self.folder / metric / "metric.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def read(self, metric: str, dataset: str) -> dict[str, Score]:
        """Return image name (see :func:`in_one_line`) -> score; a last line that was cut off is ignored."""
        path = self.path(metric, dataset)
        if not path.is_file():
            return {}
        lines = path.read_text(encoding="utf-8").split("\n")[
            :-1
        ]  # what follows the last line feed is no whole line
        rows = csv.DictReader(lines)
        return {row["name"]: Score(float(row["score"] or "nan"), row["error"]) for row in rows}

    def mismatch(self, candidate: Candidate, weights: str = "") -> str:
        """Say why what is kept was not computed by this metric (and these weights, if given); empty if it was."""
        folder, about = self.folder / candidate.name, self.about(candidate.name)
        if not any(folder.glob("*.csv")):
            return ""
        now = json.loads(json.dumps(candidate.describe()))
        if about.get("metric") != now:
            what = f"{about.get('metric')}, now it is {now}"
        elif weights and about.get("weights") != weights:
            what = "other weights"
        else:
            return ""
        return (
            f"the scores in {folder} were computed by {what}; delete that folder or give another -o"
        )

    def describe(self, candidate: Candidate, **about: str) -> None:
        """Write ``metric.json``."""
        (self.folder / candidate.name).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"metric": candidate.describe()} | about, indent=1)
        (self.folder / candidate.name / "metric.json").write_text(text, encoding="utf-8")

    def missing(self, candidate: Candidate, chosen: LabelledDataset) -> list[int]:
        """Return the rows without a score, among them those that failed before."""
        kept = self.read(candidate.name, chosen.name)
        return [
            i
            for i, image in enumerate(chosen.images)
            if kept.get(in_one_line(image.name), Score(0, "none")).error
        ]

    def table(self, candidates: list[Candidate], sets: list[LabelledDataset]) -> pd.DataFrame:
        """Return all scores: set, name, mos, group columns, metric, score, error; one row for each metric and image.

        Images without a score, and those whose kept score was computed by something else, have ``NOT_SCORED``.
        """
        rows = []
        for chosen, candidate in itertools.product(sets, candidates):
            kept = {} if self.mismatch(candidate) else self.read(candidate.name, chosen.name)
            for image in chosen.images:
                score, error = kept.get(in_one_line(image.name), Score(float("nan"), NOT_SCORED))
                about = {"set": chosen.name, "name": image.name, "mos": image.mos, **image.groups}
                rows.append(about | {"metric": candidate.name, "score": score, "error": error})
        return pd.DataFrame(rows)


def score_metric(
    store: Store,
    builder: Builder,
    candidate: Candidate,
    sets: list[LabelledDataset],
    device: str = "cpu",
    workers: int = 0,
) -> str:
    """Compute the scores of one metric that are not there yet; each is on the disk as soon as it is known.

    Args:
        store: where scores are kept.
        builder: creates the metric, if a score is missing.
        candidate: the metric; a full-reference one skips sets without references.
        sets: to score.
        device: ``cpu`` or ``cuda``.
        workers: processes that decode.

    Returns:
        Why the metric has no weights and therefore no scores; empty if it has.

    Raises:
        ValueError: scores of something else are kept, or some are and the weights for the others cannot be had.
        Exception: whatever pyiqa raised while it built the metric.
    """
    if wrong := store.mismatch(candidate):
        raise ValueError(wrong)
    sets = [chosen for chosen in sets if candidate.mode == "NR" or chosen.has_references]
    todo = [(chosen, rows) for chosen in sets if (rows := store.missing(candidate, chosen))]
    if not todo:
        return str(store.about(candidate.name).get("untrained", ""))
    built = builder.create(candidate, device)
    weights = fingerprint(built.metric)
    if built.untrained:
        if store.about(candidate.name).get("weights"):
            count = sum(len(rows) for _, rows in todo)
            raise ValueError(
                f"{count} images have no score yet, and the metric has {built.untrained}"
            )
        store.describe(candidate, untrained=built.untrained)
        return built.untrained
    if wrong := store.mismatch(candidate, weights):
        raise ValueError(wrong)
    store.describe(candidate, weights=weights, device=device, torch=str(torch.__version__))
    for chosen, rows in todo:
        _score_set(store, built, chosen, rows, workers)
    return ""


def _score_set(
    store: Store, built: Built, chosen: LabelledDataset, rows: list[int], workers: int
) -> None:
    candidate, path = built.candidate, store.path(built.candidate.name, chosen.name)
    total = len(chosen.images)
    progress = tqdm(
        total=total,
        initial=total - len(rows),
        desc=f"{candidate.name} on {chosen.name}",
        unit="image",
    )
    with progress, open_journal(path, "name,score,error") as file:
        writer, failures = csv.writer(file, lineterminator="\n"), 0
        for done, item in enumerate(read_items(chosen, rows, candidate.mode == "FR", workers), 1):
            name = chosen.images[item["row"]].name
            score = (
                Score(float("nan"), item["error"])
                if "error" in item
                else compute(built.metric, item, name)
            )
            writer.writerow(
                [in_one_line(name), "" if score.error else repr(score.score), score.error]
            )
            file.flush()
            progress.update()
            failures += bool(score.error)
            if done == failures == GIVE_UP:
                tqdm.write(
                    f"{candidate.name} on {chosen.name}: the first {GIVE_UP} images failed; the rest is left out"
                )
                break


def compute(metric: Any, item: dict[str, Any], name: str) -> Score:
    """Score one image; random numbers depend on its name only, so that metrics with random crops repeat too."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        with torch.no_grad():
            output = metric(*item["tensors"])
        output = output[0] if isinstance(output, tuple) else output
        score = float(torch.as_tensor(output).squeeze())
    except Exception as error:
        return Score(float("nan"), first_line(error))
    return Score(score, "") if np.isfinite(score) else Score(float("nan"), f"the score is {score}")
