"""Scoring inside a pipeline of Ray Data, which brings images from anywhere and spreads them over machines.

    scored = ray.data.read_binary_files("s3://...", include_paths=True).map_batches(Scorer)

``examples/score_with_ray.py`` is a whole one. Ray itself is not imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lifeiqa_plugin.images.refusals import ImageError, name_of
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.scoring.containers import BYTES_COLUMNS, NAME_COLUMNS, PATH_COLUMNS
from lifeiqa_plugin.scoring.rows import Thresholds, column_names, schema_of
from lifeiqa_plugin.scoring.score import Scorer as ImageScorer

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = "no image in this row"


class Scorer:
    """Batches of images in, rows as those of ``lifeiqa score`` out; for ``map_batches``, whose workers make one each.

    Args:
        column: holds bytes of files, paths that the workers can read, or arrays (H, W, 3); None for the first of the
            usual names. Bytes are best: a reader of Ray that decodes knows neither orientation nor colour profile.
        name: column of what becomes ``path``; None for the first of the usual names.
        keep: threshold of the verdict.
        drop: the same.
        workers: processes that decode for one worker of Ray. One is enough to make a row with an error of an image
            that hangs or crashes its decoder; with 0 it would take the worker with it, again and again.
        **options: of :class:`lifeiqa_plugin.Scorer`, such as ``model`` and ``device``.

    Raises:
        ValueError, OSError, ImportError: as :class:`lifeiqa_plugin.Scorer` and :class:`Thresholds`.
    """

    def __init__(
        self,
        column: str | None = None,
        name: str | None = None,
        *,
        keep: float = 0.6,
        drop: float = 0.3,
        workers: int = 1,
        **options: Any,
    ) -> None:
        self.column, self.name, self.thresholds = column, name, Thresholds(keep, drop).check()
        self.scorer = ImageScorer(workers=workers, **options)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> pa.Table:
        """Score a batch; an image that cannot be scored is a row with an ``error``.

        Raises:
            ValueError: the batch has no such column.
        """
        import pyarrow as pa

        scored = self.scorer.many(self._name_images(batch))
        rows = [one.to_dict(self.thresholds) for one in scored]
        names = self.scorer.engine.names
        return pa.Table.from_pylist(rows, schema=schema_of(column_names(names)))

    def _name_images(self, batch: Mapping[str, NDArray[Any]]) -> Iterator[Named]:
        sources = _find(batch, self.column, (*BYTES_COLUMNS, *PATH_COLUMNS), "images")
        names = _find(batch, self.name, ("path", *NAME_COLUMNS), "names")
        return map(_to_named, names, sources)


def _find(
    batch: Mapping[str, NDArray[Any]], column: str | None, usual: tuple[str, ...], what: str
) -> NDArray[Any]:
    """Return a column: the one that is asked for, or the first of the usual ones.

    Raises:
        ValueError: there is none.
    """
    names = usual if column is None else (column,)
    found = next((name for name in names if name in batch), None)
    if found is None:
        raise ValueError(f"{what}: no column {', '.join(names)} among {', '.join(batch)}")
    return batch[found]


def _to_named(name: Any, source: Any) -> Named:
    if isinstance(source, str | bytes | np.ndarray):
        return Named(name_of(str(name)), source)
    return Named(name_of(str(name)), ImageError(f"{name}: {MISSING}", MISSING))
