"""The order in which a run sees its rows: a function of (seed, epoch), to be taken up in its middle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from pyiqa.data.data_sampler import EnlargedSampler

from lifeiqa_plugin.training.seeds import seed_of_epoch, seed_of_visit

if TYPE_CHECKING:
    from lifeiqa_plugin.training.mixture import Mixture


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
        generator = torch.Generator().manual_seed(seed_of_epoch(self.seed, epoch))
        rows = self.dataset.rows_of_epoch(generator)
        if self.use_shuffle:
            order = torch.randperm(len(rows), generator=generator).tolist()
            rows = [rows[i] for i in order]
        visits, times = [], dict.fromkeys(rows, 0)
        for row in rows:
            visits.append(Visit(row, seed_of_visit(self.seed, epoch, row, times[row])))
            times[row] += 1
        return visits
