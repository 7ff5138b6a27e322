"""Measure whether the parts of an explanation are true, not only pretty.

    python measurements/explanations.py                              the clean photos of examples/photos
    python measurements/explanations.py FOLDER                       photos of a folder, clean ones
    python measurements/explanations.py FOLDER --varied FOLDER2      and photos of all qualities for the map's mean

- quarters: a quarter of the photo is distorted, in a corner or anywhere; is the lowest value of the quality map inside,
  and the highest of the map of its own distortion (see ``KINDS``)?
- clean: the price of that on clean photos: how often is the worst place where the photo is darkest, and how often
  does the sentence give a distortion a place?
- deletion: 32 x 32 cells are replaced by blurred ones, those first that the attribution names; how far does the score
  move, on average over the way, against a plain gradient and a random order? Farther is better.
- mean: rank correlation of the map's mean with the score.
- sanity: rank correlation of the attribution with that of a network whose weights are random, in the decoder or
  everywhere (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018). Near 0 is right.
- time: of map and attention, and of the attribution, as a multiple of one score, measured in turn.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from measuring import ROOT, conditions, markdown_table, median_ratio
from scipy.stats import spearmanr
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur
from tqdm import tqdm

from lifeiqa_plugin.benchmark.speed import time_in_turn
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.distortions.synthetic import Distortion, blur, darken, jpeg, noise
from lifeiqa_plugin.explanation.attribution import blurred, input_gradient, integrated_gradients
from lifeiqa_plugin.explanation.dense import distortion_maps, quality_map, score_all_windows
from lifeiqa_plugin.explanation.explain import explain
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
PARTS = ("quarters", "clean", "deletion", "mean", "sanity", "time")
CELL = 32
WAY = 10
"""Steps in which all cells are deleted."""


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


def cells(values: Tensor) -> Tensor:
    """Sum (H, W) over cells; what does not fill one is left out."""
    return F.avg_pool2d(values[None], CELL)[0] * CELL**2


def deletion_area(network: LifeIQA, x: Tensor, importance: Tensor) -> float:
    """Return how far the score moves, on average, while cells are deleted in the order of their importance."""
    rows, columns = importance.shape
    order = importance.flatten().argsort(descending=True, stable=True)
    soft = blurred(x)
    scores = []
    for step in range(WAY + 1):
        deleted = torch.zeros(rows * columns)
        deleted[order[: round(step * len(order) / WAY)]] = 1
        mask = deleted.view(1, 1, rows, columns)
        mask = mask.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
        mask = F.pad(
            mask, (0, x.shape[-1] - mask.shape[-1], 0, x.shape[-2] - mask.shape[-2]), "replicate"
        )
        with torch.no_grad():
            scores.append(network(torch.lerp(x, soft, mask)).item())
    return float(np.mean(np.abs(np.array(scores) - scores[0])))


def compare_deletion(network: LifeIQA, photos: list[Path]) -> dict[str, list[float]]:
    """Return the area of each photo for each order."""
    areas: dict[str, list[float]] = {
        "integrated gradients": [],
        "plain gradient": [],
        "random, mean of 3": [],
    }
    generator = torch.Generator().manual_seed(0)
    for path in tqdm(photos, desc="deletion"):
        x = read_working(network, path)
        attribution = cells(integrated_gradients(network, x).abs())
        gradient = cells(input_gradient(network, x).abs().sum((0, 1)))
        random = [torch.rand(gradient.shape, generator=generator) for _ in range(3)]
        areas["integrated gradients"].append(deletion_area(network, x, attribution))
        areas["plain gradient"].append(deletion_area(network, x, gradient))
        areas["random, mean of 3"].append(
            float(np.mean([deletion_area(network, x, order) for order in random]))
        )
    return areas


def map_mean_correlation(network: LifeIQA, photos: list[Path]) -> float:
    """Return the rank correlation of the map's mean with the score."""
    scores, means = [], []
    for path in tqdm(photos, desc="mean"):
        x = read_working(network, path)
        with torch.no_grad():
            scores.append(network(x).item())
        means.append(maps_of(network, x).quality.mean())
    return float(spearmanr(scores, means).statistic)


def randomized(network: LifeIQA, everywhere: bool) -> LifeIQA:
    """Return a copy with random weights in the decoder, or everywhere."""
    torch.manual_seed(0)
    fresh = LifeIQA(**(network.config | {"backbone_pretrained": False})).eval()
    if not everywhere:
        fresh.backbone.load_state_dict(network.backbone.state_dict())
    return fresh


def sanity_check(network: LifeIQA, photos: list[Path]) -> dict[str, list[float]]:
    """Return for each photo how much the attribution resembles that of random weights."""
    others = {
        "random decoder": randomized(network, everywhere=False),
        "random weights everywhere": randomized(network, everywhere=True),
    }
    found: dict[str, list[float]] = {name: [] for name in others}
    for path in tqdm(photos, desc="sanity"):
        x = read_working(network, path)
        own = cells(integrated_gradients(network, x)).flatten()
        for name, other in others.items():
            values = cells(integrated_gradients(other, x)).flatten()
            found[name].append(float(spearmanr(own, values).statistic))
    return found


def measure_time(network: LifeIQA, photo: Path, rounds: int) -> dict[str, float]:
    """Return how many times as long as a score other parts of an explanation take."""
    image = read_image(photo)

    def score() -> None:
        with torch.no_grad():
            network(image[None])

    seconds = time_in_turn(
        {
            "score": score,
            "map, attention, experts": lambda: explain(image, network, attribution_steps=0),
            "with attribution": lambda: explain(image, network),
        },
        rounds,
    )
    return {name: median_ratio(times, seconds["score"]) for name, times in seconds.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "examples" / "photos")
    parser.add_argument("--varied", type=Path, default=ROOT / "examples" / "photos")
    parser.add_argument("--checkpoint", type=Path, help="default: the weights that ship")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--photos", type=int, default=100, help="at most (default 100)")
    parser.add_argument("--cases", type=int, default=100, help="quarters (default 100)")
    parser.add_argument("--severity", type=float, default=0.6, help="of the quarters (default 0.6)")
    parser.add_argument("--deletions", type=int, default=20, help="photos (default 20)")
    parser.add_argument("--sanity", type=int, default=10, help="photos (default 10)")
    parser.add_argument("--rounds", type=int, default=5, help="timings (default 5)")
    args = parser.parse_args()
    network = build_lifeiqa(pretrained_model_path=args.checkpoint).eval()
    photos = find_photos(args.folder, args.photos)
    print(conditions(), f"\n{len(photos)} photos\n")

    if "quarters" in args.parts:
        for anywhere in (False, True):
            hits = find_quarters(network, photos, args.cases, args.severity, anywhere)
            print_quarters(
                hits, "distorted quarter, " + ("anywhere" if anywhere else "in a corner")
            )
    if "clean" in args.parts:
        found = look_at_clean_photos(network, photos)
        rows = [[what, f"{np.mean(cases):.0%}", str(len(cases))] for what, cases in found.items()]
        print(markdown_table(["clean photos", "share", "photos"], rows), "\n")
    if "deletion" in args.parts:
        print_deletion(compare_deletion(network, find_photos(args.folder, args.deletions)))
    if "mean" in args.parts:
        varied = [Path(name) for name in find_images(args.varied)]
        srcc = map_mean_correlation(network, varied)
        print(f"mean of the map, {len(varied)} photos: SRCC {srcc:.3f}\n")
    if "sanity" in args.parts:
        print_sanity(sanity_check(network, find_photos(args.folder, args.sanity)))
    if "time" in args.parts:
        ratios = measure_time(network, photos[0], args.rounds)
        rows = [[name, f"{ratio:.1f}"] for name, ratio in ratios.items()]
        print(markdown_table(["what", "times one score"], rows))


def print_quarters(hits: dict[str, dict[str, list[bool]]], title: str) -> None:
    """Print the share of cases in which each map was right, by kind and in all."""
    rows = []
    for name, by_kind in hits.items():
        together = [hit for found in by_kind.values() for hit in found]
        shares = [f"{np.mean(found):.0%}" for found in [*by_kind.values(), together]]
        rows.append([name, *shares, str(len(together))])
    kinds = [kind.__name__ for kind in KINDS]
    print(markdown_table([title, *kinds, "all", "cases"], rows), "\n")


def print_deletion(areas: dict[str, list[float]]) -> None:
    """Print the mean areas, and on how many photos integrated gradients have a larger one."""
    ours = np.array(areas["integrated gradients"])
    rows = []
    for name, area in areas.items():
        beaten = "" if name == "integrated gradients" else f"{np.mean(ours > area):.0%}"
        rows.append([name, f"{np.mean(area):.3f}", beaten])
    header = ["cells deleted in the order of", "mean change of the score", "photos it is worse on"]
    print(markdown_table(header, rows), "\n")


def print_sanity(found: dict[str, list[float]]) -> None:
    """Print the mean and the highest resemblance."""
    rows = [[name, f"{np.mean(srcc):.3f}", f"{np.max(srcc):.3f}"] for name, srcc in found.items()]
    print(markdown_table(["attribution with", "SRCC with ours, mean", "highest"], rows), "\n")


if __name__ == "__main__":
    main()
