"""``lifeiqa_plugin.score``: any number of images in, one result for each out, in order."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lifeiqa_plugin.checkpoints.models import DEFAULT, Model
from lifeiqa_plugin.images.processes import prepare_images
from lifeiqa_plugin.images.reading import MAX_PIXELS, Source
from lifeiqa_plugin.images.refusals import name_of
from lifeiqa_plugin.images.stream import Named, Prepared, Recipe
from lifeiqa_plugin.runtimes import Engine, create_engine
from lifeiqa_plugin.scoring.inputs import walk_folder
from lifeiqa_plugin.scoring.rows import ScoredImage

WINDOW = 8
"""Batches that are looked through for images of one size."""


def score(
    images: Source | bytearray | memoryview | Named | Iterable[Source | Named],
    *,
    model: str | Path | Model = DEFAULT,
    engine: str | Engine = "auto",
    device: str = "auto",
    batch_size: int = 1,
    workers: int = 0,
    exact: bool = True,
    fast: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
    time_limit: float = 60,
) -> Iterator[ScoredImage]:
    """Score images; ``docs/decoding.md`` says how each is read.

    >>> for row in score(["examples/photos/chelsea_2_blur.jpg", "none.jpg"], device="cpu"):
    ...     print(row.name, round(row.score, 1), row.error)
    examples/photos/chelsea_2_blur.jpg 0.3 None
    none.jpg nan no such file

    Args:
        images: an image, a folder, or any iterable of images, which is read as results are asked for. An image is a
            path, the bytes of a file, an open file, a Pillow image, an array, a tensor, or one of these as ``Named``.
        model: ``lifeiqa``, ``lifeiqa-biq2021``, a checkpoint or what ``lifeiqa export`` wrote; see
            :func:`~lifeiqa_plugin.checkpoints.models.resolve`.
        engine: ``auto``, ``torch``, ``onnxruntime``, ``openvino``, or an engine.
        device: ``auto``, ``cpu`` or ``cuda``.
        batch_size: images that pass the network together, if they have the same working size; scores differ by less
            than 1e-5 with it. On CPUs more than 1 gains nothing.
        workers: processes that decode; 0 decodes in this one, without a time limit.
        exact: False lets the JPEG decoder shrink large photos: faster, and scores differ by some .0003.
        fast: take the bundled network in 8 bits; see :func:`create_engine`.
        max_pixels: larger images are refused.
        max_memory: bytes that a process that decodes may take; images that would need more are refused.
        time_limit: seconds that an image may take to decode.

    Returns:
        An iterator over a :class:`ScoredImage` for each image. One that cannot be scored has an ``error``.

    Raises:
        ValueError, OSError, ImportError: as :func:`create_engine`; a number that is too small.
        TypeError: ``images`` is nothing of the above.
    """
    numbers = {"batch_size": batch_size, "max_pixels": max_pixels, "time_limit": time_limit}
    for name, value in numbers.items():
        if value <= 0:
            raise ValueError(f"{name} must be more than 0, got {value}")
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    named = name_images(images)
    if isinstance(engine, str):
        engine = create_engine(engine, model, device, fast)
    elif fast or model != DEFAULT or device != "auto":
        raise ValueError(
            "an engine is given, so model, device and fast have no effect; leave them out"
        )
    recipe = Recipe(
        engine.working_shape, None if exact else engine.shrink_to, max_pixels, max_memory
    )
    prepared = prepare_images(named, recipe, workers, time_limit)
    return _score_prepared(prepared, engine, batch_size)


def name_images(images: Any) -> Iterator[Named]:
    """Give each image a name: its path, or its number.

    Raises:
        TypeError: neither an image nor an iterable of images.
    """
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        return (image for file in walk_folder(os.fspath(images)) for image in file.images())
    if isinstance(images, Named):
        return iter([images])
    is_one = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray)
    if is_one or hasattr(images, "read") or hasattr(images, "cpu") or hasattr(images, "convert"):
        return iter([_name(0, images)])
    if not isinstance(images, Iterable):
        raise TypeError(
            f"images must be an image, a folder or an iterable, got {type(images).__name__}"
        )
    return itertools.starmap(_name, enumerate(images))


def _name(number: int, image: Any) -> Named:
    if isinstance(image, Named):
        return image
    if isinstance(image, bytearray | memoryview):
        image = bytes(image)
    name = name_of(image)
    return Named(f"#{number}" if name.startswith("<") else name, image)


def _score_prepared(
    prepared: Iterator[Prepared], engine: Engine, batch_size: int
) -> Iterator[ScoredImage]:
    size = 1 if batch_size == 1 else WINDOW * batch_size
    while window := list(itertools.islice(prepared, size)):
        yield from _score_window(window, engine, batch_size)


def _score_window(window: list[Prepared], engine: Engine, batch_size: int) -> Iterator[ScoredImage]:
    """Score images, those of equal size together; results are in the order of the images."""
    results: dict[int, ScoredImage] = {}
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, item in enumerate(window):
        if item.image is None:
            results[i] = ScoredImage(item.name, item.width, item.height, error=item.error)
        else:
            shapes.setdefault(item.image.shape, []).append(i)
    for members in shapes.values():
        for start in range(0, len(members), batch_size):
            chosen = members[start : start + batch_size]
            scored = _score_batch([window[i] for i in chosen], engine)
            results |= dict(zip(chosen, scored, strict=True))
    for i in range(len(window)):
        yield results[i]


def _score_batch(items: list[Prepared], engine: Engine) -> list[ScoredImage]:
    batch = np.stack([item.image for item in items if item.image is not None])
    output = engine.score(batch)
    rows = []
    for i, item in enumerate(items):
        score, std = float(output.score[i]), float(output.std[i])
        if not np.isfinite(score):
            reason = f"the network's score is {score}"
            rows.append(ScoredImage(item.name, item.width, item.height, error=reason))
            continue
        shares = [float(value) for value in output.distortions[i]]
        distortions = dict(zip(engine.names, shares, strict=True))
        size = (item.width, item.height)
        rows.append(ScoredImage(item.name, *size, score, std, distortions, notes=item.notes))
    return rows
