"""Where rows go: a journal that grows line by line, then files put in place whole, and a manifest last.

A single result ``scores.csv`` has its journal in ``scores.csv.partial`` and its manifest in ``scores.csv.json``. Shards
``scores.parquet/part-00000.parquet`` have theirs beside them, as ``_partial.jsonl`` and ``_manifest.json``, and the
result ``scores/00000.parquet`` of one archive among others as ``_00000.parquet.partial`` and ``_00000.parquet.json``:
readers of folders of Parquet leave such names out. Whatever ends the process, what stands in the journal is scored.
A journal with a first line counts for more than a manifest: the result is open again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lifeiqa_plugin.arguments import UsageError, check_target
from lifeiqa_plugin.journal import Journal, read_first, read_json, write_json, write_whole
from lifeiqa_plugin.scoring.rows import (
    FORMATS,
    Row,
    Thresholds,
    column_names,
    read_own_rows,
    write_rows,
)

FORMAT = 2
"""Of journals and manifests. The first had no number, and told images apart by their names alone."""


class Output:
    """A result that is there, is begun, or is to be made.

    Args:
        path: file to write, or folder of shards.
        options: what the scores depend on; rows of other options are never mixed.
        inputs: the arguments whose images have rows.
        thresholds: of the verdicts, which are added when rows are put in place: other thresholds need no scoring again.
        shard_rows: rows of a shard; None for one file.
        of_archive: this is the result of one archive in a folder of such results, with a column ``key``.

    Raises:
        UsageError: the name says no format, something else is there, or there is no permission.
    """

    def __init__(
        self,
        path: Path,
        options: Row,
        inputs: list[str],
        thresholds: Thresholds,
        shard_rows: int | None = None,
        of_archive: bool = False,
    ) -> None:
        if shard_rows is None:
            check_target(path)
        self.path, self.shard_rows, self.kind = path, shard_rows, path.suffix
        self.thresholds, self.of_archive = thresholds, of_archive
        self.options = json.loads(json.dumps(options | {"shard_rows": shard_rows}))
        self.inputs = inputs
        if self.kind not in FORMATS:
            raise UsageError(f"-o {path}: the name must end in {', '.join(FORMATS)}")
        if self.kind != ".parquet" and shard_rows is not None:
            raise UsageError(f"-o {path}: shards are Parquet; the name must end in .parquet")
        inside = shard_rows is not None
        if inside and path.is_file():
            raise UsageError(
                f"-o {path}: a file; --shard-rows writes a folder, so give another name"
            )
        name = f"_{path.name}" if of_archive else path.name
        self.journal = path / "_partial.jsonl" if inside else path.with_name(f"{name}.partial")
        self.manifest = path / "_manifest.json" if inside else path.with_name(f"{name}.json")

    def find_finished(self, append: bool) -> Row | None:
        """Return the manifest if the result is there and not open again; with ``append``, other inputs may be added.

        Raises:
            UsageError: something is there that other options, inputs or versions made, or something else.
        """
        header = read_first(self.journal)
        if header is not None:
            self._compare(header, "begun", append)
            return None
        if self.manifest.is_file():
            about: Row = read_json(self.manifest)
            self._compare(about, "made", append)
            return about if self.path.exists() else None
        empty_folder = self.path.is_dir() and not set(self.path.iterdir()) - {self.journal}
        if self.path.exists() and not (self.shard_rows is not None and empty_folder):
            raise UsageError(f"{self.path} exists; give --overwrite, or another name with -o")
        return None

    def _compare(self, before: Row, what: str, append: bool) -> None:
        """Compare the first line of a journal, or a manifest, with what would stand there now."""
        other = "give --overwrite, or another name with -o"
        if not isinstance(before, dict) or "options" not in before:
            raise UsageError(f"{self.manifest} is no manifest of 'lifeiqa score'; {other}")
        if before.get("format") != FORMAT:
            raise UsageError(
                f"{self.path} was {what} by version 0.1, which did not note the weights that ran; "
                f"'lifeiqa report' reads what is finished, but nothing can be added: {other}"
            )
        options = before["options"]
        if options != self.options:
            names = [
                name
                for name in self.options | options
                if options.get(name) != self.options.get(name)
            ]
            differ = ", ".join(f"{name} {options.get(name)!r}" for name in names)
            raise UsageError(f"{self.path} was {what} with other options ({differ}); {other}")
        if before["inputs"] != self.inputs and not append:
            raise UsageError(
                f"{self.path} was {what} of other inputs ({' '.join(before['inputs'])}); "
                f"--append adds these, --overwrite begins again"
            )

    @contextmanager
    def open(self, distortions: Iterable[str], overwrite: bool = False) -> Iterator[None]:
        """Keep other processes from the result, and make it one that is begun, until the block ends.

        Args:
            distortions: names of further columns.
            overwrite: delete what is there.

        Raises:
            OSError: no permission, no space, or another process is writing it.
            ValueError: the journal is damaged.
        """
        own = ["key"] if self.of_archive else []
        self.columns = [*own, *column_names(distortions), "size", "mtime"]
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(Journal(self.journal)) as self._journal:
            if overwrite:
                self._delete()
            self._begin()
            yield

    def _delete(self) -> None:
        """Remove the result; the journal, which is locked, becomes empty."""
        for path in (self.manifest, *(self._parts() if self.shard_rows else [self.path])):
            path.unlink(missing_ok=True)
        self._journal.replace([])

    def _begin(self) -> None:
        """Move the rows of a finished result into the journal, or go on with one; see what has to be written again."""
        before, rows = self._find_before()
        self.inputs = list(dict.fromkeys([*before.get("inputs", []), *self.inputs]))
        if self._parts() and before.get("thresholds") != self.thresholds._asdict():
            self._replace(rows, thresholds=None)  # as long as not all parts have the new verdicts
            for part in self._parts():
                self._write(part, read_own_rows(part), _count_rows(part))
            rows = self._journal_rows()
        if before != self._header():
            self._replace(rows)
        self._count()

    def _find_before(self) -> tuple[Row, Iterator[Row]]:
        """Return the first line of the journal, or the manifest, and the rows for the journal."""
        header = next(iter(self._journal), None)
        parts = self._parts()
        if header is not None:  # of fewer shards: it ended before it cleared the rows of the last
            return header, iter(()) if header["shards"] < len(parts) else self._journal_rows()
        if not (self.manifest.is_file() and self.path.exists()):
            return {}, iter(())
        return read_json(self.manifest), iter(()) if parts else read_own_rows(self.path)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that are there; none may be added meanwhile."""
        for part in self._parts():
            yield from read_own_rows(part)
        yield from self._journal_rows()

    def add(self, row: Row) -> None:
        """Add a row; it survives the end of this process, whatever ends it.

        Raises:
            OSError: no space; something else changed the files.
        """
        self._journal.add(row)
        self.rows += 1
        self._in_journal += 1
        if self.shard_rows is not None and self._in_journal >= self.shard_rows:
            self._write_part()

    def drop(self, is_out: Callable[[Row], Any]) -> None:
        """Take out rows."""
        for part in self._parts():
            kept = list(itertools.filterfalse(is_out, read_own_rows(part)))
            if len(kept) < _count_rows(part):
                self._write(part, iter(kept), len(kept))
        self._replace(itertools.filterfalse(is_out, self._journal_rows()))
        self._count()

    def finish(self, summary: Row) -> None:
        """Put the files in place, the manifest last.

        Raises:
            OSError: no space; the rows are not as many as were added, and then all is left as it is.
        """
        if self.shard_rows is None:
            self._write(self.path, self._journal_rows(), self.rows)
        else:
            if self._in_journal:
                self._write_part()
            self._check_count(sum(map(_count_rows, self._parts())), self.rows)
        write_json(self.manifest, self._about() | {"columns": self.columns} | summary)
        self._journal.remove()

    def _about(self) -> Row:
        return {
            "format": FORMAT,
            "options": self.options,
            "inputs": self.inputs,
            "thresholds": self.thresholds._asdict(),
        }

    def _header(self) -> Row:
        return self._about() | {"shards": len(self._parts())}

    def _replace(self, rows: Iterable[Row], **other: None) -> None:
        """Put other rows into the journal."""
        self._journal.replace(itertools.chain([self._header() | other], rows))

    def _count(self) -> None:
        self._in_journal = sum(1 for _ in self._journal_rows())
        self.rows = self._in_journal + sum(map(_count_rows, self._parts()))

    def _journal_rows(self) -> Iterator[Row]:
        return itertools.islice(self._journal, 1, None)

    def _parts(self) -> list[Path]:
        """Return the shards that are full."""
        return sorted(self.path.glob("part-*.parquet")) if self.shard_rows is not None else []

    def _write_part(self) -> None:
        numbers = [int(part.stem.removeprefix("part-")) for part in self._parts()]
        name = f"part-{max(numbers, default=-1) + 1:05d}.parquet"
        self._write(self.path / name, self._journal_rows(), self._in_journal)
        self._replace([])
        self._in_journal = 0

    def _write(self, path: Path, rows: Iterator[Row], expected: int) -> None:
        numbers = itertools.count()
        counted = (self.thresholds.judge(row) for row, _ in zip(rows, numbers, strict=False))
        with write_whole(path) as file:
            write_rows(file, self.kind, self.columns, counted)
            self._check_count(next(numbers), expected)

    def _check_count(self, found: int, expected: int) -> None:
        if found != expected:
            raise OSError(
                f"{self.path}: {found} rows instead of {expected}, so something else changed the files; "
                "all are left as they are, and --overwrite begins again"
            )


def _count_rows(part: Path) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(part).num_rows)


def read_identity(path: Path) -> Row | None:
    """Return the options that decided the scores of a finished result, and its ``model``; None if nothing says them."""
    manifest = path / "_manifest.json" if path.is_dir() else path.with_name(f"{path.name}.json")
    if not manifest.is_file():
        return None
    content = read_json(manifest)
    options = content.get("options", {}) if isinstance(content, dict) else {}
    return options | {"model": content.get("model")} if "weights_sha256" in options else None
