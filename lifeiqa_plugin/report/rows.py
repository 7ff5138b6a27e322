"""Scores that are on the disk already, as ``lifeiqa score`` writes them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lifeiqa_plugin.scoring.rows import ScoredImage

FIXED = ("path", "width", "height", "score", "std", "verdict", "error")
"""Columns that are no distortions."""


def read_rows(path: Path) -> list[ScoredImage]:
    """Read a ``.csv``, ``.jsonl`` or ``.parquet`` file, or a folder of Parquet shards.

    Raises:
        OSError: it cannot be read.
        ValueError: another kind of file, one without ``path`` and ``score``, a value that is no number.
        ImportError: Parquet without pyarrow.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected a folder of images, or one of {', '.join(readers)}")
    rows = []
    for number, row in enumerate(readers[path.suffix](path), start=1):
        if "path" not in row or not ("score" in row or row.get("error")):
            raise ValueError(
                f"{path}: expected the columns path and score, as 'lifeiqa score -o' writes them, "
                f"got {', '.join(row)}"
            )
        try:
            rows.append(_to_scored(row))
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from error
    return rows


def _to_scored(row: Mapping[str, Any]) -> ScoredImage:
    distortions = {
        name: float(value)
        for name, value in row.items()
        if name not in FIXED and value not in (None, "")
    }
    return ScoredImage(
        name=row["path"],
        width=int(row.get("width") or 0),
        height=int(row.get("height") or 0),
        score=_number(row.get("score")),
        std=_number(row.get("std")),
        distortions=distortions,
        error=row.get("error") or None,
    )


def _number(value: Any) -> float:
    return float("nan") if value in (None, "") else float(value)


def _read_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with open(path, newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _read_jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    from pyarrow import parquet

    shards = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    for shard in shards:
        for batch in parquet.ParquetFile(shard).iter_batches():
            yield from batch.to_pylist()
