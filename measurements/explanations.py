"""Measure whether the maps of an explanation are true, not only pretty.

    python measurements/explanations.py                              the clean photos of examples/photos
    python measurements/explanations.py FOLDER                       photos of a folder, clean ones

- quarters: a quarter of the photo is distorted, in a corner or anywhere; is the lowest value of the quality map inside,
  and the highest of the map of its own distortion (see ``KINDS``)?
- clean: the price of that on clean photos: how often is the worst place where the photo is darkest, and how often
  does the sentence give a distortion a place?
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measuring import ROOT, conditions, markdown_table
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur
from tqdm import tqdm

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.distortions.synthetic import Distortion, blur, darken, jpeg, noise
from lifeiqa_plugin.explanation.dense import distortion_maps, quality_map, score_all_windows
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.words import by_ninth, find_local_flaw

KINDS: dict[Distortion, tuple[str, ...]] = {
    blur: ("blur", "motion blur"),
    noise: ("noise", "impulse noise"),
    jpeg: ("blocking", "ringing"),
    darken: ("dark",),
}
"""What distorts a quarter, and the names under which the network may know it."""


class Quarter(NamedTuple):
    """A rectangle of half the height and half the width."""

    top: int
    left: int
    height: int
    width: int

    def holds(self, row: int, column: int) -> bool:
        """Whether a pixel is inside."""
        return (
            self.top <= row < self.top + self.height
            and self.left <= column < self.left + self.width
        )

    def holds_lowest(self, values: np.ndarray) -> bool:
        """Whether the lowest value of a map is inside."""
        row, column = divmod(int(values.argmin()), values.shape[1])
        return self.holds(row, column)


def find_photos(folder: Path, count: int) -> list[Path]:
    """Return the clean photos ``*_0_clean.*`` of a folder, or all where there are none; of many, evenly spaced ones."""
    found = sorted(folder.glob("*_0_clean.*")) or [Path(name) for name in find_images(folder)]
    count = min(count, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def read_working(network: LifeIQA, path: Path) -> Tensor:
    """Return a photo (1, 3, H, W) at the size at which it is scored."""
    return to_working_size(read_image(path)[None], network.crop_size, network.working_size)


class Maps(NamedTuple):
    """What ``explain`` says of each place."""

    quality: np.ndarray  # (H, W)
    distortions: dict[str, np.ndarray]  # (H, W) by name


def maps_of(network: LifeIQA, x: Tensor) -> Maps:
    """Return the maps of an image (1, 3, H, W), and nothing else of its explanation."""
    passes, shape = score_all_windows(network, x), x.shape[-2:]
    flaws = distortion_maps(passes, *shape)
    quality = quality_map(passes, flaws, *shape)
    return Maps(quality, dict(zip(network.distortion_names, flaws, strict=True)))


def distort_a_quarter(
    x: Tensor, case: int, severity: float, anywhere: bool
) -> tuple[Tensor, Quarter, Distortion]:
    """Distort a quarter of (1, 3, H, W), in a corner or anywhere, with the kind and at the place of a case's number."""
    generator = torch.Generator().manual_seed(case)
    height, width = x.shape[-2] // 2, x.shape[-1] // 2
    lowest, rightmost = x.shape[-2] - height, x.shape[-1] - width
    if anywhere:
        top = int(torch.randint(lowest + 1, (), generator=generator))
        left = int(torch.randint(rightmost + 1, (), generator=generator))
    else:
        is_low, is_right = torch.randint(2, (2,), generator=generator).tolist()
        top, left = is_low * lowest, is_right * rightmost
    distort = list(KINDS)[case % len(KINDS)]
    place = np.s_[0, :, top : top + height, left : left + width]
    distorted = x.clone()
    distorted[place] = distort(x[place], severity, generator)
    return distorted, Quarter(top, left, height, width), distort


QUALITY, OWN = "quality", "its distortion"
"""The maps that should find the quarter."""


def find_quarters(
    network: LifeIQA, photos: list[Path], cases: int, severity: float, anywhere: bool
) -> dict[str, dict[str, list[bool]]]:
    """Return for each map and kind in which cases the map's worst value is inside of the distorted quarter."""
    hits = {name: {kind.__name__: [] for kind in KINDS} for name in (QUALITY, OWN)}
    for case in tqdm(range(cases), desc="anywhere" if anywhere else "corners"):
        # Photos and kinds in turn, so that each photo meets each kind.
        x = read_working(network, photos[case // len(KINDS) % len(photos)])
        distorted, quarter, distort = distort_a_quarter(x, case, severity, anywhere)
        maps = maps_of(network, distorted)
        own = np.max([maps.distortions[name] for name in KINDS[distort]], axis=0)
        for name, values in ((QUALITY, maps.quality), (OWN, -own)):
            hits[name][distort.__name__].append(quarter.holds_lowest(values))
    return hits


def look_at_clean_photos(network: LifeIQA, photos: list[Path]) -> dict[str, list[bool]]:
    """Return of which clean photos something is said that would rather not be."""
    found: dict[str, list[bool]] = defaultdict(list)
    for path in tqdm(photos, desc="clean"):
        x = read_working(network, path)
        maps = maps_of(network, x)
        light = gaussian_blur(x.mean(1), 65, 16.0)[0].numpy()
        is_darker = light < light.flat[maps.quality.argmin()]
        for part, share in (("tenth", 0.1), ("quarter", 0.25)):
            name = f"worst point in the darkest {part} (by chance {share:.0%})"
            found[name].append(bool(is_darker.mean() < share))
        is_darkest = by_ninth(maps.quality).argmin() == by_ninth(light).argmin()
        found["worst ninth is the darkest (by chance 11%)"].append(bool(is_darkest))
        local = find_local_flaw(list(maps.distortions), np.stack(list(maps.distortions.values())))
        found["a distortion has a place in the sentence"].append(local is not None)
        found["it is dark"].append(local is not None and local.name == "dark")
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "examples" / "photos")
    parser.add_argument("--checkpoint", type=Path, help="default: the weights that ship")
    parser.add_argument("--photos", type=int, default=100, help="at most (default 100)")
    parser.add_argument("--cases", type=int, default=100, help="quarters (default 100)")
    parser.add_argument("--severity", type=float, default=0.6, help="of the quarters (default 0.6)")
    args = parser.parse_args()
    network = build_lifeiqa(pretrained_model_path=args.checkpoint).eval()
    photos = find_photos(args.folder, args.photos)
    print(conditions(), f"\n{len(photos)} photos\n")

    for anywhere in (False, True):
        hits = find_quarters(network, photos, args.cases, args.severity, anywhere)
        print_quarters(hits, "distorted quarter, " + ("anywhere" if anywhere else "in a corner"))
    found = look_at_clean_photos(network, photos)
    rows = [[what, f"{np.mean(cases):.0%}", str(len(cases))] for what, cases in found.items()]
    print(markdown_table(["clean photos", "share", "photos"], rows), "\n")


def print_quarters(hits: dict[str, dict[str, list[bool]]], title: str) -> None:
    """Print the share of cases in which each map was right, by kind and in all."""
    rows = []
    for name, by_kind in hits.items():
        together = [hit for found in by_kind.values() for hit in found]
        shares = [f"{np.mean(found):.0%}" for found in [*by_kind.values(), together]]
        rows.append([name, *shares, str(len(together))])
    kinds = [kind.__name__ for kind in KINDS]
    print(markdown_table([title, *kinds, "all", "cases"], rows), "\n")


if __name__ == "__main__":
    main()
