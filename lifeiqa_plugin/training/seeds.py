"""All seeds of a run: each is a function of the run's seed and of what it is for, and of nothing that came before."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed that is a function of the numbers given, in their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_of_epoch(seed: int, epoch: int) -> int:
    """Return the seed of an epoch's order."""
    return derive_seed(seed, epoch)


def seed_of_visit(seed: int, epoch: int, row: int, repetition: int) -> int:
    """Return the seed of all that is random about an image when an epoch shows it for the n-th time."""
    of_epoch = derive_seed(seed, epoch, repetition)
    return derive_seed(1 + of_epoch // 2**31, row)  # the bits that version 0.1 drew


def seed_of_iteration(seed: int, rank: int, iteration: int) -> int:
    """Return the seed of an iteration's dropout in one process."""
    return derive_seed(seed, rank, iteration)
