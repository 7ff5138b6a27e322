"""Camera raw files: small ones are written here as each maker lays them out."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import box, encode
from PIL import Image

from lifeiqa_plugin.images.binary import Binary
from lifeiqa_plugin.images.raw import CANON_PREVIEW, CANON_TAGS, RAF, find_preview, is_raw
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.refusals import ImageError


def jpeg(width: int, height: int, orientation: int = 0) -> bytes:
    """Return a JPEG whose upper half is red and whose lower half is blue."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (0, height // 2, width, height))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    return encode(image, "JPEG", quality=30, exif=exif)


LARGE = jpeg(1300, 900)
MIDDLE = jpeg(1280, 800)
THUMB = jpeg(160, 120)


class Tiff:
    """A TIFF file that grows at its end."""

    def __init__(self, order: str = "<", magic: bytes = b"") -> None:
        self.order = order
        self.content = (magic or (b"II*\0" if order == "<" else b"MM\0*")) + bytes(4)
        self.link = 4

    def put(self, data: bytes) -> int:
        start = len(self.content)
        self.content += data
        return start

    def directory(self, tags: dict[int, tuple[int, list[int] | bytes]]) -> int:
        sizes = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I"}
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            data = (
                values
                if isinstance(values, bytes)
                else struct.pack(f"{self.order}{len(values)}{sizes[kind]}", *values)
            )
            inline = data.ljust(4, b"\0")
            if len(data) > 4:
                inline = struct.pack(f"{self.order}I", self.put(data))
            entries += struct.pack(f"{self.order}HHI", tag, kind, len(values)) + inline
        return self.put(struct.pack(f"{self.order}H", len(tags)) + entries + bytes(4))

    def chain(self, tags: dict[int, tuple[int, list[int] | bytes]]) -> None:
        start = self.directory(tags)
        number = struct.pack(f"{self.order}I", start)
        self.content = self.content[: self.link] + number + self.content[self.link + 4 :]
        self.link = start + 2 + 12 * len(tags)


def preview(tiff: Tiff, content: bytes) -> dict[int, tuple[int, list[int]]]:
    return {513: (4, [tiff.put(content)]), 514: (4, [len(content)])}


def strip(tiff: Tiff, content: bytes, compression: int) -> dict[int, tuple[int, list[int]]]:
    return {259: (3, [compression]), 273: (4, [tiff.put(content)]), 279: (4, [len(content)])}


def nef() -> bytes:
    tiff = Tiff(">")
    large = tiff.directory(preview(tiff, LARGE))
    sensor = tiff.directory({259: (3, [34713]), 262: (3, [32803])})
    thumb = strip(tiff, bytes(999), 1) | {274: (3, [6]), 330: (4, [large, sensor])}
    tiff.chain(thumb)
    return tiff.content


def cr2() -> bytes:
    tiff = Tiff()
    tiff.put(b"CR\2\0" + bytes(4))
    tiff.chain(strip(tiff, LARGE, 6) | {274: (3, [6])})
    tiff.chain(preview(tiff, THUMB))
    tiff.chain(strip(tiff, b"\xff\xd8\xff\xc3" + bytes(500), 6))
    return tiff.content


def arw() -> bytes:
    tiff = Tiff()
    sensor = tiff.directory({259: (3, [32767]), 262: (3, [32803])})
    tiff.chain(preview(tiff, LARGE) | {274: (3, [6]), 330: (4, [sensor])})
    tiff.chain(preview(tiff, THUMB))
    return tiff.content


def dng() -> bytes:
    tiff = Tiff()
    inner = [tiff.directory(strip(tiff, content, 7)) for content in (MIDDLE, LARGE)]
    tiff.chain({274: (3, [6]), 330: (13, inner), 50706: (1, b"\1\4\0\0")})
    return tiff.content


def rw2() -> bytes:
    tiff = Tiff("<", b"IIU\0")
    tiff.chain({0x2E: (7, LARGE), 274: (3, [6])})
    return tiff.content


def orf() -> bytes:
    shift = 2 + 12 + 4  # the directory stands first
    note = Tiff("<", b"OLYM")
    note.content = b"OLYMPUS\0II\3\0" + bytes(shift)
    start = note.put(LARGE)
    settings = note.directory({0x101: (4, [start]), 0x102: (4, [len(LARGE)])})
    entries = struct.pack("<HHHII", 1, 0x2020, 13, 1, settings) + bytes(4)
    body = note.content[:12] + entries + note.content[12 + shift :]
    tiff = Tiff("<", b"IIRO")
    exif = tiff.directory({37500: (7, body)})
    tiff.chain({274: (3, [6]), 34665: (4, [exif])})
    return tiff.content


def pef() -> bytes:
    tiff = Tiff(">")
    tiff.chain({259: (3, [65535]), 262: (3, [32803]), 274: (3, [6])})
    tiff.chain(preview(tiff, THUMB))
    tiff.chain(preview(tiff, LARGE))
    return tiff.content


def raf() -> bytes:
    head = RAF.ljust(84, b"0") + struct.pack(">2I", 200, len(jpeg(1300, 900, 6)))
    return head.ljust(200, b"\0") + jpeg(1300, 900, 6) + bytes(500)


def cr3(is_64: bool = True) -> bytes:
    tags = Tiff()
    tags.chain({274: (3, [6])})
    start = box(b"ftyp", b"crx \0\0\0\1crx isom")
    preview_box = box(b"uuid", CANON_PREVIEW, bytes(8), box(b"PRVW", bytes(16), MIDDLE))

    def moov(at: int) -> bytes:
        place = struct.pack(">Q" if is_64 else ">I", at)
        table = box(
            b"stbl",
            box(b"stsz", bytes(4), struct.pack(">2I", len(LARGE), 1)),
            box(b"co64" if is_64 else b"stco", bytes(4), struct.pack(">I", 1), place),
        )
        canon = box(b"uuid", CANON_TAGS, box(b"CMT1", tags.content))
        return box(b"moov", canon, box(b"trak", box(b"mdia", box(b"minf", table))))

    at = len(start + moov(0) + preview_box) + 8
    return start + moov(at) + preview_box + box(b"mdat", LARGE)


RAWS = {
    "a.NEF": nef(), "a.CR2": cr2(), "a.ARW": arw(), "a.DNG": dng(), "a.RW2": rw2(), "a.ORF": orf(), "a.PEF": pef(),
    "a.RAF": raf(), "a.CR3": cr3(), "b.CR3": cr3(False),
}  # fmt: skip


@pytest.mark.parametrize("name", RAWS)
def test_the_largest_embedded_jpeg_is_looked_at_and_turned(tmp_path, name):
    (tmp_path / name).write_bytes(RAWS[name])
    decoded = decode(tmp_path / name)
    assert (decoded.width, decoded.height) == (900, 1300)
    assert decoded.notes == ("source: embedded JPEG 1300 x 900",)
    right, left = decoded.pixels[600, 800].astype(int), decoded.pixels[600, 100].astype(int)
    assert right[0] > 200 > 100 > right[2]  # orientation 6: what was above is on the right
    assert left[2] > 200 > 100 > left[0]


@pytest.mark.parametrize("name", RAWS)
def test_content_tells_a_raw_file(name):
    with Binary(RAWS[name]) as data:
        assert is_raw(data)


def test_ordinary_tiffs_are_none(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.tif")
    with Binary(tmp_path / "a.tif") as data:
        assert not is_raw(data)
        assert is_raw(data, "a.NEF")
    assert decode(tmp_path / "a.tif").notes == ()


def test_a_jpeg_that_no_directory_names_is_searched_for():
    decoded = decode(b"FOVb" + bytes(96) + THUMB + LARGE + bytes(50))
    assert (decoded.width, decoded.height) == (1300, 900)


def test_its_own_orientation_comes_first():
    tiff = Tiff()
    tiff.chain(preview(tiff, jpeg(1300, 900, 3)) | {274: (3, [6]), 50706: (1, b"\1\4\0\0")})
    assert decode(tiff.content).pixels[800, 600].argmax() == 0  # on its head: red is below


def test_a_large_jpeg_is_needed():
    tiff = Tiff()
    tiff.chain(preview(tiff, THUMB) | {50706: (1, b"\1\4\0\0")})
    message = r"camera raw, .* there is only one of 160 x 120 \(at least 1 megapixel is needed\); develop it to JPEG"
    with pytest.raises(ImageError, match=message):
        decode(tiff.content)
    with pytest.raises(ImageError, match="there is none"):
        decode(RAF + bytes(500))


def test_half_an_embedded_jpeg_is_refused():
    noise = np.random.default_rng(0).integers(0, 255, (900, 1300, 3), dtype=np.uint8)
    whole = encode(noise, "JPEG")
    half = whole[: len(whole) // 2]
    tiff = Tiff()
    tiff.chain(preview(tiff, half + b"\xff\xd9") | {50706: (1, b"\1\4\0\0")})
    with pytest.raises(ImageError, match=r"damaged image \(the last 5\d % of it are missing\)"):
        decode(tiff.content)


def test_directories_in_a_circle_end():
    tiff = Tiff()
    tiff.chain({330: (4, [8, 8, 8]), 50706: (1, b"\1\4\0\0")})
    with Binary(tiff.content) as data:
        assert is_raw(data)
        assert find_preview(data) is None


SMALL = {
    name: content.replace(LARGE, THUMB).replace(MIDDLE, THUMB) for name, content in RAWS.items()
}


@given(st.sampled_from(sorted(SMALL)), st.data())
def test_hostile_raw_files_are_read_or_refused(name, data):
    content = bytearray(SMALL[name])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 4))
        content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    content = content[: data.draw(st.integers(16, len(content)))]
    with Binary(bytes(content)) as binary:
        is_raw(binary, name)
        found = find_preview(binary)
    assert found is None or (found.content[:2] == b"\xff\xd8" and found.width * found.height > 0)
