"""How much of a JPEG is there, whatever its kind."""

from __future__ import annotations

import contextlib
import io

import image_files as files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lifeiqa_plugin.images import jpeg_loading
from lifeiqa_plugin.images.jpeg import END, read_header, read_scans
from lifeiqa_plugin.images.jpeg_loading import find_missing
from lifeiqa_plugin.images.reading import decode, decode_resized
from lifeiqa_plugin.images.refusals import ImageError

RNG = np.random.default_rng(3)
COARSE = Image.fromarray(RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8))
SCENE = Image.fromarray(
    (
        np.asarray(COARSE.resize((512, 384), Image.Resampling.BICUBIC), int)
        + RNG.integers(-9, 9, (384, 512, 3))
    )
    .clip(0, 255)
    .astype(np.uint8)
)


def encode(image: Image.Image = SCENE, **options) -> bytes:
    return files.encode(image, "JPEG", **options)


KINDS = {
    "baseline": encode(),
    "4:4:4": encode(subsampling=0),
    "optimized": encode(optimize=True),
    "restarts": encode(restart_marker_rows=1),
    "progressive": encode(progressive=True),
    "progressive with restarts": encode(progressive=True, restart_marker_rows=1),
    "gray": encode(SCENE.convert("L")),
    "gray progressive": encode(SCENE.convert("L"), progressive=True),
    "CMYK": encode(SCENE.convert("CMYK")),
}


def cut(content: bytes, share: float) -> bytes:
    """Return the head and that share of the coded data, which lie in one piece or in scans."""
    start = next(read_scans(content)).start
    return content[: start + int((len(content) - start) * share)]


def own_notes(content: bytes, **options) -> tuple[str, ...]:
    notes = decode(content, **options).notes
    return tuple(note for note in notes if note != "CMYK without a profile" and "size" not in note)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_least", [None, 100])
def test_whole_files_have_no_note(kind, at_least):
    assert own_notes(KINDS[kind], at_least=at_least) == ()
    assert find_missing(KINDS[kind]).share == 0


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pillow(kind):
    with Image.open(io.BytesIO(KINDS[kind])) as image:
        np.testing.assert_array_equal(decode(KINDS[kind]).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_end_marker_is_missing(kind):
    content = KINDS[kind][:-2]
    assert own_notes(content) == ("the end marker is missing, but no pixel is",)
    np.testing.assert_array_equal(decode(content).pixels, decode(KINDS[kind]).pixels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.6])
@pytest.mark.parametrize("ending", ["", "closed", "zeros", "zeros and closed"])
def test_a_part_of_the_data_is_refused(kind, share, ending):
    whole = KINDS[kind]
    content = cut(whole, share)
    if "zeros" in ending:
        content += bytes(len(whole) - len(content) - 2)
    if "closed" in ending:
        content += END
    for options in ({}, {"at_least": 100}):
        with pytest.raises(
            ImageError, match=r"damaged image \((fine detail of )?the last \d+ %"
        ) as caught:
            decode(content, **options)
    missing = int(caught.value.reason.split(" %")[0].split()[-1])
    assert (
        missing >= 100 - 100 * share - 10
        if "progressive" in kind
        else abs(missing - 100 + 100 * share) < 10
    )
    with pytest.raises(ImageError, match="damaged image"):
        decode_resized(content, lambda height, width: (96, 128))


def test_the_last_blocks_alone_are_a_note():
    content = cut(encode(SCENE.resize((1600, 1200))), 0.998) + END
    assert own_notes(content) in [
        (f"the last 0.{n:02} % of it are missing",) for n in range(1, 100)
    ]


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restarts"])
def test_zeros_in_the_middle(kind):
    content = bytearray(KINDS[kind])
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    with pytest.raises(
        ImageError, match="the last .* missing" if kind != "restarts" else r"\d+ % in the middle"
    ):
        decode(bytes(content))


@pytest.mark.parametrize("level", [0, 127, 128, 255])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_flat_images_are_whole(level, options):
    for mode in ("RGB", "L"):
        content = encode(
            Image.new(mode, (400, 300), (level,) * 3 if mode == "RGB" else level), **options
        )
        assert decode(content).notes == ()


def test_gray_below_a_photo_is_whole():
    image = SCENE.copy()
    image.paste((128, 128, 128), (0, 100, 512, 384))
    for options in ({}, {"progressive": True}, {"optimize": True}):
        assert decode(encode(image, **options)).notes == ()


def test_what_follows_the_image_is_not_looked_at():
    assert decode(KINDS["baseline"] + bytes(5000)).notes == ()
    assert decode(KINDS["progressive"] + KINDS["baseline"]).notes == ()


def test_zeros_before_and_after_the_data_are_no_hole(monkeypatch):
    """Cameras leave some in EXIF, and a second decoding would be for nothing."""
    exif = Image.Exif()
    exif[0x9286] = bytes(500)
    monkeypatch.setattr(jpeg_loading, "find_missing", lambda data: pytest.fail("looked at twice"))
    for options in ({}, {"progressive": True}):
        assert decode(encode(exif=exif, **options) + bytes(500) + END).notes == ()


def test_a_scan_that_never_came():
    scans = list(read_scans(KINDS["progressive"]))
    content = KINDS["progressive"][: scans[-2].stop] + END
    with pytest.raises(ImageError, match="fine detail of the last 100 % is missing"):
        decode(content)


def test_headers():
    header = read_header(KINDS["progressive"])
    assert (header.frame, header.components, header.has_many_scans) == (0xC2, b"\1\2\3", True)
    assert read_header(KINDS["CMYK"]).has_many_scans is False
    assert read_header(b"\xff\xd8\xff").frame == 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [(0xC3, "a JPEG without losses or in layers"), (0xC1, "cannot handle 12-bit layers")],
)
def test_kinds_of_jpeg_that_are_not_read(kind, words):
    content = KINDS["baseline"].replace(b"\xff\xc0", bytes([0xFF, kind]))
    if kind == 0xC1:
        at = content.index(b"\xff\xc1") + 4
        content = content[:at] + b"\x0c" + content[at + 1 :]
    with pytest.raises(ImageError, match=f"cannot be read as an image .*{words}"):
        decode(content)


@given(st.sampled_from(sorted(KINDS)), st.data())
def test_hostile_jpegs_are_read_or_refused(kind, data):
    content = bytearray(KINDS[kind])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(
            st.integers(0, min(len(content) - 4, data.draw(st.sampled_from([700, 10**6]))))
        )
        content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    content = content[: data.draw(st.integers(4, len(content)))]
    for at_least in (None, 100):
        with contextlib.suppress(ImageError):
            decode(bytes(content), at_least=at_least, max_pixels=2_000_000)
