"""``Scorer`` and ``score``: any number of images in, one result for each out, in order."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lifeiqa_plugin.checkpoints.models import DEFAULT, Model
from lifeiqa_plugin.images.processes import Decoders, prepare_images
from lifeiqa_plugin.images.reading import MAX_PIXELS, Source
from lifeiqa_plugin.images.refusals import name_of
from lifeiqa_plugin.images.stream import TOO_SMALL, Named, Prepared, Recipe
from lifeiqa_plugin.runtimes import Engine, EngineOutput, Floats, choose_engine, create_engine
from lifeiqa_plugin.scoring.inputs import Inputs, parse_file
from lifeiqa_plugin.scoring.rows import ScoredImage
from lifeiqa_plugin.words import FLAT, write_sentence

ONE_COLOR = 1.5 / 255
"""Range of a channel below which all of it is one color: resizing may round one to two."""

WINDOW = 8
"""Batches that are looked through for images of one size."""

TIME_LIMIT = 60.0
"""Seconds for one image."""

Images: TypeAlias = "Source | bytearray | memoryview | Named | Iterable[Source | Named]"


class Scorer:
    """A network that is loaded once and scores images, from any number of threads.

    >>> scorer = Scorer(device="cpu")
    >>> scorer("examples/photos/coffee_0_clean.jpg").verdict
    'keep'

    Args:
        model: ``lifeiqa``, ``lifeiqa-biq2021``, a checkpoint or what ``lifeiqa export`` wrote; see
            :func:`~lifeiqa_plugin.checkpoints.models.resolve`.
        engine: ``auto``, ``torch``, ``onnxruntime``, ``openvino``, or an engine.
        device: ``auto``, ``cpu`` or ``cuda``.
        exact: decode large JPEGs in full. Else their decoder may shrink them: faster, and scores differ by some .0003.
        fast: take the bundled network in 8 bits; see :func:`create_engine`.
        detail: look nearer at large photos; see ``docs/scoring.md``.
        max_pixels: larger images are refused.
        max_memory: bytes that a process that decodes may take; images that would need more are refused.
        workers: processes that decode; a file that crashes or stops one costs no more than itself. They end with this
            one. 0 decodes in the thread that asks, without a time limit.
        time_limit: seconds that an image may take to decode.

    Raises:
        ValueError, OSError, ImportError: as :func:`create_engine`; a number that is too small.
    """

    def __init__(
        self,
        model: str | Path | Model = DEFAULT,
        engine: str | Engine = "auto",
        device: str = "auto",
        *,
        exact: bool = False,
        fast: bool = False,
        detail: bool = True,
        max_pixels: int = MAX_PIXELS,
        max_memory: int | None = None,
        workers: int = 0,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        _check(workers, max_pixels=max_pixels, time_limit=time_limit)
        self._model: Model | None = None
        if isinstance(engine, str):
            name, self._model = choose_engine(engine, model, device, fast)
            engine = create_engine(name, self._model, device)
        elif fast or model != DEFAULT or device != "auto":
            raise ValueError(
                "an engine is given, so model, device and fast have no effect; leave them out"
            )
        self.engine = engine
        # an engine of the user's may know one look
        looks_nearer = detail and getattr(engine, "detail", None) is not None
        shrink_to = None if exact else engine.shrink_to
        self._recipe = Recipe(engine.working_shape, shrink_to, max_pixels, looks_nearer, max_memory)
        self._workers, self._time_limit = workers, time_limit
        self._decoders: Decoders | None = None
        self._process, self._lock = os.getpid(), threading.Lock()

    @property
    def weights_sha256(self) -> str | None:
        """Digest of the weights; None if an engine was given."""
        return None if self._model is None else self._model.sha256

    def __call__(self, image: Source | bytearray | memoryview | Named) -> ScoredImage:
        """Score one image; one that cannot be scored has an ``error``.

        Raises:
            RuntimeError: this process was forked after the network was loaded.
        """
        self._refuse_fork()
        decode: Callable[[Named], Prepared] = self._recipe
        if self._workers:
            with self._lock:
                self._decoders = self._decoders or Decoders(
                    self._recipe, self._workers, self._time_limit
                )
            decode = self._decoders
        return next(self._score_window([decode(_name(0, image))], 1))

    def many(
        self,
        images: Images,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Iterator[ScoredImage]:
        """Score images, in order, as results are asked for; ``docs/decoding.md`` says how each is read.

        Args:
            images: an image; what ``lifeiqa score`` takes as an argument, such as a folder, a glob, a list or an
                archive; or any iterable of images and archives. An image is a path, the bytes of a file, an open file,
                a Pillow image, an array, a tensor, or one of these as ``Named``.
            batch_size: images that pass the network together, if they have the same working size; scores differ by
                less than 1e-5 with it. None for 1 on CPUs, where more gains nothing, and 16 on CUDA.
            workers: processes that decode; None for as many as the Scorer was told.

        Returns:
            An iterator over a :class:`ScoredImage` for each image. One that cannot be scored has an ``error``.

        Raises:
            ValueError: a number that is too small, a path that is not there or holds no images.
            TypeError: ``images`` is nothing of the above.
            RuntimeError: this process was forked after the network was loaded.
        """
        if batch_size is None:
            on_cuda = str(getattr(self.engine, "device", "cpu")).startswith("cuda")
            batch_size = 16 if on_cuda else 1
        workers = self._workers if workers is None else workers
        _check(workers, batch_size=batch_size)
        prepared = prepare_images(name_images(images), self._recipe, workers, self._time_limit)
        return self._score(prepared, batch_size)

    def _refuse_fork(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this Scorer was loaded in process {self._process}, whose threads are missing in its fork "
                f"{os.getpid()}; make a Scorer after the fork, one in each process"
            )

    def _score(self, prepared: Iterator[Prepared], batch_size: int) -> Iterator[ScoredImage]:
        size = 1 if batch_size == 1 else WINDOW * batch_size
        while window := list(itertools.islice(prepared, size)):
            yield from self._score_window(window, batch_size)

    def _score_window(self, window: list[Prepared], batch_size: int) -> Iterator[ScoredImage]:
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
                scored = self._score_batch([window[i] for i in chosen])
                results |= dict(zip(chosen, scored, strict=True))
        for i in range(len(window)):
            yield results[i]

    def _score_batch(self, items: list[Prepared]) -> list[ScoredImage]:
        self._refuse_fork()
        batch = np.stack([item.image for item in items if item.image is not None])
        with self._lock:  # one batch has all cores
            output = self.engine.score(batch)
            output, details = self._look_nearer(items, output)
        rows = []
        for i, item in enumerate(items):
            score, std = float(output.score[i]), float(output.std[i])
            if not np.isfinite(score):
                reason = f"the network's score is {score}"
                rows.append(ScoredImage(item.name, item.width, item.height, error=reason))
                continue
            shares = [float(value) for value in output.distortions[i]]
            distortions = dict(zip(self.engine.names, shares, strict=True))
            rows.append(
                ScoredImage(
                    item.name,
                    item.width,
                    item.height,
                    score,
                    std,
                    distortions,
                    sentence=self._say(item, score, std, distortions),
                    notes=item.notes,
                    detail=float(details[i]),
                )
            )
        return rows

    def _look_nearer(
        self, items: list[Prepared], whole: EngineOutput
    ) -> tuple[EngineOutput, Floats]:
        """Return what both looks say of B images, and the scores of the parts of large ones, NaN for others."""
        details = np.full_like(whole.score, np.nan)
        large = [i for i, item in enumerate(items) if item.part is not None]
        if not large or (rule := self.engine.detail) is None:
            return whole, details
        parts = [item.part for item in items if item.part is not None]
        near = self.engine.score(np.stack(parts))
        score, distortions, names = whole.score.copy(), whole.distortions.copy(), self.engine.names
        details[large] = near.score
        score[large] = rule.apply(whole.score[large], near.score, near.distortions, names)
        distortions[large] = rule.join(
            score[large] < whole.score[large], distortions[large], near.distortions, names
        )
        return whole._replace(score=score, distortions=distortions), details

    def _say(self, item: Prepared, score: float, std: float, distortions: dict[str, float]) -> str:
        """Return the sentence on an image."""
        if TOO_SMALL in item.notes:
            return TOO_SMALL
        if item.image is not None and _has_one_color(item.image):
            return FLAT
        engine = self.engine
        return write_sentence(
            score, std, distortions, engine.naming, score_range=engine.score_range
        )


def _has_one_color(image: NDArray[np.float32]) -> bool:
    parts = (image[:, ::16, ::16], image)  # which is slow, and rarely needed
    return all(np.ptp(part, axis=(1, 2)).max() < ONE_COLOR for part in parts)


def score(
    images: Images, *, batch_size: int | None = None, **options: Any
) -> Iterator[ScoredImage]:
    """Score images with a :class:`Scorer` that is made for them; see :meth:`Scorer.many`.

    >>> for row in score(["examples/photos/chelsea_2_blur.jpg", "none.jpg"], device="cpu"):
    ...     print(row.name, round(row.score, 1), row.error)
    examples/photos/chelsea_2_blur.jpg 0.3 None
    none.jpg nan no such file

    Args:
        images: as for :meth:`Scorer.many`.
        batch_size: the same.
        **options: of :class:`Scorer`, such as ``model``, ``device`` and ``workers``.

    Raises:
        TypeError, ValueError, OSError, ImportError: as :class:`Scorer` and :meth:`Scorer.many`.
    """
    return Scorer(**options).many(images, batch_size=batch_size)


def _check(workers: int, **positive: float) -> None:
    for name, value in positive.items():
        if value <= 0:
            raise ValueError(f"{name} must be more than 0, got {value}")
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")


def name_images(images: Any) -> Iterator[Named]:
    """Give each image a name: its path, or its number.

    Raises:
        ValueError: a path that is not there or holds no images.
        TypeError: neither an image nor an iterable of images.
    """
    if isinstance(images, str | os.PathLike):
        return Inputs([os.fspath(images)]).images()
    if isinstance(images, Named):
        return iter([images])
    is_one = isinstance(images, bytes | bytearray | memoryview | np.ndarray)
    if is_one or hasattr(images, "read") or hasattr(images, "cpu") or hasattr(images, "convert"):
        return iter([_name(0, images)])
    if not isinstance(images, Iterable):
        raise TypeError(
            f"images must be an image, a folder or an iterable, got {type(images).__name__}"
        )
    return itertools.chain.from_iterable(itertools.starmap(_name_item, enumerate(images)))


def _name_item(number: int, item: Any) -> Iterable[Named]:
    if isinstance(item, str | os.PathLike):
        return parse_file(os.fspath(item), None).images()
    return [_name(number, item)]


def _name(number: int, image: Any) -> Named:
    if isinstance(image, Named):
        return image
    if isinstance(image, bytearray | memoryview):
        image = bytes(image)
    name = name_of(image)
    return Named(f"#{number}" if name.startswith("<") else name, image)
