"""Which images of a dataset the compared metrics were trained on: a group column, and words in captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lifeiqa_plugin.benchmark.metrics import MetricSpec
from lifeiqa_plugin.checkpoints.factory import weights_of
from lifeiqa_plugin.datasets.labelled import LabelledDataset
from lifeiqa_plugin.datasets.trained_on import TrainedOn, digests_of, trained_on

COLUMN = "trained_on"
"""Group column: the metrics that were trained on an image, or NOBODY. Only metrics of Life-IQA say so."""

NOBODY = "none"

AND = " and "


def mark_trained_on(
    datasets: Sequence[LabelledDataset], specs: Sequence[MetricSpec], cache: Path | None = None
) -> list[LabelledDataset]:
    """Return the datasets; the images of those that a metric was trained on have the column.

    Digests of images are kept in ``cache`` for the next run.

    Raises:
        ValueError: a checkpoint's list of training images is damaged.
    """
    models = {spec.name: weights_of(spec.options) for spec in specs}
    said = {name: trained_on(model) for name, model in models.items() if model is not None}
    known = {name: learnt for name, learnt in said.items() if learnt is not None}
    rated = ("mos", "pairs")
    return [_mark(one, known, cache) if one.kind in rated and known else one for one in datasets]


def _mark(
    dataset: LabelledDataset, known: dict[str, TrainedOn], cache: Path | None
) -> LabelledDataset:
    digests = digests_of((image.path for image in dataset.images), cache)
    hits = {name: learnt.hits(digests) for name, learnt in known.items()}
    hits = {name: found for name, found in hits.items() if found.any()}
    if not hits:
        return dataset
    images = []
    for row, image in enumerate(dataset.images):
        names = [name for name, found in hits.items() if found[row]]
        images.append(replace(image, groups={**image.groups, COLUMN: AND.join(names) or NOBODY}))
    counts = [f"{found.sum():,} trained on by {name}" for name, found in hits.items()]
    return replace(dataset, images=images, rows="; ".join([dataset.rows, *counts]))


def is_trained_on(scores: pd.DataFrame, metric: str) -> np.ndarray:
    """Tell by the column which of the rows are of images that a metric was trained on, (N,)."""
    groups = scores.get(COLUMN, [""] * len(scores))
    return np.array([metric in str(group).split(AND) for group in groups], dtype=bool)
