"""Which photos show the same: moved, blurred and turned frames, copies, horizons, and what counts as a neighbor."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFilter

from lifeiqa_plugin.images.bursts import (
    Frame,
    find_alike,
    find_groups,
    fingerprint,
    group_near_duplicates,
    is_burst,
    look,
    taken_at,
    to_gray,
)


def scene(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((400, 300), Image.Resampling.BICUBIC)


def crop(image: Image.Image, right: float = 0, down: float = 0) -> Image.Image:
    x, y = 20 + right * 360, 15 + down * 270
    return image.crop((round(x), round(y), round(x) + 360, round(y) + 270))


def horizon(seed: int) -> Image.Image:
    """Sky above, land below, and a little that is the photo's own."""
    pixels = np.full((270, 360), 220.0)
    pixels[150:] = 60
    return Image.fromarray(
        (pixels + np.random.default_rng(seed).normal(0, 3, pixels.shape)).astype(np.uint8)
    )


def frame(name: str, image: Image.Image, taken: float | None = None) -> Frame:
    return look(name, image, image.size)._replace(taken=taken)


@pytest.mark.parametrize(
    "other",
    [
        crop(scene(0), 0.02),
        crop(scene(0), 0.02, -0.03),
        crop(scene(0), -0.05, 0.02),
        crop(scene(0).rotate(2)),
        crop(scene(0), 0.03).filter(ImageFilter.GaussianBlur(8)),
        crop(scene(0)).point(lambda value: value * 0.6),
    ],
)
def test_another_frame_of_a_scene_shows_the_same(other):
    frames = [frame("a.jpg", crop(scene(0))), frame("b.jpg", other), frame("c.jpg", scene(1))]
    assert find_alike(frames, [(0, 1), (0, 2), (1, 2)]) == [(0, 1)]


def test_two_horizons_and_two_flat_photos_are_not_the_same():
    flat = [Image.new("RGB", (360, 270), (level,) * 3) for level in (30, 31)]
    frames = [frame(f"{i}.jpg", image) for i, image in enumerate([horizon(0), horizon(1), *flat])]
    assert find_groups(frames).burst == [None] * 4


def test_neighbors_are_near_in_time_or_else_in_name():
    same = crop(scene(0))
    moved = crop(scene(0), 0.03)
    others = [frame(f"in/IMG_{i}.jpg", scene(i)) for i in range(2, 6)]
    by_name = [frame("in/IMG_9.jpg", same), frame("in/IMG_10.jpg", moved), *others]
    assert find_groups(by_name).burst[:2] == [0, 0]
    assert find_groups([frame("a/1.jpg", same), frame("b/2.jpg", moved)]).burst == [None, None]
    late = [frame("1.jpg", same, 0.0), frame("2.jpg", moved, 100.0)]
    assert find_groups(late).burst == [None, None]
    soon = [frame("a/1.jpg", same, 0.2), *others, frame("b/9.jpg", moved, 0.4)]
    assert find_groups(soon).burst == [0, None, None, None, None, 0]


def test_a_burst_goes_on_from_frame_to_frame():
    frames = [frame(f"{i}.jpg", crop(scene(0), 0.05 * (i - 2)), float(i)) for i in range(5)]
    assert find_groups(frames).burst == [0] * 5
    assert is_burst(frames)
    assert not is_burst([*frames, frame("6.jpg", scene(7))])


def test_copies_are_the_same_picture_wherever_they_lie(tmp_path):
    image, moved = crop(scene(0)), crop(scene(0), 0.002)
    names = ["z.png", "deep/a.bmp", "m.png", "other.png"]
    (tmp_path / "deep").mkdir()
    for name, content in zip(names, [image, image, moved, scene(1)], strict=True):
        content.save(tmp_path / name)
    frames = [
        frame(str(tmp_path / name), Image.open(tmp_path / name), 1000.0 * i)
        for i, name in enumerate(names)
    ]
    groups = find_groups(frames)
    assert groups.original == [0, 0, 2, 3]
    assert groups.burst == [0, 0, None, None]


def test_no_photos_are_no_groups():
    assert find_groups([]) == ([], [])


@pytest.mark.parametrize(
    ("exif", "seconds"),
    [
        ({"DateTimeOriginal": "2026:11:30 12:00:01", "SubsecTimeOriginal": "25"}, 1.25),
        ({"DateTimeOriginal": "2026:11:30 12:00:01\0"}, 1.0),
        ({"DateTimeOriginal": "    :  :     :  :  "}, None),
        ({}, None),
    ],
)
def test_when_a_photo_was_taken(tmp_path, exif, seconds):
    written = Image.Exif()
    for name, value in exif.items():
        written.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base[name]] = value
    path = str(tmp_path / "a.jpg")
    scene(0).save(path, exif=written)
    noon = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.timezone.utc).timestamp()
    assert taken_at(path) == (None if seconds is None else noon + seconds)


def test_a_file_that_is_gone_was_taken_at_no_time():
    assert taken_at("gone.jpg") is None


def test_near_duplicates_are_grouped_in_the_order_of_their_first():
    generator = np.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(0, 256, (6, 6), dtype=np.uint8)).resize((90, 90))
        for _ in range(3)
    ]
    softer = [picture.filter(ImageFilter.GaussianBlur(3)) for picture in pictures]
    flat = Image.new("L", (90, 90), 7)
    order = [flat, pictures[1], pictures[0], softer[1], flat, pictures[2], softer[0]]
    prints = np.stack([fingerprint(to_gray(picture)) for picture in order])
    assert group_near_duplicates(prints) == [None, 0, 1, 0, None, None, 1]


def test_neighbours_of_neighbours_are_one_group():
    angles = np.deg2rad([0, 10, 20, 90])  # cos 10 degrees is above the limit, cos 20 is below
    prints = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert group_near_duplicates(prints[[2, 0, 1, 3]]) == [0, 0, 0, None]
    assert group_near_duplicates(prints[:0]) == []
