"""An engine whose score is the mean brightness, so that tests know every number."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from lifeiqa_plugin import cli
from lifeiqa_plugin.network.crops import working_shape
from lifeiqa_plugin.runtimes import EngineOutput
from lifeiqa_plugin.scoring import score as scoring_score


class Brightness:
    """Scores by the mean; ``batches`` are the shapes that it was given."""

    names = ("dark", "bright")
    naming = None
    score_range = (0.0, 1.0)
    shrink_to = 2.0
    detail = None

    def __init__(self) -> None:
        self.working_shape = functools.partial(working_shape, crop_size=8, working_size=16)
        self.batches: list[tuple[int, ...]] = []

    def score(self, batch: np.ndarray) -> EngineOutput:
        self.batches.append(batch.shape)
        mean = batch.mean((1, 2, 3))
        return EngineOutput(mean, mean / 10, np.stack([1 - mean, mean], axis=1))


@pytest.fixture
def engine() -> Brightness:
    return Brightness()


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of ten gray images of several sizes; number i has brightness 0.102 i; two are in a folder below."""
    root = tmp_path / "photos"
    (root / "below").mkdir(parents=True)
    for i in range(10):
        size = ((64, 64), (128, 64), (64, 96))[i % 3]
        name = f"below/{i}.png" if i > 7 else f"{i}.png"
        Image.new("L", size, 26 * i).save(root / name)
    return root


@pytest.fixture
def score(engine, photos, tmp_path, monkeypatch, capsys):
    """Run ``lifeiqa score`` in the folder that holds ``photos``; returns exit status, stdout, last line of stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scoring_score, "create_engine", lambda *arguments: engine)
    monkeypatch.setattr("lifeiqa_plugin.allocator.keep_freed_memory", lambda: False)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["score", *arguments, "--workers", "0"])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.strip().splitlines()[-1] if printed.err else ""

    return run


@pytest.fixture
def at_image(engine, monkeypatch):
    """Let something happen as the engine gets the image of a number."""
    plain = engine.score

    def happen(number: int, do: Callable[[], object]) -> None:
        calls = iter(range(10**6))

        def score(batch):
            if next(calls) == number:
                do()
            return plain(batch)

        monkeypatch.setattr(engine, "score", score)

    return happen


@pytest.fixture
def stop_after(at_image):
    """Let the engine raise an error at the image of a number."""
    return lambda number, error: at_image(number, mock.Mock(side_effect=error))
