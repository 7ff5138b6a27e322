"""What is known of an image's memory and size before it is decoded, and that it is so."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import chunk, encode
from PIL import Image, PngImagePlugin

from lifeiqa_plugin.images.memory import PROCESS
from lifeiqa_plugin.images.reading import decode, decode_resized
from lifeiqa_plugin.images.refusals import ImageError
from lifeiqa_plugin.images.stream import Named, Recipe

DOCS = Path(__file__).parents[2] / "docs" / "decoding.md"


STARTING = 0.8
"""Bytes a pixel, 3 MB here, that a process takes as it begins to decode; with Python 3.13 more than with 3.11."""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_the_peak_of_each_kind_is_what_is_stated():
    script = Path(__file__).with_name("peak_memory.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    output = subprocess.check_output([sys.executable, "-W", "ignore", script], env=environment)
    rows = [line.split("|")[1:4] for line in output.decode().splitlines()]
    assert len(rows) > 20
    for name, stated, measured in rows:
        assert f"|{name}|{stated}|" in DOCS.read_text(encoding="utf-8")
        assert float(measured) > float(stated) / 1.3, name
        assert float(measured) - STARTING < 1.3 * float(stated), name


def shape(height, width):
    return 64, 64


def icon(content: bytes) -> bytes:
    """Write an icon that says it is of 16 x 16 pixels."""
    head = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(content), 22)
    return head + content


def apple_icon(content: bytes) -> bytes:
    return b"icns" + struct.pack(">I4sI", 16 + len(content), b"ic08", 8 + len(content)) + content


LARGE = Image.new("RGB", (400, 200))

HOLDERS = {
    "a PNG in an icon": icon(encode(LARGE)),
    "a bitmap in an icon": icon(encode(Image.new("RGB", (400, 400)), "BMP")[14:]),
    "a PNG in an icon of Apple": apple_icon(encode(LARGE)),
    "a JPEG 2000 in an icon of Apple": apple_icon(encode(LARGE, "JPEG2000")),
    "a JPEG that would shrink": encode(LARGE, "JPEG"),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_pixels_are_counted_before_anything_is_decoded(kind, monkeypatch):
    monkeypatch.setattr("lifeiqa_plugin.images.reading.to_srgb", None)
    with pytest.raises(ImageError, match=r"too large \(400 x [24]00, 0 megapixels; at most 0 are"):
        decode_resized(HOLDERS[kind], shape, at_least=16, max_pixels=70_000)


def test_an_icon_as_large_as_it_says():
    decoded = decode(icon(encode(Image.new("RGB", (16, 16)))), max_pixels=256)
    assert decoded.pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_images_that_need_more_memory_are_refused(mode):
    content = encode(Image.effect_noise((2000, 1000), 50).convert(mode), "WEBP", method=0)
    needed = PROCESS + 16 * 2_000_000
    assert decode_resized(content, shape, max_memory=needed).width == 2000
    reason = "would take 92 MB of memory, of which 91 MB are allowed; shrink it, or raise the limit"
    with pytest.raises(ImageError, match=reason):
        decode_resized(content, shape, max_memory=needed - 1_000_000)
    recipe = Recipe(shape, max_memory=needed - 1_000_000)
    assert recipe(Named("a", content)).error.startswith(reason)


def test_a_jpeg_that_shrinks_needs_less_memory():
    content = encode(Image.new("RGB", (2400, 2400)), "JPEG")
    decode_resized(content, shape, at_least=600, max_memory=PROCESS + 11_000_000)
    with pytest.raises(ImageError, match="would take 102 MB"):
        decode_resized(content, shape, max_memory=PROCESS + 11_000_000)


@pytest.mark.parametrize("place", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    ("kind", "begin"),
    [(b"zTXt", b"workflow\0\0"), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"), (b"iCCP", b"name\0\0")],
)
def test_texts_and_profiles_of_some_megabytes(kind, begin, place):
    """Pillow by itself takes no such image."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    content = encode(noise)
    before = content.index(place) - 4
    text = chunk(kind, begin + zlib.compress(bytes(5 << 20)))
    decoded = decode(content[:before] + text + content[before:])
    np.testing.assert_array_equal(decoded.pixels, noise)
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20
