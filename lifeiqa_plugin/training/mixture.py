"""The training sets of a run as one, each with its weight."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from statistics import fmean, pstdev
from typing import Any

import torch
from torch.utils.data import Dataset

from lifeiqa_plugin.training.dataset import LifeIQADataset


class Mixture(Dataset[dict[str, Any]]):
    """One or several training sets; their rows are counted on from set to set.

    Labels of a set with ``own_scale`` are brought to mean and deviation of the labels on the shared scale; what is left
    between the two scales is learned, see :class:`~lifeiqa_plugin.training.losses.AffineCalibration`.

    Args:
        sources: the sets.
        opt: keys of the batch, which all of them share.

    Raises:
        ValueError: fewer images in an epoch than in a batch.
    """

    def __init__(self, sources: list[LifeIQADataset], opt: dict[str, Any]) -> None:
        self.sources, self.opt = sources, opt
        self.starts = [0, *accumulate(len(source) for source in sources)]
        self.visits = [round(source.options.weight * len(source)) for source in sources]
        self.label_maps = label_maps(sources)
        batch = opt["batch_size_per_gpu"]
        if len(self) < batch:
            raise ValueError(
                f"{opt['name']}: {len(self)} images to train on, fewer than one batch of {batch}"
            )

    def __len__(self) -> int:
        """Return the images of an epoch."""
        return sum(self.visits)

    def rows_of_epoch(self, generator: torch.Generator) -> list[int]:
        """Return each set's rows ``weight`` times; of a broken number, another random part in each epoch."""
        rows: list[int] = []
        for start, source, visits in zip(self.starts, self.sources, self.visits, strict=False):
            whole, rest = divmod(visits, len(source))
            own = list(range(start, start + len(source)))
            rows += own * whole
            if rest:
                chosen = torch.randperm(len(source), generator=generator)[:rest]
                rows += [start + i for i in chosen.tolist()]
        return rows

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return the item of a (row, seed), and as ``source`` the number of its set."""
        row, seed = key
        number = bisect_right(self.starts, row) - 1
        item = self.sources[number][row - self.starts[number], seed]
        if (line := self.label_maps[number]) is not None:
            slope, offset = line
            item["mos_label"] = item["mos_label"] * slope + offset
        return item | {"source": number}


def label_maps(sources: list[LifeIQADataset]) -> list[tuple[float, float] | None]:
    """Return slope and offset that bring each set's labels to the shared scale; None for those that are on it."""
    shared = [mos for source in sources if not source.options.own_scale for mos in source.labels]
    maps: list[tuple[float, float] | None] = []
    for source in sources:
        if not source.options.own_scale:
            maps.append(None)
            continue
        slope = pstdev(shared) / pstdev(source.labels)
        maps.append((slope, fmean(shared) - slope * fmean(source.labels)))
    return maps
