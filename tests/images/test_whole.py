"""Files that are not all there, and whose decoders say nothing."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import chunk, encode, png
from PIL import Image

from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.refusals import ImageError

RNG = np.random.default_rng(5)
NOISE = Image.fromarray(RNG.integers(0, 256, (96, 128, 3), dtype=np.uint8))
SMOOTH = NOISE.resize((32, 24)).resize((512, 384), Image.Resampling.BICUBIC)


def chunks_of(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, position = [], 8
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        chunks.append((kind, content[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16"])
def test_rows_that_a_png_does_not_have(mode):
    image = (
        NOISE.convert("L").point(lambda v: v * 200, "I").convert("I;16")
        if mode == "I;16"
        else NOISE.convert(mode)
    )
    chunks = chunks_of(encode(image))
    pixels = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    head = [chunk(*one) for one in chunks if one[0] not in (b"IDAT", b"IEND")]
    short = zlib.compress(pixels[: len(pixels) // 2])
    with pytest.raises(
        ImageError,
        match=r"damaged image \((the last \d\d % of it are missing|image file is trunc.*)\)",
    ):
        decode(png(*head, chunk(b"IDAT", short), chunk(b"IEND", b"")))


def test_black_rows_are_no_gap():
    image = NOISE.copy()
    image.paste("black", (0, 40, 128, 96))
    for mode in ("RGB", "L", "P", "RGBA"):
        assert decode(encode(image.convert(mode))).notes == ()


def test_the_checksum_of_the_pixels_of_a_png():
    content = bytearray(encode(NOISE))
    at = content.index(b"IDAT") + 4
    length = struct.unpack_from(">I", content, at - 8)[0]
    content[at + length] ^= 1
    with pytest.raises(ImageError, match=r"damaged image \(a checksum of its pixels is wrong\)"):
        decode(bytes(content))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_zeros_to_the_end(kind, share):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    whole = encode(SMOOTH, kind, quality=95)
    assert decode(whole).notes == ()
    kept = int(len(whole) * share)
    with pytest.raises(
        ImageError, match=r"damaged image \((the last \d+ % of its data are zeros|.+)\)"
    ):
        decode(whole[:kept] + bytes(len(whole) - kept))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "TIFF", "PNG", "GIF", "JPEG2000"])
def test_a_file_that_was_cut_is_damaged(kind):
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    whole = encode(SMOOTH, kind, **options)
    for share in (0.3, 0.6, 0.95):
        with pytest.raises(ImageError, match=r": damaged image \("):
            decode(whole[: int(len(whole) * share)])


def test_strips_of_jpeg_in_a_tiff():
    content = bytearray(encode(NOISE.resize((512, 384)), "TIFF", compression="jpeg"))
    assert decode(bytes(content)).notes == ()
    image = Image.open(io.BytesIO(content))
    starts, sizes = image.tag_v2[273], image.tag_v2[279]
    assert len(starts) > 1
    end = starts[-1] + sizes[-1]
    assert content[end - 2 : end] == b"\xff\xd9"
    content[end - 2 : end] = b"\0\0"
    with pytest.raises(
        ImageError, match=rf"damaged image \({100 / len(starts):.0f} % of it are missing\)"
    ):
        decode(bytes(content))


@pytest.mark.parametrize("share", [0.5, 1])
def test_a_webp_that_ends_in_one_color_is_whole(share):
    photo = Image.effect_noise((1000, 800), 60).convert("RGB")
    photo.paste((0, 0, 0), (0, int(800 * (1 - share)), 1000, 800))
    file = io.BytesIO()
    photo.save(file, "WEBP", quality=10)
    assert decode(file.getvalue()).notes == ()
