"""What a row says besides its score: frames, pairs, sizes, files passed over."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lifeiqa_plugin.images.folders import count_skipped, describe_skipped, find_images
from lifeiqa_plugin.images.processes import prepare_images
from lifeiqa_plugin.images.reading import decode, read_image
from lifeiqa_plugin.images.stream import TOO_SMALL, Named, Recipe
from lifeiqa_plugin.network.crops import working_shape

RECIPE = Recipe(functools.partial(working_shape, crop_size=8, working_size=16))


def encode(kind: str, frames: list[Image.Image], **options) -> bytes:
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:]} if len(frames) > 1 else {}
    frames[0].save(buffer, kind, **more, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_the_first_frame_is_taken_and_all_are_counted(kind):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "white")]
    decoded = decode(encode(kind, frames))
    assert decoded.notes == ("first of 3 frames",)
    assert decoded.pixels[4, 4].astype(int) == pytest.approx([255, 0, 0], abs=5)
    assert decode(encode(kind, frames[:1])).notes == ()


def test_damaged_frames_after_the_first():
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    content = bytearray(encode("TIFF", frames))
    image = Image.open(io.BytesIO(content))
    image.seek(1)
    content[image.tag_v2._offset : image.tag_v2._offset + 40] = b"\xff" * 40
    decoded = decode(bytes(content))
    assert decoded.pixels[0, 0].tolist() == [255, 0, 0]
    assert decoded.notes in [
        ("first of several frames, of which some are damaged",),
        ("first of 2 frames",),
    ]


def test_a_gain_map_is_left_out():
    xmp = b'<x:xmpmeta xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"/>'
    xmp = xmp.replace(b"/>", b' hdrgm:Version="1.0"/>')
    assert decode(encode("JPEG", [Image.new("RGB", (16, 16))], xmp=xmp)).notes == (
        "gain map left out",
    )


def test_a_shrunk_jpeg_says_so():
    content = encode("JPEG", [Image.new("RGB", (800, 600), "red")])
    assert decode(content, at_least=100).notes == ("decoded at 1/4 of its size",)
    assert decode(content, at_least=600).notes == ()


def test_notes_come_with_the_tensor():
    content = encode("PNG", [Image.new("LA", (4, 4), (9, 99))])
    pixels, notes = read_image(content, with_notes=True)
    assert notes == ("transparency lies on white",)
    np.testing.assert_array_equal(pixels, read_image(content))


def test_a_raw_file_and_a_jpeg_are_a_pair(tmp_path):
    large = encode("JPEG", [Image.new("RGB", (1200, 900), "red")])
    for name in ("1.JPG", "2.jpg", "3.heic"):
        (tmp_path / name).write_bytes(large)
    (tmp_path / "1.raf").write_bytes(b"FUJIFILMCCD-RAW ".ljust(100, b"\0") + large)
    (tmp_path / "1.xmp").touch()
    images = [Named(os.path.basename(path), path) for path in find_images(tmp_path)]
    for workers in (0, 1):
        notes = {one.name: one.notes for one in prepare_images(images, RECIPE, workers)}
        assert notes == {
            "1.JPG": ("pair with 1.raf",),
            "1.raf": ("source: embedded JPEG 1200 x 900", "pair with 1.JPG"),
            "2.jpg": (),
            "3.heic": (),
        }


def test_small_things_are_noted():
    images = [Named(str(side), np.zeros((side, 90), np.uint8)) for side in (63, 64)]
    assert [one.notes for one in prepare_images(images, RECIPE)] == [(TOO_SMALL,), ()]


def test_what_a_folder_scan_takes_and_passes_over(tmp_path):
    names = ["b/2.JPG", "a.HIF", "b/1.heics", "c.avci", "d.CR3", "e.mov", "b/f.mov", "README"]
    for name in (*names, ".hidden", "odd.a\nb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [os.path.relpath(path, tmp_path) for path in find_images(tmp_path)]
    assert found == ["a.HIF", "b/1.heics", "b/2.JPG", "c.avci", "d.CR3"]
    with pytest.raises(ValueError, match="nowhere: no images in it; expected files such as"):
        find_images(tmp_path / "nowhere")
    skipped = count_skipped(tmp_path)
    assert skipped == {".mov": 2, "without an ending": 1, r".a\nb": 1}
    assert describe_skipped(skipped).startswith("skipped 4 files: 2 .mov, ")
    assert describe_skipped(Counter()) == ""
    assert describe_skipped(Counter(range(10))).endswith(" and 2 other kinds")


def test_pillows_warnings_are_silent(tmp_path, capfd):
    """Those of libtiff too: they name no file."""
    content = bytearray(encode("TIFF", [Image.new("RGB", (64, 64), "red")], compression="tiff_lzw"))
    content[8:40] = bytes(32)
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(encode("PNG", [Image.new("P", (4, 4))], transparency=b"\0"))
        with pytest.raises(OSError, match="damaged image"):
            decode(bytes(content))
    assert warnings.filters == before
    assert capfd.readouterr() == ("", "")
