"""What the arguments of ``lifeiqa score`` stand for, and what is said of those that cannot be read to their end."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import sys
import tarfile
import threading
from pathlib import Path

import pandas as pd
import pytest
from pyarrow import parquet

from lifeiqa_plugin import score as score_images
from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.images.refusals import ImageError
from lifeiqa_plugin.scoring.inputs import Inputs, Shard, split


def found(*texts: str, **options) -> list[tuple[str, str | None]]:
    """Names of the images of arguments, with the reason of those that are errors."""
    images = Inputs(texts, **options).images()
    return [
        (one.name, one.source.reason if isinstance(one.source, ImageError) else None)
        for one in images
    ]


@pytest.fixture
def here(photos, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


LISTS = {
    "plain": b"photos/0.png\n\nphotos/1.png",
    "from Windows": b"photos/0.png\r\nphotos/1.png\r\n",
    "BOM": b"\xef\xbb\xbfphotos/0.png\nphotos/1.png\n",
    "NUL": b"photos/0.png\0photos/1.png\0",
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_lists(here, content, monkeypatch):
    Path("list.txt").write_bytes(content)
    both = [("photos/0.png", None), ("photos/1.png", None)]
    assert found("list.txt") == both
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert found("-") == both


def test_a_name_with_a_line_feed_between_nul(here):
    Path("two\nlines.png").write_bytes(b"")
    Path("list.txt").write_bytes(b"two\nlines.png\0photos/0.png\0")
    assert found("list.txt") == [("two\\nlines.png", None), ("photos/0.png", None)]


def test_a_long_list_is_read_in_parts():
    lines = [b"%d.png" % i for i in range(30_000)]
    for separator in (b"\n", b"\0"):
        assert list(split(io.BytesIO(separator.join(lines)), "")) == lines


def test_a_list_in_utf_16(here):
    Path("list.txt").write_bytes("photos/0.png\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"^list\.txt: a list in UTF-16; save it as UTF-8$"):
        found("list.txt")


def test_a_column_of_a_table_that_a_list_names(here):
    pd.DataFrame({"a": ["photos/0.png"], "path": ["photos/1.png"]}).to_parquet("t.parquet")
    Path("list.txt").write_text("t.parquet\n")
    assert found("list.txt", column="a") == [("photos/0.png", None)]
    assert found("*.parquet", column="a") == [("photos/0.png", None)]


def test_a_table_of_a_list_that_cannot_be_read_is_a_row(here):
    Path("t.parquet").write_text("nothing")
    Path("list.txt").write_text("t.parquet\nphotos/0.png\n")
    (name, reason), (other, nothing) = found("list.txt")
    assert (name, other, nothing) == ("t.parquet", "photos/0.png", None)
    assert reason.startswith("t.parquet: cannot be read as Parquet (")
    assert Inputs(["list.txt"]).count() == 2


def test_a_table_that_is_damaged_further_on(here):
    """In its second group of rows."""
    pd.DataFrame({"jpg": [bytes([i]) for i in range(128)]}).to_parquet(
        "t.parquet", row_group_size=64
    )
    begin = parquet.read_metadata("t.parquet").row_group(1).column(0).dictionary_page_offset
    damaged = bytearray(Path("t.parquet").read_bytes())
    damaged[begin : begin + 10] = b"\xff" * 10
    Path("t.parquet").write_bytes(damaged)
    *rows, (name, reason) = found("t.parquet")
    assert rows == [(f"t.parquet/{i}", None) for i in range(64)]
    assert name == "t.parquet"
    assert reason.startswith("table cannot be read further (")


def closed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a folder be one that may not be listed; tests may run as root, who may list all."""
    scandir = os.scandir

    def list_others(folder):
        if os.fspath(folder) == path:
            raise PermissionError(13, "Permission denied", path)
        return scandir(folder)

    monkeypatch.setattr("os.scandir", list_others)


def test_a_folder_that_cannot_be_listed_is_a_row(here, monkeypatch, engine):
    closed("photos/below", monkeypatch)
    expected = [(f"photos/{i}.png", None) for i in range(8)]
    expected.append(("photos/below", "folder cannot be listed (Permission denied)"))
    assert found("photos") == expected
    assert Inputs(["photos"]).count() == 9
    rows = list(score_images("photos", engine=engine))
    assert [(row.name, row.error) for row in rows] == expected


def test_a_folder_that_cannot_be_listed_at_all(here, monkeypatch):
    closed("photos", monkeypatch)
    assert found("photos") == [("photos", "folder cannot be listed (Permission denied)")]


def test_a_folder_below_so_many_that_its_path_is_too_long(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    depth = 1100
    for _ in range(depth):
        os.mkdir("deeper")
        os.chdir("deeper")
    Path("a.png").write_bytes(b"")
    os.chdir(tmp_path)
    Path("deeper/b.png").write_bytes(b"")
    try:
        (first, fine), (second, reason) = found(".")
        assert (first, fine) == ("./deeper/b.png", None)
        assert second.startswith("./deeper/deeper/")
        assert reason == "folder cannot be listed (File name too long)"
    finally:
        for _ in range(depth - 1):  # shutil.rmtree needs whole paths
            os.rename("deeper/deeper", "next")
            for path in Path("deeper").iterdir():
                path.unlink()
            os.rmdir("deeper")
            os.rename("next", "deeper")


def to_tar(names: list[str], **options) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 700
            archive.addfile(info, io.BytesIO(bytes(range(250)) * 2 + bytes(200)))
    return file.getvalue()


WHOLE = to_tar(["a.png", "notes.txt", "b.png"])
MEMBER = 512 + 1024
END = 3 * MEMBER


def damage(at: int, length: int = 1) -> bytes:
    content = bytearray(WHOLE)
    content[at : at + length] = bytes(length) if length > 1 else bytes([content[at] ^ 1])
    return bytes(content)


TARS = {
    "whole": (WHOLE, 2, None),
    "with one of the blocks that end it": (WHOLE[: END + 512], 2, None),
    "without its end": (WHOLE[:END], 2, "cut off: it has no end"),
    "cut off in the end": (WHOLE[: END + 100], 2, "damaged or cut off: truncated header"),
    "cut off in a header": (WHOLE[: 2 * MEMBER + 7], 1, "damaged or cut off: truncated header"),
    "cut off between members": (WHOLE[: 2 * MEMBER], 1, "cut off: it has no end"),
    "cut off in an image": (WHOLE[: 2 * MEMBER + 600], 1, "unexpected end of data"),
    "cut off in another file": (WHOLE[: MEMBER + 600], 1, "unexpected end of data"),
    "a header with a wrong bit": (damage(MEMBER + 20), 1, "damaged or cut off: bad checksum"),
    "a size with a wrong bit": (damage(MEMBER + 126), 1, "damaged or cut off: bad checksum"),
    "a header of zeros": (damage(MEMBER, 512), 1, "more follows what looks like its end"),
    "two, one after the other": (WHOLE + WHOLE, 2, "more follows what looks like its end"),
    "nothing": (b"", 0, "cut off: it has no end"),
    "no tar": (b"nothing" * 200, 0, "damaged or cut off: invalid header"),
}


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_the_end_of_a_tar_is_looked_at(here, kind, pack):
    content, number, problem = TARS[kind]
    Path("a.tar").write_bytes(pack(content))
    expected = [("a.tar/a.png", None), ("a.tar/b.png", None)][:number]
    rows = found("a.tar")
    assert rows[:number] == expected
    if problem is None:
        assert len(rows) == number
    else:
        assert rows[number:] == [("a.tar", f"archive cannot be read further ({problem})")]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("how", ["cut", "flip"])
def test_a_packed_tar_that_is_damaged(here, pack, how):
    """Wherever that is: its last bytes are a checksum, too."""
    whole = pack(to_tar(["a.png"]))
    for at in range(len(whole) * 2 // 3, len(whole) - 1, 7):
        content = bytearray(whole)
        if how == "cut":
            del content[at:]
        else:
            content[at] ^= 255
        Path("a.tar").write_bytes(content)
        assert found("a.tar")[-1][0] == "a.tar", at


def test_what_is_seen_of_inputs_changes_with_them(here):
    """The digest that tells a finished result from one whose inputs have changed."""
    Path("a.tar").write_bytes(WHOLE)
    Path("list.txt").write_text("photos/1.png\nphotos/1.png\n")
    texts = ["photos", "a.tar", "list.txt"]
    inputs = Inputs(texts, shard=Shard(1, 3))
    list(inputs.images())
    digests = {inputs.seen, Inputs(texts).look()}
    assert len(digests) == 1
    os.utime("a.tar", (1, 1))
    digests.add(Inputs(texts).look())
    Path("photos/below/8.png").rename("photos/below/7.png")
    digests.add(Inputs(texts).look())
    Path("list.txt").write_text("photos/1.png\n")
    digests.add(Inputs(texts).look())
    os.utime("photos/2.png", (1, 1))
    digests.add(Inputs(texts).look())
    assert len(digests) == 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("written", [None, 0, 15])
def test_an_archive_on_a_file_system_that_does_not_answer(here, monkeypatch, written):
    """Neither as it is opened nor further on: a pipe stands for it. What comes after it is read."""
    monkeypatch.setattr("lifeiqa_plugin.scoring.in_time.LIMIT", 0.3)
    os.mkfifo("a.tar")
    end = None if written is None else os.open("a.tar", os.O_RDWR)
    if end is not None:
        os.write(end, to_tar([f"{i}.png" for i in range(20)])[: written * MEMBER])
    rows = found("a.tar", "photos/1.png")
    free = end if end is not None else os.open("a.tar", os.O_RDWR)
    os.write(free, bytes(1 << 16))  # let the thread go on that still waits
    os.close(free)
    reason = (
        "archive cannot be read further "
        f"([Errno {errno.ETIMEDOUT}] the file system gave no answer within 0.3 s)"
    )
    first = (
        [(f"a.tar/{i}.png", None) for i in range(13)] if written else []
    )  # of two blocks of 10 KiB
    assert rows == [*first, ("a.tar", reason), ("photos/1.png", None)]


def test_a_file_that_cannot_be_looked_at_in_time(here, monkeypatch):
    monkeypatch.setattr("lifeiqa_plugin.scoring.in_time.LIMIT", 0.2)
    wake = threading.Event()
    stat = os.stat

    def hang(path, **options):
        if path == "photos/1.png":
            wake.wait()
        return stat(path, **options)

    monkeypatch.setattr("os.stat", hang)
    images = list(Inputs(["photos"]).images())
    wake.set()
    assert [one.name for one in images if one.mtime is None] == ["photos/1.png"]
    assert len(images) == 10
