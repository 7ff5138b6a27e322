"""One row of a result: an image and what is said of it, and how rows become files."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

FORMATS = (".parquet", ".csv", ".jsonl")

KEEP, CHECK, DROP = "keep", "check", "drop"


@dataclass(frozen=True)
class ScoredImage:
    """An image with its score, or with the reason why it has none.

    Attributes:
        name: path, or what else the image was called.
        width: of the image as it is looked at, after its orientation is applied; 0 if it could not be read.
        height: the same.
        score: 0 worst, 1 best; NaN if there is an error.
        std: how far off the score may be, as one standard deviation.
        distortions: name -> how much of it there is, 0 to 1; empty for a network without that task.
        error: one line; None if all went well.
    """

    name: str
    width: int = 0
    height: int = 0
    score: float = float("nan")
    std: float = float("nan")
    distortions: dict[str, float] = field(default_factory=dict)
    error: str | None = None


def verdict_of(score: float, keep: float, drop: float) -> str:
    """Return ``keep`` from ``keep`` on, ``drop`` below ``drop``, ``check`` between."""
    if score >= keep:
        return KEEP
    return DROP if score < drop else CHECK


def column_names(distortions: Iterable[str]) -> list[str]:
    """Return the columns of a result, in order."""
    return ["path", "width", "height", "score", "std", *distortions, "verdict", "error"]


def to_row(scored: ScoredImage, keep: float, drop: float) -> Row:
    """Return what stands in a file: path, width, height, score, std, distortions, verdict, error; None for nothing."""
    row: Row = {"path": scored.name, "width": scored.width, "height": scored.height}
    if scored.error is not None:
        return row | {"error": scored.error}
    row |= {"score": round(scored.score, 6), "std": _number(scored.std)}
    row |= {name: round(value, 4) for name, value in scored.distortions.items()}
    return row | {"verdict": verdict_of(scored.score, keep, drop)}


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def write_rows(file: IO[bytes], kind: str, columns: list[str], rows: Iterator[Row]) -> None:
    """Write rows in one of ``FORMATS``; a few thousand at a time are in memory."""
    if kind == ".parquet":
        _write_parquet(file, columns, rows)
        return
    if kind == ".csv":
        file.write(_csv_line(columns))
    for row in rows:
        values = [row.get(name) for name in columns]
        if kind == ".csv":
            file.write(_csv_line("" if value is None else value for value in values))
        else:
            line = json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False)
            file.write(f"{line}\n".encode())


class _Echo:
    """What ``csv.writer`` writes to, so that it gives the line back."""

    def write(self, line: str) -> str:
        return line


def _csv_line(values: Iterable[Any]) -> bytes:
    line: str = csv.writer(_Echo(), lineterminator="\n").writerow(values)
    return line.encode()


def schema_of(columns: Iterable[str]) -> pa.Schema:
    """Return the types of columns, as Parquet files have them."""
    import pyarrow as pa

    kinds = dict.fromkeys(("key", "path", "verdict", "error"), pa.string())
    kinds |= dict.fromkeys(("width", "height"), pa.int32())
    return pa.schema([(name, kinds.get(name, pa.float32())) for name in columns])


def _write_parquet(file: IO[bytes], columns: list[str], rows: Iterator[Row]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = schema_of(columns)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(itertools.islice(rows, 8192)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def read_parquet(shard: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file."""
    from pyarrow import parquet

    for batch in parquet.ParquetFile(shard).iter_batches():
        yield from batch.to_pylist()
