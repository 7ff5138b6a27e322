"""The C library's allocator, tuned for training on CPUs: for the process of a command, never on import."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of freed tensors instead of handing it back to the system each time.

    glibc maps every large block afresh and unmaps it when it is freed, so that each activation of each iteration costs
    a page fault per 4 KiB. Afterwards large blocks come from the heap, which is never trimmed: what the process took
    at its peak, it keeps. Blocks that exist already are not affected, so call it early.

    Does nothing on other systems and C libraries, or where the environment sets glibc's allocator (``MALLOC_...``,
    ``GLIBC_TUNABLES``); other allocators that were preloaded are not affected.

    Returns:
        Whether glibc took the settings.
    """
    chosen = "GLIBC_TUNABLES" in os.environ or any(
        name.startswith("MALLOC_") for name in os.environ
    )
    if chosen or not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))
