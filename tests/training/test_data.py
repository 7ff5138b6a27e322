"""Data: crops that depend on (seed, epoch, image) alone, an order that can be resumed, plain errors."""

from __future__ import annotations

import gc
import random
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, _utils

from lifeiqa_plugin.datasets.labelled import check_images
from lifeiqa_plugin.distortions.kinds import KINDS, Ladder
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.training import dataset as data
from lifeiqa_plugin.training.dataset import LifeIQADataset, check_no_overlap, random_crops
from lifeiqa_plugin.training.mixture import Mixture, ResumableSampler, derive_seed


@pytest.fixture
def make_dataset(images):
    def make(phase="train", **changes):
        opt = {
            "name": phase,
            "phase": phase,
            "meta_info_file": str(images / "meta.csv"),
            "batch_size_per_gpu": 6,
        }
        opt |= {"dataroot_target": str(images), "split_ratio": "712", "split_index": 1}
        opt |= {"crops_per_image": 3, "crop_size": 32, "working_size": 48}
        return LifeIQADataset(opt | changes)

    return make


@pytest.fixture
def make_mixture(make_dataset):
    """Training sets with the given changes, one each."""

    def make(*changes, **shared):
        sources = [make_dataset(**change | shared) for change in changes or [{}]]
        return Mixture(sources, sources[0].opt)

    return make


def load(dataset, sampler, epoch, workers=0):
    sampler.set_epoch(epoch)
    loader = DataLoader(
        dataset, dataset.opt["batch_size_per_gpu"], sampler=sampler, num_workers=workers
    )
    batches = list(loader)
    return torch.cat([b["img"] for b in batches]), [path for b in batches for path in b["img_path"]]


def test_training_item(make_dataset):
    dataset = make_dataset()
    item = dataset[2, 5]
    assert item["img"].shape == (3, 3, 32, 32)
    assert 0 <= item["img"].min() < item["img"].max() <= 1
    assert item["mos_label"] == torch.tensor([dataset.mos[2]])
    assert item["img_path"] == dataset.paths_mos[2][0]
    assert not torch.equal(item["img"][0], item["img"][1])


def test_one_decode_for_all_crops(make_dataset, monkeypatch):
    dataset, decoded = make_dataset(crops_per_image=8), []
    monkeypatch.setattr(data, "read_image", lambda path: decoded.append(path) or read_image(path))
    assert dataset[0, 1]["img"].shape[0] == 8
    assert len(decoded) == 1


def test_working_size_is_drawn_from_its_range(make_dataset, monkeypatch):
    drawn = []
    cut = data.to_working_size
    monkeypatch.setattr(
        data, "to_working_size", lambda x, low, high: drawn.append(high) or cut(x, low, high)
    )
    dataset = make_dataset(working_range=[33, 36])
    for seed in range(40):
        assert dataset[0, seed]["img"].shape == (3, 3, 32, 32)
    assert set(drawn) == {33, 34, 35, 36}


@pytest.mark.parametrize("is_clean", [True, False])
def test_ladder_item_is_one_place_in_growing_distortion(make_dataset, monkeypatch, is_clean):
    def ladder(image, steps, generator):
        return Ladder([image * (1 - 0.25 * step) for step in range(steps)], is_clean, "noise")

    monkeypatch.setattr(data, "random_ladder", ladder)
    dataset = make_dataset(ladder_share=1.0)
    item = dataset[0, 1]
    assert item["has_levels"] is True
    assert item["mos_label"].isfinite() == is_clean
    noise = list(KINDS).index("noise")
    assert item["kinds"].tolist() == [data.CLEAN if is_clean else noise, noise, noise]
    assert make_dataset()[0, 1]["kinds"].tolist() == [data.UNKNOWN] * 3
    first, *rungs = item["img"]
    assert first.shape == (3, 32, 32)
    torch.testing.assert_close(rungs, [first * 0.75, first * 0.5])


def test_share_of_ladders(make_dataset):
    dataset = make_dataset(ladder_share=0.5)
    items = [dataset[seed % 28, seed]["has_levels"] for seed in range(500)]
    assert 0.4 < sum(items) / len(items) < 0.6
    assert not any(make_dataset()[row, 1]["has_levels"] for row in range(28))


def test_photos_without_scores_stand_in_for_half_of_the_ladders(make_dataset, images, tmp_path):
    (tmp_path / "below").mkdir()
    photo = shutil.copy(next(images.rglob("*.png")), tmp_path / "below")
    (tmp_path / "notes.txt").touch()
    dataset = make_dataset(ladder_share=0.5, ladder_folder=str(tmp_path))
    items = [dataset[seed % 28, seed] for seed in range(500)]
    added = [item for item in items if item["img_path"] == str(photo)]
    assert all(item["has_levels"] and item["mos_label"].isnan() for item in added)
    assert 0.4 < len(added) / sum(item["has_levels"] for item in items) < 0.6


def test_ladder_folder_without_images(make_dataset, tmp_path):
    with pytest.raises(ValueError, match="no images in it; expected files such as"):
        make_dataset(ladder_share=0.5, ladder_folder=str(tmp_path / "nowhere"))


def test_ladders_need_two_levels(make_dataset):
    with pytest.raises(ValueError, match="ladder_share needs crops_per_image of 2 or more"):
        make_dataset(ladder_share=0.5, crops_per_image=1)


def test_validation_item_is_the_whole_image_each_time(make_dataset):
    dataset = make_dataset("val")
    assert torch.equal(dataset[0]["img"], read_image(dataset.paths_mos[0][0]))
    assert torch.equal(dataset[0]["img"], dataset[0]["img"])


def test_crops_are_parts_of_the_image_and_reach_its_edges():
    image = torch.arange(40 * 36).float().view(1, 40, 36).expand(3, 40, 36)
    crops = random_crops(image, 200, 32, True, torch.Generator().manual_seed(0))
    lefts, tops, mirrored = set(), set(), 0
    for crop in crops[:, 0]:
        flipped = bool(crop[0, 1] < crop[0, 0])
        crop = crop.flip(1) if flipped else crop
        top, left = divmod(int(crop[0, 0]), 36)
        assert torch.equal(crop, image[0, top : top + 32, left : left + 32])
        tops.add(top), lefts.add(left)
        mirrored += flipped
    assert (tops, lefts) == (set(range(9)), set(range(5)))
    assert 70 < mirrored < 130
    still = random_crops(image, 50, 32, False, torch.Generator().manual_seed(0))
    assert all(crop[0, 0, 1] > crop[0, 0, 0] for crop in still)


def test_small_image_is_enlarged_to_a_crop(make_dataset, tmp_path):
    Image.new("RGB", (9, 20), (255, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("name,mos\na.png,1\n")
    changes = {
        "meta_info_file": str(tmp_path / "m.csv"),
        "dataroot_target": str(tmp_path),
        "split_index": None,
    }
    dataset = make_dataset(**changes, batch_size_per_gpu=1)
    assert dataset[0, 1]["img"].shape == (3, 3, 32, 32)


def test_crops_depend_on_seed_epoch_and_image_alone(make_mixture):
    """Neither workers, nor other users of random numbers, nor what came before change a crop."""
    dataset = make_mixture()
    crops, paths = load(dataset, ResumableSampler(dataset, 1, 0, seed=1), 3)
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    again, paths_again = load(dataset, ResumableSampler(dataset, 1, 0, seed=1), 3, workers=2)
    assert paths == paths_again
    assert torch.equal(crops, again)
    for other in (
        load(dataset, ResumableSampler(dataset, 1, 0, seed=1), 4),
        load(dataset, ResumableSampler(dataset, 1, 0, seed=2), 3),
    ):
        assert other[1] != paths
        assert not torch.equal(other[0], crops)


def test_each_epoch_has_each_image_and_fills_its_last_batch(make_mixture):
    dataset = make_mixture(weight=2)
    assert len(dataset) == 56
    sampler = ResumableSampler(dataset, 1, 0, seed=1)
    assert list(sampler) == []  # before set_epoch
    sampler.set_epoch(0)
    keys = list(sampler)
    rows = [visit.row for visit in keys]
    assert len(keys) == len(sampler) == 60  # 10 batches of 6 hold 56
    assert all(rows.count(row) >= 2 for row in range(28))
    assert len(set(keys[:56])) == 56  # the two visits to an image have seeds of their own
    assert ResumableSampler.iterations_per_epoch(dataset, 1) == 10


def test_a_image_has_other_crops_in_each_epoch_and_repetition(make_mixture):
    dataset = make_mixture(weight=2)
    sampler, keys = ResumableSampler(dataset, 1, 0, seed=1), []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys += [key for key in set(sampler) if key.row == 5]
    assert len(keys) == len(set(keys)) == 6
    crops = [dataset[key]["img"] for key in keys]
    assert not any(torch.equal(a, b) for i, a in enumerate(crops) for b in crops[:i])


def test_order_is_taken_up_after_any_iteration(make_mixture):
    dataset = make_mixture()
    whole = ResumableSampler(dataset, 1, 0, seed=1)
    per_epoch = len(whole) // 6
    orders = []
    for epoch in (0, 1, 2):
        whole.set_epoch(epoch)
        orders += list(whole)
    for done in (0, 1, per_epoch - 1, per_epoch, per_epoch + 2):
        resumed, rest = ResumableSampler(dataset, 1, 0, seed=1, start_iter=done), []
        for epoch in range(done // per_epoch, 3):
            resumed.set_epoch(epoch)
            rest += list(resumed)
        assert rest == orders[done * 6 :]


def test_processes_share_the_batches_of_one(make_mixture):
    one, halves = make_mixture(batch_size_per_gpu=6), make_mixture(batch_size_per_gpu=3)
    single = ResumableSampler(one, 1, 0, seed=1)
    pair = [ResumableSampler(halves, 2, rank, seed=1) for rank in (0, 1)]
    for sampler in (single, *pair):
        sampler.set_epoch(1)
    whole, first, second = list(single), *map(list, pair)
    for i in range(len(whole) // 6):
        assert sorted(whole[6 * i : 6 * i + 6]) == sorted(
            first[3 * i : 3 * i + 3] + second[3 * i : 3 * i + 3]
        )


def test_unshuffled_order(make_mixture):
    dataset = make_mixture()
    sampler = ResumableSampler(dataset, 1, 0, use_shuffle=False)
    sampler.set_epoch(0)
    assert [visit.row for visit in sampler] == [*range(28), 0, 1]


def test_seeds_of_different_parts_differ():
    seeds = {derive_seed(*parts) for parts in [(0, 1), (1, 0), (0, 11), (1,), (0, 1, 0)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "name,mos\na.png,high\nb.png,1\n",
            r"1 scores are not numbers; the first is 'high' of 'a\.png'",
        ),
        ("name,mos\na.png,\nb.png,inf\n", r"2 scores are not numbers; the first is '' of 'a\.png'"),
        ("name,mos\na.png,1\na.png,2\n", r"1 names come more than once, the first is 'a\.png'"),
        ("name\na.png\n", "expected a column mos, got"),
        ("name,mos\n", "got 0 rows"),
    ],
)
def test_bad_tables(make_dataset, tmp_path, content, message):
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        make_dataset(meta_info_file=str(tmp_path / "m.csv"))


def test_names_of_digits_stay_text(make_dataset, tmp_path):
    (tmp_path / "m.csv").write_text("name,mos\n001,1\n002,2\n")
    dataset = make_dataset(
        meta_info_file=str(tmp_path / "m.csv"), split_index=None, batch_size_per_gpu=1
    )
    assert dataset.paths_mos[0][0].endswith("/001")


def test_missing_table(make_dataset):
    with pytest.raises(OSError, match=r"nowhere\.csv: cannot be read as a csv"):
        make_dataset(meta_info_file="nowhere.csv")


def test_missing_and_empty_splits(make_dataset, tmp_path, images):
    with pytest.raises(
        ValueError,
        match=r"no column 'ratio712_seed123_split_11'; its split columns are \['ratio712_s",
    ):
        make_dataset(split_index=11)
    table = pd.read_csv(images / "meta.csv").assign(my_split="train")
    table.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match=r"no row is 'val' in 'my_split', found \['train'\]"):
        make_dataset("val", meta_info_file=str(tmp_path / "m.csv"), split_index="my_split")


def test_eight_to_two_is_train_and_val_to_test(make_dataset):
    """Where the csv has no split of that ratio."""
    of = {phase: make_dataset(phase) for phase in ("train", "val", "test")}
    names = {phase: {row[0] for row in dataset.paths_mos} for phase, dataset in of.items()}
    train, test = (make_dataset(phase, split_ratio="802") for phase in ("train", "test"))
    assert {row[0] for row in train.paths_mos} == names["train"] | names["val"]
    assert {row[0] for row in test.paths_mos} == names["test"]
    with pytest.raises(ValueError, match="no row is 'val' in 'ratio802_seed123_split_01'"):
        make_dataset("val", split_ratio="802")


def test_fewer_images_than_a_batch(make_mixture):
    with pytest.raises(ValueError, match="28 images to train on, fewer than one batch of 29"):
        make_mixture(batch_size_per_gpu=29)


@pytest.fixture
def damaged(images, tmp_path):
    """A copy of the set with a missing, a foreign and a truncated file."""
    root = tmp_path / "damaged"
    shutil.copytree(images, root)
    (root / "000.png").unlink()
    (root / "001.png").write_text("not an image")
    whole = (root / "002.png").read_bytes()
    (root / "002.png").write_bytes(whole[: len(whole) // 2])
    return root


def test_files_are_checked_before_training(make_dataset, damaged):
    dataset = make_dataset(dataroot_target=str(damaged), split_index=None)
    with pytest.raises(
        OSError,
        match=r"2 of 40 images cannot be used: .*000\.png: no such file; .*001\.png: cannot be",
    ):
        check_images(dataset.images)


def test_bad_file_in_a_worker_is_an_error_and_no_hang(make_dataset, damaged, monkeypatch):
    monkeypatch.setattr(
        _utils, "MP_STATUS_CHECK_INTERVAL", 0.2
    )  # else 5 s, whenever the loader is collected
    dataset = make_dataset(dataroot_target=str(damaged), split_index=None)
    row = [path.rsplit("/")[-1] for path, *_ in dataset.paths_mos].index("002.png")
    with pytest.raises(OSError, match=r"002\.png: damaged image"):
        list(DataLoader(dataset, sampler=[row], num_workers=1))
    gc.collect()


def test_bits_of_the_order_are_those_of_earlier_versions(make_mixture):
    """Rows and crops of a seed are what version 0.1 drew, so that its runs can be repeated."""
    sampler = ResumableSampler(make_mixture(), 1, 0, seed=1)
    sampler.set_epoch(3)
    order = torch.randperm(28, generator=torch.Generator().manual_seed(derive_seed(1, 3)))
    of_epoch = 1 + derive_seed(1, 3, 0) // 2**31
    expected = [(row, derive_seed(of_epoch, row)) for row in order.tolist()]
    assert list(sampler)[:28] == expected


def test_constant_scores(make_dataset, tmp_path):
    (tmp_path / "m.csv").write_text("name,mos\na.png,0.5\nb.png,0.5\n")
    dataset = make_dataset(meta_info_file=str(tmp_path / "m.csv"), split_index=None)
    with pytest.raises(
        ValueError, match=r"train: all 2 scores are 0\.5; expected scores that diff"
    ):
        dataset.check_scores(None)


def test_overlap(make_dataset, images, tmp_path):
    sets = {phase: make_dataset(phase) for phase in ("train", "val", "test")}
    check_no_overlap(sets)
    with pytest.raises(ValueError, match="val and train share 28 images or references"):
        check_no_overlap({"train": sets["train"], "val": make_dataset("train")})
    table = pd.read_csv(images / "meta.csv").assign(reference="one.png")
    table.to_csv(tmp_path / "m.csv", index=False)
    changed = {
        phase: make_dataset(phase, meta_info_file=str(tmp_path / "m.csv"))
        for phase in ("train", "test")
    }
    with pytest.raises(
        ValueError, match=r"test and train share 1 images or references: reference one\.png"
    ):
        check_no_overlap(changed)
