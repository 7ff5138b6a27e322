"""Where rows go: a journal that grows line by line, then files put in place whole, and a manifest last.

A single result ``scores.csv`` has its journal in ``scores.csv.partial`` and its manifest in ``scores.csv.json``. Shards
``scores.parquet/part-00000.parquet`` have theirs beside them, as ``_partial.jsonl`` and ``_manifest.json``, and the
result ``scores/00000.parquet`` of one archive among others as ``_00000.parquet.partial`` and ``_00000.parquet.json``:
readers of folders of Parquet leave such names out. Whatever ends the process, what stands in the journal is scored.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.journal import open_journal, read_json, read_records, write_json, write_whole
from lifeiqa_plugin.scoring.rows import (
    CHECK,
    DROP,
    FORMATS,
    KEEP,
    Row,
    Thresholds,
    column_names,
    read_rows,
    write_rows,
)


class Output:
    """A result that is there, is begun, or is to be made.

    Args:
        path: file to write, or folder of shards.
        options: what the scores depend on; rows of other options are never mixed.
        distortions: names of further columns.
        thresholds: of the verdicts, which are added when rows are put in place: other thresholds need no scoring again.
        shard_rows: rows of a shard; None for one file.
        of_archive: this is the result of one archive in a folder of such results, with a column ``key``.

    Raises:
        UsageError: the name says no format, or something else is there.
    """

    def __init__(
        self,
        path: Path,
        options: Row,
        distortions: tuple[str, ...] = (),
        thresholds: Thresholds | None = None,
        shard_rows: int | None = None,
        of_archive: bool = False,
    ) -> None:
        self.path, self.shard_rows, self.kind = path, shard_rows, path.suffix
        self.thresholds = thresholds or Thresholds()
        self.options = json.loads(json.dumps(options | {"shard_rows": shard_rows}))
        self.columns = [*(["key"] if of_archive else []), *column_names(distortions)]
        if self.kind not in FORMATS:
            raise UsageError(f"-o {path}: the name must end in {', '.join(FORMATS)}")
        if shard_rows is not None and self.kind != ".parquet":
            raise UsageError(f"-o {path}: shards are Parquet; the name must end in .parquet")
        inside = shard_rows is not None
        name = f"_{path.name}" if of_archive else path.name
        self.journal = path / "_partial.jsonl" if inside else path.with_name(f"{name}.partial")
        self.manifest = path / "_manifest.json" if inside else path.with_name(f"{name}.json")
        self._file: TextIO | None = None
        self._shards = 0
        self._in_journal = 0

    def delete(self) -> None:
        """Remove what is there, for ``--overwrite``."""
        for path in (self.manifest, self.journal, self.path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def is_finished(self) -> bool:
        """Say whether the result is there already.

        Raises:
            UsageError: something is there that other options made, or something else.
        """
        for path, what in ((self.manifest, "made"), (self.journal, "begun")):
            if path.is_file():
                self._compare(path, what)
                return path == self.manifest and self.path.exists()
        empty_folder = self.path.is_dir() and not any(self.path.iterdir())
        if self.path.exists() and not (self.shard_rows is not None and empty_folder):
            raise UsageError(f"{self.path} exists; give --overwrite, or another name with -o")
        return False

    def _compare(self, path: Path, what: str) -> None:
        records = read_json(path) if path == self.manifest else next(read_records(path), None)
        before = records.get("options") if isinstance(records, dict) else None
        if before is None:
            if path == self.journal:  # the process ended before the first line was written
                return
            raise UsageError(f"{path} is no manifest of 'lifeiqa score'; give another name with -o")
        if "weights_sha256" not in before:
            raise UsageError(
                f"{self.path} was {what} by version 0.1, which did not note the weights that ran; "
                "give --overwrite, or another name with -o"
            )
        if before != self.options:
            other = [name for name in self.options if before.get(name) != self.options[name]]
            differ = ", ".join(f"{name} {before.get(name)!r}" for name in other)
            raise UsageError(
                f"{self.path} was {what} with other options ({differ}); "
                "give --overwrite, or another name with -o"
            )

    def open(self) -> Iterator[Row]:
        """Open the result to add to, and yield the rows that are in it from before; has to be read to its end.

        Raises:
            OSError: no permission, no space.
            ValueError: the journal is damaged.
        """
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        shards = sorted(self.path.glob("part-*.parquet")) if self.shard_rows is not None else []
        self._shards = len(shards)
        if self.journal.is_file() and self._shards_in_journal() < len(shards):
            self.journal.unlink()  # the process ended between writing a shard and clearing its rows
        for shard in shards:
            yield from read_rows(shard)
        self._open_journal()
        for row in self._journal_rows():
            self._in_journal += 1
            yield row

    def add(self, rows: list[Row]) -> None:
        """Add rows; they survive the end of this process, whatever ends it."""
        if self._file is None:
            raise ValueError(f"{self.path} is not open")
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        self._file.write("".join(f"{line}\n" for line in lines))
        self._file.flush()
        self._in_journal += len(rows)
        if self.shard_rows is not None and self._in_journal >= self.shard_rows:
            self._write_shard()

    def finish(self, summary: Row) -> None:
        """Put the files in place, the manifest last."""
        if self.shard_rows is None:
            with write_whole(self.path) as file:
                self._write(file, self._journal_rows())
        elif self._in_journal:
            self._write_shard()
        self.close()
        self._write_manifest({"columns": self.columns} | summary)
        self.journal.unlink()

    def judge_again(self) -> bool:
        """Give a finished result the verdicts of other thresholds; say whether it had others."""
        manifest = read_json(self.manifest)
        if manifest.get("thresholds") == self.thresholds._asdict():
            return False
        self.columns = manifest["columns"]
        counts = dict.fromkeys((KEEP, CHECK, DROP), 0)
        for path in self.files():
            with write_whole(path) as file:
                self._write(file, read_rows(path))
            for row in read_rows(path):
                if row["verdict"]:
                    counts[row["verdict"]] += 1
        self._write_manifest(manifest | {"verdicts": counts})
        return True

    def files(self) -> list[Path]:
        """Return the files with rows of a finished result."""
        return sorted(self.path.glob("part-*.parquet")) if self.path.is_dir() else [self.path]

    def _write(self, file: IO[bytes], rows: Iterator[Row]) -> None:
        write_rows(file, self.kind, self.columns, map(self.thresholds.judge, rows))

    def _write_manifest(self, content: Row) -> None:
        own = {"options": self.options, "thresholds": self.thresholds._asdict()}
        write_json(self.manifest, content | own)

    def close(self) -> None:
        """Close the journal; what is in it stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk has been reported by add()
                self._file.close()
            self._file = None

    def _open_journal(self) -> None:
        header = json.dumps({"options": self.options, "shards": self._shards})
        self._file = open_journal(self.journal, header)
        self._in_journal = 0

    def _shards_in_journal(self) -> int:
        header: Row = next(read_records(self.journal), {})
        return int(header.get("shards", 0))

    def _journal_rows(self) -> Iterator[Row]:
        records = read_records(self.journal)
        next(records, None)  # the header
        return records

    def _write_shard(self) -> None:
        with write_whole(self.path / f"part-{self._shards:05d}.parquet") as file:
            self._write(file, self._journal_rows())
        self._shards += 1
        self.close()
        self.journal.unlink()
        self._open_journal()


def read_identity(path: Path) -> Row | None:
    """Return the options that decided the scores of a finished result, and its ``model``; None if nothing says them."""
    manifest = path / "_manifest.json" if path.is_dir() else path.with_name(f"{path.name}.json")
    if not manifest.is_file():
        return None
    content = read_json(manifest)
    options = content.get("options", {}) if isinstance(content, dict) else {}
    return options | {"model": content.get("model")} if "weights_sha256" in options else None
