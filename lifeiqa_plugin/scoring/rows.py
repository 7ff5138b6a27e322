"""One row of a result: an image and what is said of it, and how rows become files."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from lifeiqa_plugin.images.stream import TOO_SMALL

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

FORMATS = (".parquet", ".csv", ".jsonl")

TEXTS = ("key", "path", "verdict", "sentence", "note", "error")

INTEGERS = ("width", "height", "size")

KEEP, CHECK, DROP = "keep", "check", "drop"


class Thresholds(NamedTuple):
    """Verdict ``keep`` from the score ``keep`` on, ``drop`` below ``drop``, ``check`` between; both 0 to 1."""

    keep: float = 0.6
    drop: float = 0.3

    def check(self, prefix: str = "") -> Thresholds:
        """Return itself.

        Raises:
            ValueError: out of 0 to 1, or ``drop`` above ``keep``; names begin with ``prefix``.
        """
        for name, value in self._asdict().items():
            if not 0 <= value <= 1:
                raise ValueError(f"{prefix}{name} must be 0 to 1, as scores are, got {value:g}")
        if self.drop > self.keep:
            raise ValueError(
                f"{prefix}drop {self.drop:g} must not be above {prefix}keep {self.keep:g}"
            )
        return self

    def judge(self, row: Mapping[str, Any]) -> Row:
        """Return a row with its verdict; None where there is no score, or the image is too small for one."""
        if row.get("score") in (None, "") or TOO_SMALL in (row.get("note") or ""):
            return {**row, "verdict": None}
        score = float(row["score"])
        verdict = KEEP if score >= self.keep else DROP if score < self.drop else CHECK
        return {**row, "verdict": verdict}


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
        sentence: the score in words, and the flaws above their cut; see :mod:`lifeiqa_plugin.words`. None beside an
            error, and in rows that earlier versions wrote.
        notes: what was assumed or left out as its file became pixels, such as ``first of 12 frames``.
        detail: score of the part of a large photo that has most detail, seen nearer; NaN for other images.
    """

    name: str
    width: int = 0
    height: int = 0
    score: float = float("nan")
    std: float = float("nan")
    distortions: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    sentence: str | None = None
    notes: tuple[str, ...] = ()
    detail: float = float("nan")

    @property
    def has_score(self) -> bool:
        """Whether it could be scored."""
        return self.error is None and math.isfinite(self.score)

    @property
    def verdict(self) -> str | None:
        """``keep``, ``check`` or ``drop`` by the usual :class:`Thresholds`; None without a score to judge by."""
        verdict: str | None = self.to_dict()["verdict"]
        return verdict

    def to_dict(self, thresholds: Thresholds | None = None) -> Row:
        """Return the row that ``lifeiqa score`` writes: numbers, texts and None, so it can be sent as JSON.

        Its keys: path, width, height, score, std, detail, verdict, sentence, note, error, and one for each distortion.
        """
        row: Row = {"path": self.name, "width": self.width, "height": self.height}
        row |= {name: _number(getattr(self, name)) for name in ("score", "std", "detail")}
        row |= {"sentence": self.sentence, "note": "; ".join(self.notes) or None}
        row |= {"error": self.error}
        row |= {distortion_column(name): round(v, 4) for name, v in self.distortions.items()}
        return (thresholds or Thresholds()).judge(row)


DISTORTION = "distortion."
"""Columns of distortions begin so, such as ``distortion.motion_blur``; any other column is the user's own."""


def distortion_column(name: str) -> str:
    """Return the column of a distortion."""
    return f"{DISTORTION}{name.replace(' ', '_')}"


def distortion_names(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the distortions that have a column."""
    found = (column for column in columns if column.startswith(DISTORTION))
    return tuple(column.removeprefix(DISTORTION).replace("_", " ") for column in found)


def column_names(distortions: Iterable[str]) -> list[str]:
    """Return the columns of a result, in order."""
    named = map(distortion_column, distortions)
    before = ("path", "width", "height", "score", "std", "detail")
    return [*before, *named, "verdict", "sentence", "note", "error"]


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def write_rows(file: IO[bytes], kind: str, columns: list[str], rows: Iterator[Row]) -> None:
    """Write rows in one of ``FORMATS``; a few thousand at a time are in memory."""
    if kind == ".parquet":
        _write_parquet(file, columns, rows)
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        if kind == ".csv":
            writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        else:
            named = ({name: row.get(name) for name in columns} for row in rows)
            text.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in named)
    finally:
        text.detach()  # which writes all, and leaves the file open


def schema_of(columns: Iterable[str]) -> pa.Schema:
    """Return the types of columns, as Parquet files have them."""
    import pyarrow as pa

    kinds = dict.fromkeys(TEXTS, pa.string()) | {"size": pa.int64(), "mtime": pa.float64()}
    kinds |= dict.fromkeys(("width", "height"), pa.int32())
    return pa.schema([(name, kinds.get(name, pa.float32())) for name in columns])


def _write_parquet(file: IO[bytes], columns: list[str], rows: Iterator[Row]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = schema_of(columns)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(itertools.islice(rows, 8192)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file in one of ``FORMATS``, or of a folder of Parquet shards; csv gives texts.

    Raises:
        OSError: it cannot be read.
        ValueError: a file of another kind.
    """
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
    elif path.suffix == ".jsonl":
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)
    elif path.suffix == ".parquet":
        from pyarrow import parquet

        for shard in sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]:
            with parquet.ParquetFile(shard) as table:
                for batch in table.iter_batches():
                    yield from batch.to_pylist()
    else:
        raise ValueError(f"{path}: expected scores in {', '.join(FORMATS)}")


def read_own_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a result of this version as they were before they were written, whatever its format.

    Raises:
        OSError, ValueError: as :func:`read_rows`.
    """
    for row in read_rows(path):
        yield {name: _restore(name, value) for name, value in row.items()}


def _restore(name: str, value: Any) -> Any:
    if value in (None, ""):
        return None
    if name in TEXTS:
        return value
    if name in INTEGERS:
        return int(value)
    return float(value) if name == "mtime" else round(float(value), 6)


def parse_row(row: Mapping[str, Any], known: Collection[str] = ()) -> ScoredImage:
    """Read a row of a result.

    Args:
        row: as :func:`read_rows` gives it.
        known: names of distortions that are also read without the prefix, as files of version 0.1 have them.

    Raises:
        ValueError: neither score nor error, or a value that is no number.
    """
    if "path" not in row or not ("score" in row or row.get("error")):
        raise ValueError(
            f"expected the columns path and score, as 'lifeiqa score -o' writes them, got {', '.join(map(str, row))}"
        )
    is_old = not any(str(column).startswith(DISTORTION) for column in row)
    names = {name if is_old else distortion_column(name): name for name in known}
    distortions = {}
    for column, value in row.items():
        name = names.get(column)
        if name is None and str(column).startswith(DISTORTION):
            name = column.removeprefix(DISTORTION).replace("_", " ")
        if name is not None and value not in (None, ""):
            distortions[name] = _to_float(column, value)
    return ScoredImage(
        name=row["path"],
        width=int(row.get("width") or 0),
        height=int(row.get("height") or 0),
        score=_to_float("score", row.get("score")),
        std=_to_float("std", row.get("std")),
        distortions=distortions,
        error=row.get("error") or None,
        sentence=row.get("sentence") or None,
        notes=tuple(filter(None, str(row.get("note") or "").split("; "))),
        detail=_to_float("detail", row.get("detail")),
    )


def _to_float(column: str, value: Any) -> float:
    if value in (None, ""):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"column {column!r}: expected a number, got {value!r}") from None
