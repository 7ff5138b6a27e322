"""Which images a run learns from: they are written into its checkpoints, and looked for in its validation and test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pyiqa.utils import get_root_logger

from lifeiqa_plugin.checkpoints.models import Model
from lifeiqa_plugin.datasets.trained_on import TrainedOn, count_in_words, digests_of, trained_on
from lifeiqa_plugin.training.dataset import LifeIQADataset


def learn_digests(sources: list[LifeIQADataset], start: Model | None) -> TrainedOn:
    """Return which images weights will have been trained on, those that they start from included."""
    labelled = [row[0] for source in sources for row in source.paths_mos if math.isfinite(row[1])]
    own = TrainedOn.build(digests_of(labelled))
    before = None if start is None else trained_on(start)
    return own if before is None else own | before


def warn_of_trained_on(model: Any, datasets: Sequence[LifeIQADataset]) -> None:
    """Say which images of validation and test are in training too, perhaps as a copy, or were in that of the start."""
    for dataset in datasets if model.opt["rank"] == 0 else []:
        hits = model.trained_on.hits(digests_of(row[0] for row in dataset.paths_mos))
        if hits.any():
            count = count_in_words(int(hits.sum()), len(hits))
            get_root_logger().warning(f"{dataset.options.name}: {count}")
