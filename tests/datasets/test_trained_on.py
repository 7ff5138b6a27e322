"""Digests of training images: found again as they are and saved anew, small, right but for a known chance."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lifeiqa_plugin.checkpoints.models import BUNDLED, Model, resolve
from lifeiqa_plugin.datasets import trained_on as module
from lifeiqa_plugin.datasets.trained_on import (
    Digests,
    TrainedOn,
    count_in_words,
    digests_of,
    trained_on,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Twelve smooth random images."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(12)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return paths


def of_numbers(numbers: np.ndarray) -> list[Digests]:
    """Digests of images that are nothing but random numbers."""
    return [Digests((int(row[0]),), tuple(map(int, row[1:]))) for row in numbers]


def test_training_images_are_found_and_no_others(photos):
    learnt = TrainedOn.build(digests_of(photos[:6]))
    assert learnt.images == 6
    assert learnt.hits(digests_of(photos)).tolist() == [True] * 6 + [False] * 6


@pytest.mark.parametrize(
    ("ending", "size", "options"),
    [
        (".jpg", (320, 240), {"quality": 90}),
        (".jpg", (320, 240), {"quality": 50}),
        (".webp", (320, 240), {"quality": 80}),
        (".jpg", (200, 150), {"quality": 90}),
    ],
)
def test_copies_saved_anew_are_found(photos, tmp_path, ending, size, options):
    learnt = TrainedOn.build(digests_of(photos[:6]))
    copies = [tmp_path / f"{path.stem}{ending}" for path in photos]
    for path, copy in zip(photos, copies, strict=True):
        Image.open(path).resize(size, Image.Resampling.BICUBIC).save(copy, **options)
    hits = learnt.hits(digests_of(copies))
    assert hits[:6].sum() >= 5
    assert not hits[6:].any()


def test_flat_images_are_told_apart_by_their_files(tmp_path):
    for name, value in (("a", 10), ("b", 200), ("copy", 10)):
        Image.new("L", (64, 64), value).save(tmp_path / f"{name}.png")
    ramp = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    Image.fromarray(2 * ramp).save(tmp_path / "ramp2.png")
    names = ("a", "b", "copy", "ramp", "ramp2")
    images = digests_of(tmp_path / f"{name}.png" for name in names)
    assert not any(image.looks for image in images)
    hits = TrainedOn.build([images[0], images[3]]).hits(images)
    assert hits.tolist() == [True, False, True, True, False]


def test_what_cannot_be_read_is_never_found(photos, tmp_path):
    (tmp_path / "no.png").write_text("no image")
    none, text = digests_of([tmp_path / "missing.png", tmp_path / "no.png"])
    assert none == Digests()
    assert (len(text.file), text.looks) == (1, ())
    empty = TrainedOn.build([none])
    assert (empty.parts, empty.to_text()) == ((), "")
    assert not empty.hits(digests_of(photos)).any()


def test_a_set_is_small_and_wrong_as_rarely_as_it_says():
    """Nine look-ups of 16 bits: 9 in 65,536, here of 200,000 images that it does not hold."""
    numbers = np.random.default_rng(0).integers(0, 2**63, (1000 + 200_000, 9))
    learnt = TrainedOn.build(of_numbers(numbers[:1000]))
    assert len(learnt.to_text()) < 6100
    assert learnt.hits(of_numbers(numbers[:1000])).all()
    rate = learnt.hits(of_numbers(numbers[1000:])).mean()
    assert rate == pytest.approx(9 / 65_536, rel=0.4)
    assert rate < 1 / 4000


def test_text_gives_the_same_set(photos):
    learnt = TrainedOn.build(digests_of(photos[:5]))
    text = learnt.to_text()
    read = TrainedOn.from_text(text)
    assert (read.images, read.to_text()) == (5, text)
    assert TrainedOn.build(digests_of(photos[4::-1])).to_text() == text  # whatever the order
    assert read.hits(digests_of(photos)).tolist() == [True] * 5 + [False] * 7


def test_a_fine_tuned_model_knows_what_its_start_knew(photos):
    first, second = (TrainedOn.build(digests_of(part)) for part in (photos[:3], photos[3:5]))
    both = TrainedOn.from_text((second | first).to_text())
    assert both.images == 5
    assert both.hits(digests_of(photos)).sum() == 5
    assert (both | first).to_text() == both.to_text()


@pytest.mark.parametrize("change", [lambda t: t[:-9], lambda t: "2 " + t, lambda t: t[:9] + "?"])
def test_damaged_lists_are_refused(photos, change):
    text = TrainedOn.build(digests_of(photos)).to_text().strip()
    message = r"^x: its list of training images is damaged \(.*\); get the file again$"
    with pytest.raises(ValueError, match=message):
        TrainedOn.from_text(change(text), "x")


def test_the_bundled_models_say_what_they_learnt(tmp_path):
    images = {name: trained_on(resolve(name)).images for name in BUNDLED}
    assert images == {"lifeiqa": 8803 + 464 + 2086, "lifeiqa-biq2021": 8803}
    copy = shutil.copy(resolve("lifeiqa").path, tmp_path / "copy.safetensors")
    assert trained_on(resolve(copy)).images == images["lifeiqa"]
    assert trained_on(resolve("lifeiqa").exported()).images == images["lifeiqa"]


def test_others_do_not_say(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04 and so on")
    (tmp_path / "a.onnx").touch()
    assert trained_on(resolve(tmp_path / "a.pth")) is None
    assert trained_on(Model("a", tmp_path / "a.onnx", "onnx")) is None


def test_words():
    assert count_in_words(464, 1162) == "464 of 1,162 images were trained on: 698 left"


def test_digests_are_kept_until_an_image_changes(photos, tmp_path, monkeypatch):
    photos = [Path(shutil.copy(photo, tmp_path)) for photo in photos[:3]]
    read, cache = [], tmp_path / "digests.json"
    digest = module._digest_image
    monkeypatch.setattr(module, "_digest_image", lambda path: read.append(path) or digest(path))
    first = digests_of(photos, cache)
    assert digests_of([tmp_path / "none.png", *photos], cache) == [((), ()), *first]
    assert read == [*photos, tmp_path / "none.png"]
    photos[0].write_bytes(photos[1].read_bytes())
    assert digests_of(photos, cache) == [first[1], *first[1:]]
    assert read[len(photos) + 1 :] == [photos[0]]
