"""Images and scores for training, validation and test, on top of pyiqa's datasets.

What pyiqa lacks and this adds: several crops from one decode, random numbers that depend on nothing but (seed, epoch,
image), and plain errors for bad tables and bad files.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pyiqa.data.general_nr_dataset import GeneralNRDataset
from torch import Tensor

from lifeiqa_plugin.datasets.table import REFERENCE, read_meta
from lifeiqa_plugin.images.distortions import random_ladder
from lifeiqa_plugin.images.reading import check_image, find_images, read_image
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.training.order import derive_seed


def random_crops(
    image: Tensor, count: int, crop_size: int, hflip: bool, generator: torch.Generator | None
) -> Tensor:
    """Cut (C, H, W) into (count, C, crop_size, crop_size) at random places, each mirrored half of the time."""
    crops = []
    for _ in range(count):
        top, left = (
            int(torch.randint(side - crop_size + 1, (), generator=generator))
            for side in image.shape[1:]
        )
        crop = image[:, top : top + crop_size, left : left + crop_size]
        mirrored = hflip and bool(torch.rand((), generator=generator) < 0.5)
        crops.append(crop.flip(2) if mirrored else crop)
    return torch.stack(crops)


class LifeIQADataset(GeneralNRDataset):  # type: ignore[misc]  # pyiqa is not typed
    """A meta csv (name, mos, ...) as crops for training and as whole images for validation and test.

    Option keys beside pyiqa's ``meta_info_file``, ``dataroot_target``, ``split_index``, ``split_ratio``,
    ``mos_normalize``, ``mos_range`` and ``lower_better``:
        crops_per_image: crops from each decode, 1. A batch holds ``batch_size_per_gpu`` images with all their crops.
        crop_size: side of a crop, 224; the network's own.
        working_size: shorter side to which larger images are reduced first, 384; the network's own.
        hflip: mirror half of the crops, true.
        ladder_share: part of the images whose crops are not ``crops_per_image`` different places, but one place in
            growing severities of a distortion, half of them from the undistorted on; 0. ``train.rank_weight`` ranks
            them.
        ladder_folder: clean photos without scores that stand in for half of these images; none.

    An item is ``img`` (crops_per_image, 3, crop_size, crop_size) in training and (3, H, W) else, ``mos_label`` (1,),
    ``img_path`` and, in training, ``is_ladder`` (), whether the label is of the first crop only. The label is NaN for
    a photo of ``ladder_folder`` and for a ladder whose first crop is distorted.

    Raises:
        OSError: the csv cannot be read.
        ValueError: a score that is not a number, a split that does not exist or is empty, fewer images than a batch.
    """

    paths_mos: list[Any]

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        if not self.paths_mos:
            found = (
                sorted(set(self.meta_info[opt["split_index"]]))
                if opt.get("split_index") in self.meta_info
                else []
            )
            raise ValueError(
                f"{opt['meta_info_file']}: no row is {self.phase!r} in {opt.get('split_index')!r}, found {found}"
            )
        batch = opt.get("batch_size_per_gpu", 1)
        if self.phase == "train" and len(self) < batch:
            raise ValueError(
                f"{opt['meta_info_file']}: {len(self)} images to train on, fewer than one batch of {batch}"
            )
        share = opt.get("ladder_share", 0.0)
        if not 0 <= share <= 1:
            raise ValueError(f"ladder_share must be from 0 to 1, a part of the images, got {share}")
        if share and opt.get("crops_per_image", 1) < 2:
            raise ValueError(
                "ladder_share needs crops_per_image of 2 or more, the undistorted crop and its rungs"
            )
        folder = opt.get("ladder_folder")
        self.ladder_photos = [] if folder is None else find_images(folder)

    def init_path_mos(self, opt: dict[str, Any]) -> None:
        """Read the csv; pyiqa calls this, then ``mos_normalize``, then ``get_split``."""
        self.meta_info = read_meta(opt["meta_info_file"])
        names, scores = self.meta_info.iloc[:, 0], self.meta_info.iloc[:, 1]
        root = Path(opt["dataroot_target"]).expanduser()
        self.paths_mos = [
            [str(root / name), float(score)] for name, score in zip(names, scores, strict=True)
        ]

    def get_split(self, opt: dict[str, Any]) -> None:
        """Keep the rows of this phase, and their references for :func:`check_no_overlap`."""
        references = self.meta_info.get(REFERENCE, pd.Series([""] * len(self.meta_info)))
        self.paths_mos = [[*row, ref] for row, ref in zip(self.paths_mos, references, strict=True)]
        index = opt.get("split_index")
        column = (
            f"ratio{opt.get('split_ratio', '802')}_seed123_split_{index:02d}"
            if isinstance(index, int)
            else index
        )
        if opt.get("split_file") is None and column is not None and column not in self.meta_info:
            splits = [name for name in self.meta_info if "split" in name]
            raise ValueError(
                f"{opt['meta_info_file']}: no column {column!r}; its split columns are {splits}"
            )
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
            OSError: names up to five files that are missing or no images, and says how many there are.
        """
        problems = []
        for path, *_ in self.paths_mos:
            try:
                check_image(path)
            except (OSError, ValueError) as error:
                problems.append(str(error))
        if problems:
            raise OSError(
                f"{len(problems)} of {len(self)} images cannot be used: {'; '.join(problems[:5])}; "
                "correct the folder, or remove their rows from the csv"
            )

    def __getitem__(self, key: int) -> dict[str, Any]:
        """Decode one image; ``key`` is its row plus, from :class:`ResumableSampler`, ``len(self)`` times a seed."""
        seed, row = divmod(key, len(self))
        path, mos = self.paths_mos[row][:2]
        if self.phase != "train":
            return {"img": read_image(path), "mos_label": torch.tensor([mos]), "img_path": path}
        generator = torch.Generator().manual_seed(derive_seed(seed, row)) if seed else None
        share = self.opt.get("ladder_share", 0.0)
        is_ladder = share > 0 and bool(torch.rand((), generator=generator) < share)
        if is_ladder and self.ladder_photos and torch.rand((), generator=generator) < 0.5:
            path = self.ladder_photos[
                int(torch.randint(len(self.ladder_photos), (), generator=generator))
            ]
            mos = math.nan
        image, count = read_image(path), self.opt.get("crops_per_image", 1)
        if is_ladder:
            rungs, is_clean = random_ladder(image, count, generator)
            crops, mos = (
                self._training_crops(torch.stack(rungs), 1, generator),
                mos if is_clean else math.nan,
            )
        else:
            crops = self._training_crops(image[None], count, generator)
        return {
            "img": crops,
            "mos_label": torch.tensor([mos]),
            "img_path": path,
            "is_ladder": is_ladder,
        }

    def _training_crops(
        self, images: Tensor, count: int, generator: torch.Generator | None
    ) -> Tensor:
        """(N, 3, H, W) -> (count * N, 3, crop_size, crop_size), ``count`` places, the same of all N."""
        size = self.opt.get("crop_size", 224)
        images = to_working_size(
            images, size, self.opt.get("working_size", max(384, size))
        ).flatten(0, 1)
        crops = random_crops(images, count, size, self.opt.get("hflip", True), generator)
        return crops.reshape(-1, 3, size, size)


def check_no_overlap(datasets: dict[str, LifeIQADataset]) -> None:
    """Make sure that no image and no reference image is in two of the datasets.

    Raises:
        ValueError: names the two datasets and up to three shared images.
    """
    seen: dict[str, str] = {}
    for phase, dataset in datasets.items():
        root = dataset.opt["dataroot_target"]
        own = {str(Path(row[0]).resolve()) for row in dataset.paths_mos}
        own |= {f"reference {row[2]} in {root}" for row in dataset.paths_mos if row[2]}
        shared = sorted(own & seen.keys())
        if shared:
            raise ValueError(
                f"{phase} and {seen[shared[0]]} share {len(shared)} images or references: {', '.join(shared[:3])}; "
                "choose another split, 'lifeiqa prepare' writes clean ones"
            )
        seen |= dict.fromkeys(own, phase)
