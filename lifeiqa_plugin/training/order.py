"""The order in which a run sees its rows: a function of (seed, epoch), to be taken up in its middle."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from pyiqa.data.data_sampler import EnlargedSampler

if TYPE_CHECKING:
    from lifeiqa_plugin.training.dataset import LifeIQADataset


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed that is a function of the numbers given, in their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class ResumableSampler(EnlargedSampler):  # type: ignore[misc]  # pyiqa is not typed
    """Order of the rows: a function of (seed, epoch), in whole batches, to be taken up after any iteration.

    Yields ``row + len(dataset) * s`` with ``s`` a function of (seed, epoch, repetition), from which the dataset draws
    the crops. The last batch of an epoch is filled up from the start of its order, so that pyiqa's count of iterations
    holds; the loader would drop it otherwise. Before ``set_epoch`` the order is empty, because pyiqa starts an
    iterator then that it throws away.

    Args:
        dataset: a :class:`LifeIQADataset`, whose ``batch_size_per_gpu`` is read.
        num_replicas: processes.
        rank: of this process.
        ratio: times that each row comes in an epoch.
        use_shuffle: False for the order of the csv.
        seed: of the run.
        start_iter: iterations that were done before this run was resumed.
        epochs: length of the run, after which the order is empty: pyiqa's loop starts one epoch too many.
    """

    def __init__(
        self,
        dataset: LifeIQADataset,
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
        self.ratio, self.seed, self.start_iter, self.epochs = ratio, seed, start_iter, epochs
        self.epoch: int | None = None

    @staticmethod
    def iterations_per_epoch(dataset: LifeIQADataset, num_replicas: int) -> int:
        """Return the number of batches that each process takes in an epoch, as pyiqa counts them."""
        opt = dataset.opt
        rows: int = len(dataset) * opt.get("dataset_enlarge_ratio", 1)
        batch: int = opt["batch_size_per_gpu"]
        return math.ceil(rows / (batch * num_replicas))

    def __iter__(self) -> Iterator[int]:
        """Yield the keys of this process for the epoch that was set."""
        if self.epoch is None or self.epoch >= self.epochs:
            return iter([])
        rows, needed = len(self.dataset) * self.ratio, self.num_samples * self.num_replicas
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = (
            torch.randperm(rows, generator=generator) if self.use_shuffle else torch.arange(rows)
        )
        order = order.repeat(math.ceil(needed / rows))[:needed]
        done = max(0, self.start_iter - self.epoch * self.iterations) * self.batch
        return iter([self._key(i) for i in order[self.rank :: self.num_replicas].tolist()[done:]])

    def _key(self, position: int) -> int:
        repetition, row = divmod(position, len(self.dataset))
        return row + len(self.dataset) * (
            1 + derive_seed(self.seed, self.epoch or 0, repetition) // 2**31
        )
