"""What may come of an input: a finite score, nothing at all, or one clear error. Anything else is a defect of ours."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lifeiqa_plugin import cli
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.network.lifeiqa import LifeIQA

TINY: dict[str, Any] = {
    "backbone": "test_convnext", "embed_dim": 16, "num_heads": 2, "depth": 1, "num_experts": 2,
    "crop_size": 32, "working_size": 48,
}  # fmt: skip
LONGEST = 60
"""Seconds after which a case counts as hanging."""


class HangError(BaseException):
    """Raised by the clock; no handler of the package may catch it."""


@contextmanager
def time_limit() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise HangError(f"more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def try_out() -> Callable[..., float | str | None]:
    """Return what a function returns, a finite number or None, or the one line of its error."""

    def call(function: Callable[..., float | None], *arguments: object) -> float | str | None:
        value = error = None
        try:
            with time_limit(), torch.inference_mode():
                value = function(*arguments)
        except cli.FAILURES as caught:
            error = str(caught)
        if error is None:
            assert value is None or math.isfinite(value), value
            return value
        assert error.strip()
        assert "\n" not in error, error
        return error

    return call


@pytest.fixture(scope="session")
def tiny() -> LifeIQA:
    """A network of a few thousand weights, always the same."""
    torch.manual_seed(0)
    return build_lifeiqa(pretrained=False, **TINY).eval()


@pytest.fixture(scope="session")
def checkpoint(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(tiny, path, ModelCard(training_data="none", license="none"))
    return path
