"""What a refused file is, and what to do about it; and one file for each way in which Pillow stores 16 bits."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import box, write_png16, write_tiff
from PIL import (
    BmpImagePlugin,
    Image,
    PngImagePlugin,
    SgiImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
)

from lifeiqa_plugin.images.kinds import STARTS, kind_of
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.refusals import ImageError

CASES = Path(__file__).with_name("cases")

RNG = np.random.default_rng(6)
WIDE = RNG.integers(0, 65536, (24, 36, 4)).astype(np.uint16)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41"), "(it is a video (MP4 or QuickTime)); take a frame of it"),
        (box(b"ftyp", b"qt  \0\0\0\0qt  "), "(it is a video (MP4 or QuickTime)); take a frame of it"),
        (box(b"wide", b"") + box(b"mdat", bytes(9)), "(it is a video (MP4 or QuickTime)); take a frame of it"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), "(it is a video (Matroska or WebM)); take a frame of it"),
        (b"%PDF-1.7\n", "(it is a PDF); render its pages to PNG first"),
        (b"<?xml version='1.0'?><svg xmlns=''/>", "(it is XML); give images"),
        (b"\n<svg xmlns=''/>", "(it is a drawing (SVG)); render its pages to PNG first"),
        (b"PK\3\4" + bytes(99), "(it is a ZIP archive); unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "(it is a pointer of Git LFS, not the file); run git"),
        (bytes(5000), "(it is nothing but zeros); copy it again, its content is lost"),
        (b"hello there\n", "(it is text); give images"),
        (box(b"ftyp", b"avif\0\0\0\0avifmif1miaf") + box(b"mdat", bytes(99)), "(it is an AVIF that its reader refuses"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_the_file_is(content, reason):
    with pytest.raises(ImageError, match=re.escape(f": cannot be read as an image {reason}")):
        decode(content)


def test_a_tiff_of_three_floats_is_named():
    content = write_tiff(np.zeros((4, 4, 3), np.float32), "<", sample_format=3)
    with pytest.raises(
        ImageError,
        match=r"it is a TIFF that its reader refuses: 3 x 32 bits, float, compression 1, unknown pixel mode",
    ):
        decode(content)


def test_a_photoshop_file_of_16_bits_is_named():
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 4, 16, 3)
    with pytest.raises(
        ImageError, match="it is a Photoshop file that its reader refuses: 3 x 16 bits"
    ):
        decode(head + bytes(300))


def test_every_start_is_found():
    for offset, marks, kind in STARTS:
        for mark in marks:
            assert kind_of(bytes([1]) * offset + mark + bytes(300)) == kind
    assert kind_of(b"") is None


# 16 bits

RAW_MODES = {
    raw
    for table in (PngImagePlugin._MODES, TiffImagePlugin.OPEN_INFO, TgaImagePlugin.MODES)
    for mode in table.values()
    for raw in ((mode,) if isinstance(mode, str) else mode)
} | set(SgiImagePlugin.MODES.values()) | set(BmpImagePlugin.BIT2MODE[16]) | {"BGR;16", "I;16B"}  # fmt: skip

CHANNELS = {
    **{"RGB": 3, "RGBX": 4, "RGBXX": 5, "RGBXXX": 6, "RGBA": 4, "RGBAX": 5, "RGBAXX": 6},
    **{"RGBa": 4, "RGBaX": 5, "RGBaXX": 6, "CMYK": 4, "CMYKX": 5, "CMYKXX": 6},
}


def deep_tiff(name: str, order: str) -> tuple[bytes, np.ndarray]:
    """Return a TIFF of 16-bit colors, and the colors that it has."""
    number = CHANNELS[name]
    values = np.concatenate([WIDE, WIDE[..., :2]], 2)[..., :number].copy()
    expected = values[..., :3] / 65535
    if name.startswith("RGBa"):
        values[..., :3] = np.minimum(values[..., :3], values[..., 3:4])
        expected = values[..., :3] / 65535 + 1 - values[..., 3:4] / 65535
    elif name.startswith("RGBA"):
        alpha = values[..., 3:4] / 65535
        expected = 1 - alpha * (1 - expected)
    elif name.startswith("CMYK"):
        levels = Image.fromarray((values[..., :4] >> 8).astype(np.uint8), "CMYK")
        expected = np.asarray(levels.convert("RGB")) / 255
    base = 4 if name.startswith("CMYK") else 3
    extra = [] if base == 4 else [1 if "a" in name else 2 if "A" in name else 0]
    extra = (extra + [0] * 5)[: number - base]
    return write_tiff(values, order, 5 if base == 4 else 2, tuple(extra)), expected


DEEP = sorted(raw for raw in RAW_MODES if re.fullmatch(r"(RGB|CMYK)\w*;16[LB]", raw))


@pytest.mark.parametrize("raw", DEEP)
def test_every_16_bit_color_of_pillows_tables(raw):
    name, order = raw.split(";16")
    content, expected = deep_tiff(name, "<" if order == "L" else ">")
    with Image.open(io.BytesIO(content)) as image:
        assert image.tile[0].args[0] == raw
    pixels = np.asarray(decode(content).pixels)
    pixels = pixels / 255 if pixels.dtype == np.uint8 else pixels
    np.testing.assert_allclose(pixels, expected, atol=1 / 255)


def test_gray_with_alpha_keeps_its_lower_bytes():
    values = WIDE[..., :2]
    alpha = values[..., 1:] / 65535
    expected = np.repeat(1 - alpha * (1 - values[..., :1] / 65535), 3, 2)
    np.testing.assert_allclose(decode(write_png16(values)).pixels, expected, atol=1e-6)


@pytest.mark.parametrize("masks", [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)])
def test_16_bit_bmp(masks):
    colors = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    packed = np.zeros((6, 8), np.uint16)
    expected = np.zeros((6, 8, 3))
    for i, mask in enumerate(masks):
        low = (mask & -mask).bit_length() - 1
        top = mask >> low
        level = np.round(colors[..., i] / 255 * top).astype(np.uint16)
        packed |= level << low
        expected[..., i] = level / top
    data = packed[::-1].astype("<u2").tobytes()
    header = struct.pack("<IiiHHIIiiII3I", 40, 8, 6, 1, 16, 3, len(data), 0, 0, 0, 0, *masks)
    content = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(header)) + header + data
    np.testing.assert_allclose(decode(content).pixels / 255, expected, atol=1.01 / 255)


def test_16_bit_sgi():
    head = struct.pack(">HBBHHHHII", 474, 0, 2, 3, 36, 24, 3, 0, 65535).ljust(512, b"\0")
    planes = WIDE[::-1, :, :3].transpose(2, 0, 1).astype(">u2").tobytes()
    np.testing.assert_allclose(
        decode(head + planes).pixels / 255, WIDE[..., :3] / 65535, atol=1 / 255
    )


def test_16_bit_tga():
    packed = np.array([[0x7C00, 0x03E0], [0x001F, 0x7FFF]], "<u2")
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 2, 2, 16, 0x20)
    expected = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]
    np.testing.assert_array_equal(decode(head + packed.tobytes()).pixels, expected)


def test_all_raw_modes_with_16_are_tested():
    """The names that no test above has are gray ones, or planes of those."""
    rest = RAW_MODES - set(DEEP)
    known = {"LA;16B", "BGR;16", "BGR;15", "BGRA;15Z", "L;16B", "RGB;16B", "RGBA;16B"}
    assert {raw for raw in rest if re.search(";1[56]", raw) and not raw.startswith("I;16")} <= known


def test_strips_of_16_bit_colors():
    """Every strip gets its lower bytes, not the first alone."""
    cv2 = pytest.importorskip("cv2")
    written = cv2.imencode(
        ".tiff", np.tile(WIDE[..., 2::-1], (9, 9, 1)), [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    )[1].tobytes()
    np.testing.assert_allclose(
        decode(written).pixels, np.tile(WIDE[..., :3], (9, 9, 1)) / 65535, atol=1e-6
    )


def test_alpha_of_nothing_but_zeros_is_none():
    assert decode(CASES / "bmp_v5_alpha_zero.bmp").pixels.dtype == np.uint8
    clear = Image.fromarray(np.dstack([WIDE[..., :3] >> 8, np.zeros((24, 36))]).astype(np.uint8))
    buffer = io.BytesIO()
    clear.save(buffer, "TGA")
    np.testing.assert_array_equal(decode(buffer.getvalue()).pixels, WIDE[..., :3] >> 8)
    clear.save(buffer := io.BytesIO(), "PNG")
    assert (decode(buffer.getvalue()).pixels == 1).all()


def test_what_a_small_first_frame_leaves_free_is_clear():
    decoded = decode(CASES / "gif_small_first_frame.gif")
    assert "transparency lies on white" in decoded.notes
    frame = Image.new("P", (10, 8), 3)
    frame.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255] * 4)
    buffer = io.BytesIO()
    frame.save(buffer, "GIF")
    content = bytearray(buffer.getvalue())
    content[6:10] = struct.pack("<HH", 20, 16)
    pixels = decode(bytes(content)).pixels
    assert (pixels[8:] == 1).all()
    assert (pixels[:, 10:] == 1).all()
    np.testing.assert_array_equal(pixels[:8, :10], np.broadcast_to([0, 0, 1], (8, 10, 3)))
