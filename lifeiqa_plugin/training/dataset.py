"""Images and scores for training, validation and test, on top of pyiqa's datasets.

What pyiqa lacks and this adds: several crops from one decode, random numbers that depend on nothing but the seed of a
visit, and plain errors for bad tables and bad files.
"""

from __future__ import annotations

import math
from itertools import compress
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import torch
from pyiqa.data.general_nr_dataset import GeneralNRDataset
from torch import Generator, Tensor

from lifeiqa_plugin.datasets.labelled import LabelledImage, name_below
from lifeiqa_plugin.datasets.pairs import holds_pairs, read_pairs
from lifeiqa_plugin.datasets.table import (
    MOS_STD,
    REFERENCE,
    VOTES,
    check_column,
    check_mos_range,
    read_meta,
    standard_errors,
)
from lifeiqa_plugin.distortions.kinds import KINDS, random_ladder
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.training.checking import view
from lifeiqa_plugin.training.sections import TrainingSetOptions

CLEAN, UNKNOWN = -1, -2
"""Of ``kinds``: no distortion was added; nothing is known of it."""


def random_crops(
    image: Tensor, count: int, crop_size: int, hflip: bool, generator: Generator
) -> Tensor:
    """Cut (C, H, W) into (count, C, crop_size, crop_size) at random places, each mirrored half of the time."""
    crops = []
    for _ in range(count):
        top, left = (_randint(side - crop_size + 1, generator) for side in image.shape[1:])
        crop = image[:, top : top + crop_size, left : left + crop_size]
        if hflip and _happens(0.5, generator):
            crop = crop.flip(2)
        crops.append(crop)
    return torch.stack(crops)


def _randint(end: int, generator: Generator) -> int:
    return int(torch.randint(end, (), generator=generator))


def _happens(chance: float, generator: Generator) -> bool:
    return bool(torch.rand((), generator=generator) < chance)


class LifeIQADataset(GeneralNRDataset):  # type: ignore[misc]  # pyiqa is not typed
    """A meta csv (name, mos, ...) as crops for training and as whole images for validation and test.

    Without a csv, all images below the folder, which have no scores and are shown at distortion levels. For training
    also a csv of pairs of images with votes; a row is a pair then.

    :class:`~lifeiqa_plugin.training.sections.TrainingSetOptions` describes the option keys.

    An item is ``img`` (crops_per_image, 3, crop_size, crop_size) in training and (3, H, W) else, ``mos_label`` (1,),
    ``img_path`` and, in training, ``has_levels`` (), whether the crops are growing levels of one distortion, of which
    only the first has the label, and ``kinds`` (crops_per_image,), the distortion of each crop as a number in
    ``KINDS``, or ``CLEAN``, or ``UNKNOWN`` where ``has_levels`` is false. The label is NaN for a photo of
    ``ladder_folder``, for a pair and where the first crop is distorted. The first half of the crops of a pair is of its
    left image; ``votes`` (2,) are those for the left and for the right one, zeros if it is no pair.

    Raises:
        OSError: the csv cannot be read.
        ValueError: a score that is not a number, a split that does not exist or is empty, an option out of its range.
    """

    paths_mos: list[Any]
    is_pairs = False

    def __init__(self, opt: dict[str, Any]) -> None:
        self.options = view(TrainingSetOptions, opt)
        super().__init__(opt)
        share = self.options.ladder_share
        if share and self.options.crops_per_image < 2:
            raise ValueError(
                "ladder_share needs crops_per_image of 2 or more, one for each distortion level"
            )
        size, drawn = self.options.crop_size or 1, self.options.working_range
        if drawn is not None and not size <= drawn[0] <= drawn[1]:
            raise ValueError(
                f"working_range must be [lowest, highest], both at least crop_size={size}, got {drawn}"
            )
        if self.is_pairs and (self.options.crops_per_image % 2 or self.options.own_scale):
            raise ValueError(
                f"{opt['meta_info_file']}: pairs need an even crops_per_image, half for each image, and no own_scale; "
                f"got {self.options.crops_per_image} and {self.options.own_scale}"
            )
        folder = self.options.ladder_folder
        self.clean_photos = [] if folder is None else find_images(folder)
        floor = self.options.weigh_opinions
        self.weights = [1.0] * len(self) if floor is None else self._weights(floor)

    def init_path_mos(self, opt: dict[str, Any]) -> None:
        """Read the csv; pyiqa calls this, then ``mos_normalize``, then ``get_split``."""
        root = Path(opt["dataroot_target"]).expanduser()
        if self.options.meta_info_file is None:
            self.paths_mos = [[path, math.nan] for path in find_images(root)]
            self.meta_info = pd.DataFrame(index=range(len(self.paths_mos)))
            return
        self.is_pairs = self.phase == "train" and holds_pairs(self.options.meta_info_file)
        if self.is_pairs:
            self.meta_info = read_pairs(self.options.meta_info_file)
            self.paths_mos = [
                [str(root / left), math.nan, str(root / right), votes]
                for left, right, *votes in self.meta_info.to_numpy()
            ]
            return
        self.meta_info = read_meta(opt["meta_info_file"])
        names, scores = self.meta_info.iloc[:, 0], self.meta_info.iloc[:, 1]
        self.paths_mos = [
            [str(root / name), float(score)] for name, score in zip(names, scores, strict=True)
        ]

    def get_split(self, opt: dict[str, Any]) -> None:
        """Keep the rows of this phase, and their references for :func:`check_no_overlap`."""
        references = self.meta_info.get(REFERENCE, pd.Series([""] * len(self.meta_info)))
        rows = zip(self.paths_mos, references, strict=True)
        self.paths_mos = [[path, mos, ref, *pair] for (path, mos, *pair), ref in rows]
        if self.options.split_file is not None:
            self.get_split_with_file(opt)
            return
        column = split_column(self.options.split_index, self.options.split_ratio)
        if column is None:
            return
        whole = split_column(self.options.split_index, "712")
        is_joined = self.options.split_ratio == "802" and whole in self.meta_info
        if column not in self.meta_info and is_joined:
            joined = self.meta_info[whole].replace("val", "train")
            self.meta_info = self.meta_info.assign(**{column: joined})
        check_column(opt["meta_info_file"], self.meta_info, column)
        is_own = self.meta_info[column] == self.phase
        self.paths_mos = list(compress(self.paths_mos, is_own))
        if not self.paths_mos:
            found = sorted(set(self.meta_info[column]))
            raise ValueError(
                f"{opt['meta_info_file']}: no row is {self.phase!r} in {column!r}, found {found}"
            )

    def _weights(self, floor: float) -> list[float]:
        """Return the inverse variance of each label beside an error of ``floor``, 1 on average."""
        path, root = self.opt["meta_info_file"], Path(self.opt["dataroot_target"]).expanduser()
        low, high = self.opt["mos_range"] if self.options.mos_normalize else (0, 1)
        names, errors = self.meta_info.iloc[:, 0], standard_errors(path, self.meta_info)
        known = {str(root / name): error for name, error in zip(names, errors, strict=True)}
        own = [known[row[0]] / (high - low) for row in self.paths_mos]
        if not all(map(math.isfinite, own)):
            raise ValueError(
                f"{path}: weigh_opinions needs a number in each row of {MOS_STD} and {VOTES}"
            )
        weights = [1 / (floor**2 + error**2) for error in own]
        mean = fmean(weights)
        return [weight / mean for weight in weights]

    def get_transforms(self, opt: dict[str, Any]) -> None:
        """Replace pyiqa's transforms, which draw from NumPy and ``random``."""

    @property
    def images(self) -> list[LabelledImage]:
        """All rows, as :class:`~lifeiqa_plugin.datasets.labelled.LabelledDataset` has them; of pairs each image."""
        root = self.opt["dataroot_target"]
        rows = [(row[0], row[1]) for row in self.paths_mos]
        if self.is_pairs:
            both = dict.fromkeys(path for row in self.paths_mos for path in (row[0], row[3]))
            rows = [(path, math.nan) for path in both]
        return [LabelledImage(name_below(path, root), path, mos) for path, mos in rows]

    @property
    def mos(self) -> list[float]:
        """Scores of all rows."""
        return [row[1] for row in self.paths_mos]

    @property
    def labels(self) -> list[float]:
        """Scores of the rows that have one."""
        return [mos for mos in self.mos if math.isfinite(mos)]

    def check_scores(self, score_range: tuple[float, float] | None) -> None:
        """See that there is something to learn, or to be judged by, and that a network can give all of it.

        Scores with ``own_scale`` may lie anywhere: they are brought to the shared scale.

        Raises:
            ValueError: all scores are the same, or some outside the network's range.
        """
        name, labels = self.options.name, self.labels
        if len(set(labels)) == 1:
            raise ValueError(
                f"{name}: all {len(self)} scores are {labels[0]:g}; expected scores that differ"
            )
        if not self.options.own_scale:
            check_mos_range(labels, score_range, f"{name} ({self.options.meta_info_file})")

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Decode one image, for training of a (row, seed); pyiqa's own order has only rows."""
        if isinstance(key, int) and self.phase != "train":
            path, mos = self.paths_mos[key][:2]
            return {"img": read_image(path), "mos_label": torch.tensor([mos]), "img_path": path}
        row, seed = key if isinstance(key, tuple) else (key, int(torch.randint(2**62, ())))
        generator = Generator().manual_seed(seed)
        share = self.options.ladder_share
        if share > 0 and _happens(share, generator):
            return self._distortion_levels(row, generator)
        path, mos, _, *pair = self.paths_mos[row]
        if pair:
            right, votes = pair
            return self._pair(path, right, votes, generator)
        crops = self._cut(read_image(path)[None], self.options.crops_per_image, generator)
        return self._training_item(crops, mos, path, has_levels=False)

    def _pair(
        self, left: str, right: str, votes: list[float], generator: Generator
    ) -> dict[str, Any]:
        """Half of the crops of each image."""
        half = self.options.crops_per_image // 2
        crops = [self._cut(read_image(path)[None], half, generator) for path in (left, right)]
        item = self._training_item(torch.cat(crops), math.nan, f"{left}, {right}", has_levels=False)
        return item | {"votes": torch.tensor(votes)}

    def _distortion_levels(self, row: int, generator: Generator) -> dict[str, Any]:
        """One place of the row's image, or of a photo without score, in growing distortion."""
        path, mos = self.paths_mos[row][:2]
        if self.clean_photos and _happens(0.5, generator):
            path = self.clean_photos[_randint(len(self.clean_photos), generator)]
            mos = math.nan
        levels = random_ladder(read_image(path), self.options.crops_per_image, generator)
        crops = self._cut(torch.stack(levels.images), 1, generator)
        item = self._training_item(
            crops, mos if levels.is_clean else math.nan, path, has_levels=True
        )
        item["kinds"][:] = list(KINDS).index(levels.kind)
        if levels.is_clean:
            item["kinds"][0] = CLEAN
        return item

    def _training_item(
        self, crops: Tensor, mos: float, path: str, has_levels: bool
    ) -> dict[str, Any]:
        return {
            "img": crops,
            "mos_label": torch.tensor([mos]),
            "img_path": path,
            "has_levels": has_levels,
            "kinds": torch.full((len(crops),), UNKNOWN),
            "votes": torch.zeros(2),
        }

    def _cut(self, images: Tensor, places: int, generator: Generator) -> Tensor:
        """(N, 3, H, W) -> (places * N, 3, crop_size, crop_size), the same places of all N."""
        size, working_size = self.options.crop_size, self.options.working_size
        if size is None or working_size is None:
            raise ValueError("crop_size and working_size are missing; give the network's")
        if self.options.working_range is not None:
            low, high = self.options.working_range
            working_size = low + _randint(high - low + 1, generator)
        stack = to_working_size(images, size, working_size).flatten(0, 1)  # (3 * N, H, W)
        crops = random_crops(stack, places, size, self.options.hflip, generator)
        return crops.reshape(-1, 3, size, size)


def split_column(index: int | str | None, ratio: str) -> str | None:
    """Return the csv's column of a split that is given by name, or by number and ratio."""
    return f"ratio{ratio}_seed123_split_{index:02d}" if isinstance(index, int) else index


def check_no_overlap(datasets: dict[str, LifeIQADataset]) -> None:
    """Make sure that no image and no reference image is in two of the datasets.

    Photos of a ``ladder_folder`` and of pairs may be training images, but not images of validation or test.

    Args:
        datasets: what an error calls them, which begins with their phase -> the datasets.

    Raises:
        ValueError: names the two datasets and up to three shared images.
    """
    seen: dict[str, str] = {}
    for called, dataset in datasets.items():
        if dataset.is_pairs:
            continue
        root = dataset.opt["dataroot_target"]
        own = {str(Path(row[0]).resolve()) for row in dataset.paths_mos}
        own |= {f"reference {row[2]} in {root}" for row in dataset.paths_mos if row[2]}
        _check_disjoint(called, own, seen)
        seen |= dict.fromkeys(own, called)
    held_out = {name: called for name, called in seen.items() if not called.startswith("train")}
    for called, dataset in datasets.items():
        of_pairs = [image.path for image in dataset.images if dataset.is_pairs]
        for kind, paths in {"ladder_folder": dataset.clean_photos, "pairs": of_pairs}.items():
            photos = {str(Path(path).resolve()) for path in paths}
            _check_disjoint(f"the {kind} of {called}", photos, held_out)


def _check_disjoint(called: str, own: set[str], seen: dict[str, str]) -> None:
    shared = sorted(own & seen.keys())
    if shared:
        raise ValueError(
            f"{called} and {seen[shared[0]]} share {len(shared)} images or references: {', '.join(shared[:3])}; "
            "choose another split, 'lifeiqa prepare' writes clean ones"
        )
