"""Runs that are killed, cut off, disturbed and gone on with, against a plain model of the rows that must come out."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from PIL import Image

from lifeiqa_plugin import cli
from lifeiqa_plugin.runtimes import Choice
from lifeiqa_plugin.scoring.rows import Thresholds, read_own_rows
from lifeiqa_plugin.scoring.score import Scorer

from .conftest import Brightness

pytest.importorskip("fcntl")  # without locks a second writer is not kept out

HISTORIES = int(os.environ.get("LIFEIQA_HISTORIES", "0"))
"""Set it to some thousand to try so many long random histories, instead of the same few short ones each time."""

NAMES = ("a.png", "b.png", "below/a.png", "c.png")
LEVELS = st.integers(0, 255)
MEMBERS = st.lists(
    st.tuples(st.sampled_from(("x.png", "y.png", "z.txt")), LEVELS), min_size=1, max_size=4
)
DAMAGES = st.sampled_from(("flip", "zero", "cut", "none"))
WHERE = st.floats(0, 1, exclude_max=True)
LISTED = st.lists(st.sampled_from(NAMES), max_size=4)


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def to_png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (64, 64), level).save(file, "png")
    return file.getvalue()


class Runs(RuleBasedStateMachine):
    """A folder, a list that may name a file twice, and a tar; one result, which is run again and again."""

    @initialize(
        out=st.sampled_from(["s.csv", "s.jsonl", "s.parquet", "shards"]),
        listed=LISTED,
        members=MEMBERS,
        how=DAMAGES,
        where=WHERE,
    )
    def begin(
        self,
        out: str,
        listed: list[str],
        members: list[tuple[str, int]],
        how: str,
        where: float,
    ) -> None:
        self.before = Path.cwd()
        self.folder = tempfile.mkdtemp()
        os.chdir(self.folder)
        self.engine = Brightness()
        choice = Choice("torch", mock.Mock(sha256="0" * 64))
        self.patches = [
            mock.patch("lifeiqa_plugin.scoring.command._choose_engine", return_value=choice),
            mock.patch(
                "lifeiqa_plugin.scoring.command.Scorer", return_value=Scorer(engine=self.engine)
            ),
            mock.patch("lifeiqa_plugin.cli._build_parser", functools.cache(cli._build_parser)),
            mock.patch("os.fsync"),
            mock.patch("lifeiqa_plugin.allocator.keep_freed_memory"),
        ]
        for patch in self.patches:
            patch.start()
        self.arguments = ["score", "photos", "list.txt", "a.tar", "--workers", "0", "-o", out]
        self.out = Path(out)
        self.journal, self.manifest = Path(f"{out}.partial"), Path(f"{out}.json")
        if out == "shards":
            self.out = Path("s.parquet")
            self.arguments[-1:] = ["s.parquet", "--shard-rows", "3"]
            self.journal, self.manifest = self.out / "_partial.jsonl", self.out / "_manifest.json"
        self.clock = 1_700_000_000
        self.finished_with: object = None
        Path("photos/below").mkdir(parents=True)
        self.photos: dict[str, int | None] = {}
        self.write_photo("a.png", 10)
        self.name_again(listed)
        self.write_tar(members, how, where)

    def teardown(self) -> None:
        if hasattr(self, "patches"):
            for patch in self.patches:
                patch.stop()
            os.chdir(self.before)
            shutil.rmtree(self.folder)

    def put(self, path: str, content: bytes) -> None:
        """Write a file with a time of its own, as every later change of a file has."""
        Path(path).write_bytes(content)
        self.clock += 1
        os.utime(path, (self.clock, self.clock))

    @rule(name=st.sampled_from(NAMES), level=st.none() | LEVELS)
    def write_photo(self, name: str, level: int | None) -> None:
        """A new file, or other content of one; without a level, no image."""
        self.photos[name] = level
        self.put(f"photos/{name}", b"broken" if level is None else to_png(level))

    @precondition(lambda self: len(self.photos) > 1)
    @rule(data=st.data())
    def remove_photo(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.photos)))
        del self.photos[name]
        Path(f"photos/{name}").unlink()

    @rule(names=LISTED)
    def name_again(self, names: list[str]) -> None:
        self.list = names
        self.put("list.txt", "".join(f"photos/{name}\n" for name in names).encode())

    @rule(members=MEMBERS, how=DAMAGES, where=WHERE)
    def write_tar(self, members: list[tuple[str, int]], how: str, where: float) -> None:
        """A tar, which may be cut off, or have a header that is changed or zero; what is before that can be read."""
        file = io.BytesIO()
        begins, ends = [], []
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, level in members:
                content = to_png(level)
                info = tarfile.TarInfo(name)
                info.size = len(content)
                begins.append(file.tell())
                ends.append(begins[-1] + tarfile.BLOCKSIZE + len(content))
                archive.addfile(info, io.BytesIO(content))
            whole = file.tell() + tarfile.BLOCKSIZE  # with one of the two blocks that end it
        content = bytearray(file.getvalue())
        limit = len(content)
        if how == "cut":
            limit = int(where * whole)
            del content[limit:]
        elif how != "none":
            limit = begins[int(where * len(begins))]
            content[limit + 3] ^= 1
            if how == "zero":
                content[limit : limit + 512] = bytes(512)
        self.tar: list[tuple[str, int | None]] = [
            (f"a.tar/{name}", level)
            for (name, level), end in zip(members, ends, strict=True)
            if end <= limit and name.endswith(".png")
        ]
        if limit < whole:
            self.tar.append(("a.tar", None))
        self.put("a.tar", bytes(content))

    def expected(self) -> list[tuple[str, int | None]]:
        """What the inputs hold now, in their order: a name, and a level or None for an error."""
        names = sorted(self.photos, key=lambda name: ("/" in name, name))
        photos = [(f"photos/{name}", self.photos[name]) for name in names]
        listed = [(f"photos/{name}", self.photos.get(name)) for name in self.list]
        return photos + listed + self.tar

    def fingerprint(self) -> object:
        photos = {name: os.stat(f"photos/{name}").st_mtime for name in self.photos}
        return photos, list(self.list), os.stat("a.tar").st_mtime

    def rows(self) -> list[tuple[str, int | None]]:
        """What the result and its journal hold now, as ``expected`` has it."""
        found = []
        lines = self.journal.read_bytes().split(b"\n")[:-1] if self.journal.exists() else []
        if lines:
            found = [json.loads(line) for line in lines[1:]]
        if self.out.is_dir() or (self.out.exists() and not lines):
            parts = sorted(self.out.glob("part-*")) if self.out.is_dir() else [self.out]
            stale = lines and json.loads(lines[0])["shards"] < len(parts)
            found = [row for part in parts for row in read_own_rows(part)] + found * (not stale)
        return [
            (row["path"], None if row.get("error") else round(row["score"] * 255)) for row in found
        ]

    def run(
        self,
        *flags: str,
        disturb: Callable[[], None] | None = None,
        at: int | None = None,
        die_at: int | None = None,
    ) -> int:
        """Run the command; ``disturb`` is called when the engine gets the image of that number."""
        calls = iter(range(10**6))
        plain = Brightness.score

        def score(batch):
            number = next(calls)
            if number == at:
                disturb()
            if number == die_at:
                raise Killed
            return plain(self.engine, batch)

        self.engine.score = score
        self.engine.batches.clear()
        return cli.main([*self.arguments, *flags])

    def is_begun(self) -> bool:
        return self.journal.exists() and b"\n" in self.journal.read_bytes()

    def check_finished(
        self, before: list[tuple[str, int | None]], code: int, keep: float = 0.6
    ) -> None:
        """See that all rows are there, none twice, and no journal; scores of files that are gone stay."""
        expected = self.expected()
        there = {name for name, _ in expected}
        gone = Counter(row for row in before if row[0] not in there and row[1] is not None)
        rows = self.rows()
        assert Counter(rows) == Counter(expected) + gone
        assert not self.is_begun()
        assert json.loads(self.manifest.read_text())["rows"] == len(rows)
        assert code == (3 if any(level is None for _, level in rows) else 0)
        for row in read_own_rows(self.out):
            assert row["verdict"] == Thresholds(keep).judge(row)["verdict"]
        self.finished_with = self.fingerprint()

    @rule(
        flags=st.sampled_from([(), ("--append",), ("--retry-failed",), ("--overwrite",)]),
        keep=st.sampled_from([0.6, 0.4]),
    )
    def run_to_the_end(self, flags: tuple[str, ...], keep: float) -> None:
        before = self.rows() if flags != ("--overwrite",) else []
        is_begun, manifest = self.is_begun(), self.manifest.exists()
        code = self.run(*flags, "--keep", str(keep))
        is_finished = manifest and not is_begun and flags in ((), ("--retry-failed",))
        if is_finished and self.finished_with != self.fingerprint():
            assert code == 2
            assert self.rows() == before
            return
        self.check_finished(before, code, keep)
        if flags != ("--retry-failed",):
            assert len(self.engine.batches) <= len(self.expected())
        if not before:
            assert self.rows() == self.expected()  # in their order
        if manifest and not is_begun and flags == ():
            assert self.engine.batches == []

    @rule(at=st.integers(0, 5), tear=st.integers(0, 40), again=st.booleans())
    def run_and_kill(self, at: int, tear: int, again: bool) -> None:
        """Killed at an image; the last line may be cut. What was there before is there still."""
        before = self.rows()

        def die() -> None:
            raise Killed

        try:
            self.run("--overwrite" if again else "--append", disturb=die, at=at)
        except Killed:
            pass
        else:
            self.finished_with = self.fingerprint()
            return
        rows = Counter(self.rows())
        if not again:
            assert not Counter(before) - rows
        assert self.is_begun()
        assert len(self.engine.batches) == at
        whole = self.journal.read_bytes()
        last = whole.rindex(b"\n", 0, -1) + 1 if whole.count(b"\n") > 1 else len(whole)
        self.journal.write_bytes(whole[: max(last, len(whole) - tear)])

    @rule(at=st.integers(0, 3), flags=st.sampled_from([(), ("--append",), ("--overwrite",)]))
    def a_second_writer(self, at: int, flags: tuple[str, ...]) -> None:
        """Which is refused, whatever it asks for, and changes nothing."""
        before = self.rows()
        codes = []

        def write_too() -> None:
            there = self.rows()
            codes.append(cli.main([*self.arguments, *flags]))
            assert self.rows() == there

        code = self.run("--append", disturb=write_too, at=at)
        assert codes in ([], [1])
        self.check_finished(before, code)

    @rule(at=st.integers(1, 3))
    def a_journal_cut_while_it_grows(self, at: int) -> None:
        """The run stops and says so; nothing is put in place, and the next run scores what was cut off."""
        shown = {path: path.read_bytes() for path in (self.out, self.manifest) if path.is_file()}
        happened = []

        def cut() -> None:
            lines = self.journal.read_bytes().splitlines(keepends=True)
            if len(lines) > 1:
                self.journal.write_bytes(b"".join(lines[:-1]))
                happened.append(True)

        before = self.rows()
        code = self.run("--append", disturb=cut, at=at)
        if not happened:
            self.check_finished(before, code)
            return
        assert code == 1
        assert {path: path.read_bytes() for path in shown} == shown
        assert self.is_begun()

    @rule(at=st.integers(0, 3), die=st.booleans())
    def a_journal_removed_while_it_grows(self, at: int, die: bool) -> None:
        """It is there again before the next row is, and no row of it is lost."""
        before = self.rows()
        held: list[Counter[tuple[str, int | None]]] = []

        def remove() -> None:
            held.append(Counter(self.rows()))
            self.journal.unlink(missing_ok=True)

        try:
            code = self.run("--append", disturb=remove, at=at, die_at=at + 1 if die else None)
        except Killed:
            assert not held[0] - Counter(self.rows())
        else:
            self.check_finished(before, code)

    @rule(
        at=st.integers(0, 5),
        after=st.booleans(),
        flags=st.sampled_from([("--append",), ("--retry-failed",), ("--overwrite",)]),
    )
    def killed_at_a_move(self, at: int, after: bool, flags: tuple[str, ...]) -> None:
        """Killed before or after a file is put in its place: no score is gone that is still asked for."""
        before = Counter(self.rows())
        calls = iter(range(10**6))
        replace = os.replace

        def move(source: str, target: str) -> None:
            number = next(calls)
            if number == at and not after:
                raise Killed
            replace(source, target)
            if number == at:
                raise Killed

        try:
            with mock.patch("os.replace", move):
                code = self.run(*flags)
        except Killed:
            if flags != ("--overwrite",):
                scored = Counter(row for row in self.expected() if row[1] is not None)
                assert not (before & scored) - Counter(self.rows())
        else:
            if code != 2:
                self.finished_with = self.fingerprint()


TestRuns = Runs.TestCase
TestRuns.settings = settings(
    derandomize=not HISTORIES,
    max_examples=HISTORIES or 30,
    stateful_step_count=20 if HISTORIES else 6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
