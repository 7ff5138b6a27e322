"""Pictures and scores for training, validation and test, on top of pyiqa's datasets.

What pyiqa lacks and this adds: several crops from one decode, random numbers that depend on nothing but (seed, epoch,
picture), an order of the data that can be taken up in its middle, and plain errors for bad tables and bad files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageFile
from pyiqa.data.data_sampler import EnlargedSampler
from pyiqa.data.general_nr_dataset import GeneralNRDataset
from torch import Tensor

from lifeiqa_plugin.crops import to_working_size
from lifeiqa_plugin.distortions import random_ladder

REFERENCE = "reference"
"""Column of a meta csv that names the pristine picture behind each row; rows that share it belong on one side."""


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed that is a function of the numbers given, in their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


# ------------------------------------------------------------------------------------------------------------ pictures


def open_picture(path: str | Path) -> Image.Image:
    """Open a file as a picture of 8 bits per channel; its pixels are not decoded yet.

    Raises:
        OSError: missing, no permission, or not a picture.
        ValueError: more than 8 bits per channel, which converting to RGB would clip without a word.
    """
    try:
        picture = Image.open(path)
    except FileNotFoundError as error:
        raise OSError(f"{path}: no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: cannot be read as a picture ({error})") from error
    if picture.mode.startswith(("I", "F")):
        picture.close()
        raise ValueError(f"{path}: has mode {picture.mode}, expected 8 bits per channel; convert the file first")
    return picture


@contextmanager
def whole_files_only() -> Iterator[None]:
    """Let Pillow refuse files whose end is missing; a data set of pyiqa tells it to fill them up, for all of Python."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_picture(path: str | Path) -> Tensor:
    """Decode a file to (3, H, W) float32 in [0, 1]; EXIF orientation is ignored, as in pyiqa.

    Raises:
        OSError, ValueError: as :func:`open_picture`, also for a file whose end is missing.
    """
    with open_picture(path) as picture, whole_files_only():
        try:
            pixels = np.array(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise OSError(f"{path}: damaged picture ({error}); replace the file or remove its row") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)


def random_crops(picture: Tensor, count: int, crop_size: int, hflip: bool, generator: torch.Generator | None) -> Tensor:
    """Cut (C, H, W) into (count, C, crop_size, crop_size) at random places, each mirrored half of the time."""
    crops = []
    for _ in range(count):
        top, left = (int(torch.randint(side - crop_size + 1, (), generator=generator)) for side in picture.shape[1:])
        crop = picture[:, top : top + crop_size, left : left + crop_size]
        mirrored = hflip and bool(torch.rand((), generator=generator) < 0.5)
        crops.append(crop.flip(2) if mirrored else crop)
    return torch.stack(crops)


# ------------------------------------------------------------------------------------------------------------- dataset


class LifeIQADataset(GeneralNRDataset):  # type: ignore[misc]  # pyiqa is not typed
    """A meta csv (name, mos, ...) as crops for training and as whole pictures for validation and test.

    Option keys beside pyiqa's ``meta_info_file``, ``dataroot_target``, ``split_index``, ``split_ratio``,
    ``mos_normalize``, ``mos_range`` and ``lower_better``:
        crops_per_image: crops from each decode, 1. A batch holds ``batch_size_per_gpu`` pictures with all their crops.
        crop_size: side of a crop, 224; the network's own.
        working_size: shorter side to which larger pictures are reduced first, 384; the network's own.
        hflip: mirror half of the crops, true.
        ladder_share: part of the pictures whose crops are not ``crops_per_image`` different places, but one place in
            growing severities of a distortion, half of them from the undistorted on; 0. ``train.ladder_weight`` ranks
            them.
        ladder_folder: clean photos without scores that stand in for half of these pictures; none.

    An item is ``img`` (crops_per_image, 3, crop_size, crop_size) in training and (3, H, W) else, ``mos_label`` (1,),
    ``img_path`` and, in training, ``is_ladder`` (), whether the label is of the first crop only. The label is NaN for
    a photo of ``ladder_folder`` and for a ladder whose first crop is distorted.

    Raises:
        OSError: the csv cannot be read.
        ValueError: a score that is not a number, a split that does not exist or is empty, fewer pictures than a batch.
    """

    paths_mos: list[Any]

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        if not self.paths_mos:
            found = sorted(set(self.meta_info[opt["split_index"]])) if opt.get("split_index") in self.meta_info else []
            raise ValueError(
                f"{opt['meta_info_file']}: no row is {self.phase!r} in {opt.get('split_index')!r}, found {found}"
            )
        batch = opt.get("batch_size_per_gpu", 1)
        if self.phase == "train" and len(self) < batch:
            raise ValueError(
                f"{opt['meta_info_file']}: {len(self)} pictures to train on, fewer than one batch of {batch}"
            )
        share = opt.get("ladder_share", 0.0)
        if not 0 <= share <= 1:
            raise ValueError(f"ladder_share must be from 0 to 1, a part of the pictures, got {share}")
        if share and opt.get("crops_per_image", 1) < 2:
            raise ValueError("ladder_share needs crops_per_image of 2 or more, the undistorted crop and its rungs")
        folder = opt.get("ladder_folder")
        self.ladder_photos = [] if folder is None else find_pictures(folder)

    def init_path_mos(self, opt: dict[str, Any]) -> None:
        """Read the csv; pyiqa calls this, then ``mos_normalize``, then ``get_split``."""
        self.meta_info = read_meta(opt["meta_info_file"])
        names, scores = self.meta_info.iloc[:, 0], self.meta_info.iloc[:, 1]
        root = Path(opt["dataroot_target"]).expanduser()
        self.paths_mos = [[str(root / name), float(score)] for name, score in zip(names, scores, strict=True)]

    def get_split(self, opt: dict[str, Any]) -> None:
        """Keep the rows of this phase, and their references for :func:`check_no_overlap`."""
        references = self.meta_info.get(REFERENCE, pd.Series([""] * len(self.meta_info)))
        self.paths_mos = [[*row, ref] for row, ref in zip(self.paths_mos, references, strict=True)]
        index = opt.get("split_index")
        column = f"ratio{opt.get('split_ratio', '802')}_seed123_split_{index:02d}" if isinstance(index, int) else index
        if opt.get("split_file") is None and column is not None and column not in self.meta_info:
            splits = [name for name in self.meta_info if "split" in name]
            raise ValueError(f"{opt['meta_info_file']}: no column {column!r}; its split columns are {splits}")
        super().get_split(opt)

    def get_transforms(self, opt: dict[str, Any]) -> None:
        """Replace pyiqa's transforms, which draw from NumPy and ``random``."""

    @property
    def mos(self) -> list[float]:
        """Scores of all rows."""
        return [row[1] for row in self.paths_mos]

    def check_files(self) -> None:
        """Open every file; pixels are not decoded.

        Raises:
            OSError: names up to five files that are missing or no pictures, and says how many there are.
        """
        problems = []
        for path, *_ in self.paths_mos:
            try:
                open_picture(path).close()
            except (OSError, ValueError) as error:
                problems.append(str(error))
        if problems:
            raise OSError(
                f"{len(problems)} of {len(self)} pictures cannot be used: {'; '.join(problems[:5])}; "
                "correct the folder, or remove their rows from the csv"
            )

    def __getitem__(self, key: int) -> dict[str, Any]:
        """Decode one picture; ``key`` is its row plus, from :class:`ResumableSampler`, ``len(self)`` times a seed."""
        seed, row = divmod(key, len(self))
        path, mos = self.paths_mos[row][:2]
        if self.phase != "train":
            return {"img": read_picture(path), "mos_label": torch.tensor([mos]), "img_path": path}
        generator = torch.Generator().manual_seed(derive_seed(seed, row)) if seed else None
        share = self.opt.get("ladder_share", 0.0)
        is_ladder = share > 0 and bool(torch.rand((), generator=generator) < share)
        if is_ladder and self.ladder_photos and torch.rand((), generator=generator) < 0.5:
            path = self.ladder_photos[int(torch.randint(len(self.ladder_photos), (), generator=generator))]
            mos = math.nan
        picture, count = read_picture(path), self.opt.get("crops_per_image", 1)
        if is_ladder:
            rungs, is_clean = random_ladder(picture, count, generator)
            crops, mos = self._training_crops(torch.stack(rungs), 1, generator), mos if is_clean else math.nan
        else:
            crops = self._training_crops(picture[None], count, generator)
        return {"img": crops, "mos_label": torch.tensor([mos]), "img_path": path, "is_ladder": is_ladder}

    def _training_crops(self, pictures: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        """(N, 3, H, W) -> (count * N, 3, crop_size, crop_size), ``count`` places, the same of all N."""
        size = self.opt.get("crop_size", 224)
        pictures = to_working_size(pictures, size, self.opt.get("working_size", max(384, size))).flatten(0, 1)
        crops = random_crops(pictures, count, size, self.opt.get("hflip", True), generator)
        return crops.reshape(-1, 3, size, size)


def find_pictures(folder: str | Path) -> list[str]:
    """Return the files in and below a folder whose names end as those of pictures do, sorted.

    Raises:
        ValueError: there is none, or no such folder.
    """
    known = Image.registered_extensions()
    found = sorted(str(path) for path in Path(folder).expanduser().rglob("*") if path.suffix.lower() in known)
    if not found:
        raise ValueError(f"{folder}: no pictures in it; expected a folder of {', '.join(sorted(known)[:3])} ... files")
    return found


def read_meta(path: str | Path) -> pd.DataFrame:
    """Read a csv whose first two columns are picture names and scores.

    Raises:
        OSError: no such file, or not text.
        ValueError: fewer than two columns, no rows, a score that is not a finite number, a name that comes twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise OSError(f"{path}: cannot be read as a csv of name, mos, ... ({error})") from error
    if table.shape[1] < 2 or table.empty:
        raise ValueError(f"{path}: expected rows of name, mos, ...; got {len(table)} rows of {list(table)}")
    numbers = pd.to_numeric(table.iloc[:, 1], errors="coerce")
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(bad.argmax())
        name, score = table.iloc[row, :2]
        raise ValueError(f"{path}: {int(bad.sum())} scores are not numbers; the first is {score!r} of {name!r}")
    twice = table.iloc[:, 0][table.iloc[:, 0].duplicated()]
    if len(twice):
        raise ValueError(f"{path}: {len(twice)} names come more than once, the first is {twice.iloc[0]!r}")
    table.isetitem(1, numbers)
    return table


def check_no_overlap(datasets: dict[str, LifeIQADataset]) -> None:
    """Make sure that no picture and no reference picture is in two of the datasets.

    Raises:
        ValueError: names the two datasets and up to three shared pictures.
    """
    seen: dict[str, str] = {}
    for phase, dataset in datasets.items():
        root = dataset.opt["dataroot_target"]
        own = {str(Path(row[0]).resolve()) for row in dataset.paths_mos}
        own |= {f"reference {row[2]} in {root}" for row in dataset.paths_mos if row[2]}
        shared = sorted(own & seen.keys())
        if shared:
            raise ValueError(
                f"{phase} and {seen[shared[0]]} share {len(shared)} pictures or references: {', '.join(shared[:3])}; "
                "choose another split, 'lifeiqa prepare' writes clean ones"
            )
        seen |= dict.fromkeys(own, phase)


# --------------------------------------------------------------------------------------------------------------- order


class ResumableSampler(EnlargedSampler):  # type: ignore[misc]  # pyiqa is not typed
    """Order of the rows: a function of (seed, epoch), in whole batches, to be taken up after any iteration.

    Yields ``row + len(dataset) * s`` with ``s`` a function of (seed, epoch, repetition), from which the dataset draws
    the crops. The last batch of an epoch is filled up from the start of its order, so that pyiqa's count of iterations
    holds; the loader would drop it otherwise. Before ``set_epoch`` the order is empty, because pyiqa starts an
    iterator then that it throws away.

    Args:
        dataset: a :class:`LifeIQADataset`, whose ``batch_size_per_gpu`` is read.
        num_replicas: processes.
        rank: of this process.
        ratio: times that each row comes in an epoch.
        use_shuffle: False for the order of the csv.
        seed: of the run.
        start_iter: iterations that were done before this run was resumed.
        epochs: length of the run, after which the order is empty: pyiqa's loop starts one epoch too many.
    """

    def __init__(
        self,
        dataset: LifeIQADataset,
        num_replicas: int,
        rank: int,
        ratio: int = 1,
        use_shuffle: bool = True,
        *,
        seed: int = 0,
        start_iter: int = 0,
        epochs: float = math.inf,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, ratio, use_shuffle)
        self.batch: int = dataset.opt["batch_size_per_gpu"]
        self.iterations = self.iterations_per_epoch(dataset, num_replicas)
        self.num_samples = self.iterations * self.batch
        self.ratio, self.seed, self.start_iter, self.epochs = ratio, seed, start_iter, epochs
        self.epoch: int | None = None

    @staticmethod
    def iterations_per_epoch(dataset: LifeIQADataset, num_replicas: int) -> int:
        """Return the number of batches that each process takes in an epoch, as pyiqa counts them."""
        opt = dataset.opt
        rows: int = len(dataset) * opt.get("dataset_enlarge_ratio", 1)
        batch: int = opt["batch_size_per_gpu"]
        return math.ceil(rows / (batch * num_replicas))

    def __iter__(self) -> Iterator[int]:
        """Yield the keys of this process for the epoch that was set."""
        if self.epoch is None or self.epoch >= self.epochs:
            return iter([])
        rows, needed = len(self.dataset) * self.ratio, self.num_samples * self.num_replicas
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(rows, generator=generator) if self.use_shuffle else torch.arange(rows)
        order = order.repeat(math.ceil(needed / rows))[:needed]
        done = max(0, self.start_iter - self.epoch * self.iterations) * self.batch
        return iter([self._key(i) for i in order[self.rank :: self.num_replicas].tolist()[done:]])

    def _key(self, position: int) -> int:
        repetition, row = divmod(position, len(self.dataset))
        return row + len(self.dataset) * (1 + derive_seed(self.seed, self.epoch or 0, repetition) // 2**31)
