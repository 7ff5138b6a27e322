"""The training sets of a run as one, each with its weight, and the order in which a run sees their rows.

Every seed is a function of the run's seed and of what it is for, and of nothing that came before.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from statistics import fmean, pstdev
from typing import Any, NamedTuple

import torch
from pyiqa.data.data_sampler import EnlargedSampler
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
        ValueError: fewer images in an epoch than in a batch, or own scales alone.
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
        """Return the item of a (row, seed), as ``source`` the number of its set, and the ``weight`` of its label."""
        row, seed = key
        number = bisect_right(self.starts, row) - 1
        item = self.sources[number][row - self.starts[number], seed]
        if (line := self.label_maps[number]) is not None:
            slope, offset = line
            item["mos_label"] = item["mos_label"] * slope + offset
        weight = self.sources[number].weights[row - self.starts[number]]
        return item | {"source": number, "weight": weight}


def label_maps(sources: list[LifeIQADataset]) -> list[tuple[float, float] | None]:
    """Return slope and offset that bring each set's labels to the shared scale; None for those that are on it."""
    shared = [mos for source in sources if not source.options.own_scale for mos in source.labels]
    if not shared and any(source.options.own_scale for source in sources):
        raise ValueError(
            "datasets:train: one dataset with scores must be without own_scale, for the shared scale is its"
        )
    maps: list[tuple[float, float] | None] = []
    for source in sources:
        if not source.options.own_scale:
            maps.append(None)
            continue
        slope = pstdev(shared) / pstdev(source.labels)
        maps.append((slope, fmean(shared) - slope * fmean(source.labels)))
    return maps


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed that is a function of the numbers given, in their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_of_visit(seed: int, epoch: int, row: int, repetition: int) -> int:
    """Return the seed of all that is random about an image when an epoch shows it for the n-th time."""
    of_epoch = derive_seed(seed, epoch, repetition)
    return derive_seed(1 + of_epoch // 2**31, row)  # the bits that version 0.1 drew


class Visit(NamedTuple):
    """One image of an epoch: its row, and the seed of all that is random about it."""

    row: int
    seed: int


class ResumableSampler(EnlargedSampler):  # type: ignore[misc]  # pyiqa is not typed
    """Order of the rows: a function of (seed, epoch), in whole batches, to be taken up after any iteration.

    The last batch of an epoch is filled up from the start of its order, so that pyiqa's count of iterations holds;
    the loader would drop it otherwise. Before ``set_epoch`` the order is empty, because pyiqa starts an iterator then
    that it throws away.

    Args:
        dataset: whose weights say how often a row comes, and whose ``batch_size_per_gpu`` is read.
        num_replicas: processes.
        rank: of this process.
        ratio: pyiqa's; 1, since ``crops_per_image`` takes several crops of one decode.
        use_shuffle: False for the order of the csv.
        seed: of the run.
        start_iter: iterations that were done before this run was resumed.
        epochs: length of the run, after which the order is empty: pyiqa's loop starts one epoch too many.
    """

    def __init__(
        self,
        dataset: Mixture,
        num_replicas: int,
        rank: int,
        ratio: int = 1,
        use_shuffle: bool = True,
        *,
        seed: int = 0,
        start_iter: int = 0,
        epochs: float = math.inf,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, ratio, use_shuffle)
        self.batch: int = dataset.opt["batch_size_per_gpu"]
        self.iterations = self.iterations_per_epoch(dataset, num_replicas)
        self.num_samples = self.iterations * self.batch
        self.seed, self.start_iter, self.epochs = seed, start_iter, epochs
        self.epoch: int | None = None

    @staticmethod
    def iterations_per_epoch(dataset: Mixture, num_replicas: int) -> int:
        """Return the number of batches that each process takes in an epoch, as pyiqa counts them."""
        batch: int = dataset.opt["batch_size_per_gpu"]
        return math.ceil(len(dataset) / (batch * num_replicas))

    def __iter__(self) -> Iterator[Visit]:
        """Yield the visits of this process in the epoch that was set."""
        if self.epoch is None or self.epoch >= self.epochs:
            return iter([])
        visits = self._visits(self.epoch)
        needed = self.num_samples * self.num_replicas
        visits = (visits * math.ceil(needed / len(visits)))[:needed]
        done = max(0, self.start_iter - self.epoch * self.iterations) * self.batch
        return iter(visits[self.rank :: self.num_replicas][done:])

    def _visits(self, epoch: int) -> list[Visit]:
        """Return all visits of an epoch, in its order; a row that comes again has another seed."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        rows = self.dataset.rows_of_epoch(generator)
        if self.use_shuffle:
            order = torch.randperm(len(rows), generator=generator).tolist()
            rows = [rows[i] for i in order]
        visits, times = [], dict.fromkeys(rows, 0)
        for row in rows:
            visits.append(Visit(row, seed_of_visit(self.seed, epoch, row, times[row])))
            times[row] += 1
        return visits
