"""Colors that a file describes by other means than an ICC profile."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import chunk, encode
from PIL import Image, ImageCms

from lifeiqa_plugin.images import color, signals
from lifeiqa_plugin.images.binary import Binary
from lifeiqa_plugin.images.boxes import Crop, read_properties
from lifeiqa_plugin.images.reading import decode, decode_resized, read_image
from lifeiqa_plugin.images.resizing import resize

CASES = Path(__file__).with_name("cases")

SCENE = np.asarray(Image.open(CASES / "scene.png").convert("RGB")).astype(float)


def mean_of(name: str) -> np.ndarray:
    return read_image(CASES / name).numpy().mean((1, 2)) * 255


def png(image: Image.Image, *chunks: bytes) -> bytes:
    """Write a PNG with chunks after its header."""
    content = encode(image)
    return content[:33] + b"".join(chunks) + content[33:]


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("adobe_rgb_by_exif.jpg", "Adobe RGB by EXIF converted to sRGB"),
        ("avif_nclx_p3.avif", "P3 converted to sRGB"),
        ("avif_nclx_hlg.avif", "BT.2020 HLG converted to sRGB"),
        ("heic_nclx_hlg.heic", "BT.2020 HLG converted to sRGB"),
        ("heic_nclx_pq.heic", "BT.2020 PQ converted to sRGB"),
        ("png_cicp_p3.png", "P3 converted to sRGB"),
        ("png_cicp_pq.png", "BT.2020 PQ converted to sRGB"),
        ("png_gama_linear.png", "colors by gAMA and cHRM converted to sRGB"),
    ],
)
def test_colors_become_those_of_the_scene(name, note):
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif")
    np.testing.assert_allclose(mean_of(name), SCENE.mean((0, 1)), atol=3.5)
    assert decode(CASES / name).notes == (note,)


@pytest.mark.parametrize("name", ["rgb565.bmp", "bmp_v5_alpha_zero.bmp", "scene.png"])
def test_colors_that_need_nothing(name):
    np.testing.assert_allclose(mean_of(name), SCENE.mean((0, 1)), atol=1.2)
    assert decode(CASES / name).notes == ()


def test_reference_white_of_hdr_is_white():
    for curve, value in ((color.PQ, 0.5807), (color.HLG, 0.75)):
        signal = color.Signal(color.PRIMARIES[9], curve, "")
        white = color.hdr_to_srgb(np.full((4, 4, 3), value, np.float32), signal)
        np.testing.assert_allclose(white, 1, atol=2e-3)


def test_what_is_brighter_than_white_bends_in_without_a_kink():
    light = np.linspace(0, 5, 2001)
    for peak in (1.0, 1.5, 5.0):
        bent = color.shoulder(light, peak)
        steps = np.diff(bent[light <= peak])
        assert (steps > 0).all()
        assert np.abs(np.diff(steps)).max() < 7e-5  # the slope begins with 1 and falls slowly
        np.testing.assert_array_equal(bent[light <= color.KNEE], light[light <= color.KNEE])
        np.testing.assert_allclose(color.shoulder(np.array([peak]), peak), 1)
    np.testing.assert_allclose(color.shoulder(np.array([0.9, 1.0]), 1.0), [0.9, 1.0])


def test_pq_against_its_table():
    """SMPTE ST 2084: 100 cd/m2 are 0.508, 1,000 are 0.7518."""
    light = color._curve(np.array([0.0, 0.5081, 0.7518, 1.0]), color.PQ) * 10_000
    np.testing.assert_allclose(light, [0, 100, 1000, 10_000], rtol=2e-3)


def test_made_profiles_are_those_of_littlecms():
    signal = color.Signal(color.SRGB, color.SRGB_CURVE, "")
    own = ImageCms.ImageCmsProfile(io.BytesIO(color.make_profile(signal, "RGB")))
    transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    changed = np.asarray(transform.apply(colors)).astype(int) - np.asarray(colors)
    assert np.abs(changed).max() <= 1


def test_gray_with_a_gamma():
    image = Image.fromarray(np.full((8, 8), 128, np.uint8))
    pixels = decode(png(image, chunk(b"gAMA", struct.pack(">I", 100_000)))).pixels
    np.testing.assert_allclose(pixels, 188, atol=1)  # 128 / 255 of light
    assert decode(png(image, chunk(b"gAMA", struct.pack(">I", 45_455)))).notes == ()


@pytest.mark.parametrize(
    ("chunks", "note"),
    [
        (
            [chunk(b"cICP", bytes([99, 13, 0, 1]))],
            "color codes 99/13 are not known, and taken for sRGB",
        ),
        (
            [chunk(b"cICP", bytes([9, 16, 9, 1]))],
            "cICP of luma and chroma or of narrow range is ignored",
        ),
        ([chunk(b"cHRM", bytes(32))], "what it says of its colors is damaged, and taken for sRGB"),
        (
            [chunk(b"iCCP", b"a\0\0" + zlib.compress(b"none"))],
            "its profile cannot be read and is ignored",
        ),
    ],
)
def test_what_is_not_converted_is_noted(chunks, note):
    decoded = decode(png(Image.new("RGB", (4, 4), "red"), *chunks))
    assert decoded.notes == (note,)
    assert decoded.pixels[0, 0].tolist() == [255, 0, 0]


def test_cicp_comes_before_a_profile_and_srgb_before_gamma():
    red = Image.new("RGB", (4, 4), (200, 50, 50))
    gamma, srgb = chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"sRGB", b"\0")
    assert decode(png(red, gamma, srgb)).notes == ()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    iccp = chunk(b"iCCP", b"a\0\0" + zlib.compress(profile))
    decoded = decode(png(red, iccp, chunk(b"cICP", bytes([12, 13, 0, 1]))))
    assert decoded.notes == ("P3 converted to sRGB",)


def test_a_profile_in_a_bmp():
    signal = color.Signal(color.ADOBE_RGB, 2.2, "")
    profile = color.make_profile(signal, "RGB")
    pixels = bytes([50, 100, 150, 0] * 4)
    header = (
        struct.pack("<IiiHHIIiiII", 124, 2, 2, 1, 32, 0, 16, 0, 0, 0, 0)
        + bytes(16)
        + b"DEBM"
        + bytes(48)
    )
    header += struct.pack("<IIII", 4, 124 + 16, len(profile), 0)
    content = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 124) + header + pixels + profile
    decoded = decode(content)
    expected = ImageCms.applyTransform(
        Image.new("RGB", (2, 2), (150, 100, 50)),
        ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), "RGB", "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION,
        ),
    )  # fmt: skip
    np.testing.assert_array_equal(decoded.pixels, np.asarray(expected))
    assert decoded.pixels[0, 0].tolist() != [150, 100, 50]


@pytest.mark.parametrize("space", [bytes(4), b"BGRs"])
def test_the_colors_in_the_header_of_a_bmp(space):
    corners = np.round(color.to_xyz(color.SRGB).T * 2**30).astype(int).ravel()
    header = struct.pack("<IiiHHIIiiII", 108, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(16) + space
    header += struct.pack("<9i3I", *corners, *(65536,) * 3)
    content = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 108) + header + bytes([128] * 3 + [0])
    expected = 128 if any(space) else 188
    np.testing.assert_allclose(decode(content).pixels, expected, atol=1)


def test_orientation_in_xmp_alone_turns_nothing():
    assert decode(CASES / "orientation_in_xmp_only.jpg").pixels.shape == (64, 96, 3)


def avif(*, crop: tuple[int, ...] = (), xmp: bytes = b"") -> bytes:
    """Write an AVIF of 64 x 48; a crop is put among the properties of its image."""
    scene = Image.fromarray(SCENE.astype(np.uint8)).resize((64, 48))
    content = encode(scene, "AVIF", quality=95, xmp=xmp or None)
    if not crop:
        return content
    clap = struct.pack(">I4s8I", 40, b"clap", *(value & 0xFFFFFFFF for value in crop))
    meta, iprp, ipco, ipma = (
        content.index(kind) - 4 for kind in (b"meta", b"iprp", b"ipco", b"ipma")
    )
    number = sum(1 for _ in _children(content, ipco)) + 1
    count = ipma + 8 + 4 + 4 + 2
    parts = bytearray(content)
    parts[count] += 1
    parts[count + 1 + content[count] : count + 1 + content[count]] = bytes([0x80 | number])
    at = ipco + struct.unpack_from(">I", content, ipco)[0]
    parts[at:at] = clap
    for where, more in ((ipco, 40), (iprp, 41), (meta, 41)):
        struct.pack_into(">I", parts, where, struct.unpack_from(">I", content, where)[0] + more)
    struct.pack_into(">I", parts, ipma + 40, struct.unpack_from(">I", content, ipma)[0] + 1)
    iloc = content.index(b"iloc")
    _move(parts, iloc, 41)
    return bytes(parts)


def _children(content: bytes, at: int):
    position, stop = at + 8, at + struct.unpack_from(">I", content, at)[0]
    while position < stop:
        yield position
        position += struct.unpack_from(">I", content, position)[0]


def _move(parts: bytearray, iloc: int, more: int) -> None:
    """Move the one extent of each item, as libavif writes it: version 0, offsets and lengths of 4 bytes."""
    items = struct.unpack_from(">H", parts, iloc + 10)[0]
    for i in range(items):
        at = iloc + 12 + 14 * i + 6
        struct.pack_into(">I", parts, at, struct.unpack_from(">I", parts, at)[0] + more)


def test_the_crop_of_an_avif_is_applied():
    whole = decode(avif()).pixels
    content = avif(crop=(32, 1, 24, 1, 4, 1, -2, 1))
    with Binary(content) as data:
        assert read_properties(data).crop == Crop(20, 10, 32, 24)
    np.testing.assert_array_equal(decode(content).pixels, whole[10:34, 20:52])
    resized = decode_resized(content, lambda height, width: (12, 16), at_least=16)
    assert resized.notes == ()  # it has not shrunk
    np.testing.assert_array_equal(resized.pixels, resize(whole[10:34, 20:52], (12, 16)))
    outside = decode(avif(crop=(64, 1, 48, 1, 4, 1, 0, 1)))
    np.testing.assert_array_equal(outside.pixels, whole)
    assert outside.notes == ("its crop lies outside of it, and is ignored",)


def test_an_avif_turns_by_its_own_properties_alone():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert decode(avif(xmp=xmp)).pixels.shape == (48, 64, 3)


SMALL = {
    name: (CASES / name).read_bytes()
    for name in (
        "avif_nclx_p3.avif",
        "heic_nclx_pq.heic",
        "png_cicp_p3.png",
        "adobe_rgb_by_exif.jpg",
        "bmp_v5_alpha_zero.bmp",
    )
}


@given(st.sampled_from(sorted(SMALL)), st.data())
def test_hostile_colors_are_read_or_noted(name, data):
    content = bytearray(SMALL[name])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(content), 900) - 4))
        content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    kind = {"avif": "AVIF", "heic": "HEIF", "png": "PNG", "jpg": "JPEG", "bmp": "BMP"}[
        name.split(".")[1]
    ]
    image = Image.new("RGB", (4, 4))
    image.format = kind
    image.info["exif"] = bytes(content[20:])
    with Binary(bytes(content)) as binary:
        found = signals.read_signals(image, binary)
    assert found.signal is None or color.to_xyz(found.signal.primaries).shape == (3, 3)
