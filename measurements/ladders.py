"""Measure whether the score falls at every step when clean photos are spoilt more and more.

    python measurements/ladders.py                      the clean photos of examples/photos
    python measurements/ladders.py FOLDER               all images of a folder
    python measurements/ladders.py FOLDER --meta CSV    the 50 best test images of a set prepared by 'lifeiqa prepare',
                                                      with --phase val its validation images

Larger photos are first reduced to a shorter side of 512, so that a degree means the same for all and their own
compression disappears. A ladder is one photo, one kind of distortion and five growing degrees. It counts as falling if
each of its six scores is below the one before. "Trained" are the kinds that training ranked, on other photos; "held
out" those it never saw.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import (
    ROOT,
    add_metric_arguments,
    conditions,
    create_lifeiqa,
    load_pyplot,
    markdown_table,
)
from torch import Tensor
from tqdm import tqdm

from lifeiqa_plugin.benchmark.photos import SEVERITIES, falls, find_photos, read_reduced
from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED, build_ladder
from lifeiqa_plugin.training.dataset import LifeIQADataset


def find_best(folder: Path, meta: Path, count: int, phase: str) -> list[Path]:
    """Return the images of a part of the official split with the highest opinion scores, the cleanest it has."""
    opt = {"phase": phase, "meta_info_file": str(meta), "dataroot_target": str(folder)}
    rows = LifeIQADataset(opt | {"split_index": "official_split"}).paths_mos
    return [Path(path) for path, *_ in sorted(rows, key=lambda row: -row[1])[:count]]


def draw(path: Path, scores: dict[str, np.ndarray]) -> None:
    """Write a plot of the mean score of each kind at each degree."""
    plt = load_pyplot()
    figure, panels = plt.subplots(
        4, 4, figsize=(9, 8), sharex=True, sharey=True, layout="constrained"
    )
    for axes, (kind, found) in zip(panels.flat, scores.items(), strict=True):
        axes.plot([0, *SEVERITIES], found.T, color="gray", alpha=0.25, linewidth=0.7)
        axes.plot(
            [0, *SEVERITIES],
            found.mean(0),
            "o-",
            color="C0" if kind in TRAINED else "C1",
            markersize=3,
        )
        axes.set_title(f"{kind}{'' if kind in TRAINED else ' (held out)'}", fontsize=9)
    figure.supxlabel("severity")
    figure.supylabel("score")
    figure.savefig(path, dpi=100)


def draw_failures(
    path: Path, images: list[Tensor], scores: dict[str, np.ndarray], seed: int
) -> None:
    """Write the four pairs of neighbouring rungs, each of another kind, whose score rises most."""
    plt = load_pyplot()
    rises = {kind: np.diff(found) for kind, found in scores.items()}
    worst = sorted(rises, key=lambda kind: -rises[kind].max())[:4]
    figure, panels = plt.subplots(
        len(worst), 2, figsize=(7, 2.6 * len(worst)), layout="constrained"
    )
    for row, kind in zip(panels, worst, strict=True):
        photo, step = np.unravel_index(rises[kind].argmax(), rises[kind].shape)
        ladder = build_ladder(images[photo], (TRAINED | HELD_OUT)[kind], SEVERITIES, seed)
        for axes, rung in zip(row, (step, step + 1), strict=True):
            axes.imshow(ladder[rung].permute(1, 2, 0).numpy())
            axes.set_title(f"{kind}, degree {rung}: {scores[kind][photo, rung]:.3f}", fontsize=9)
            axes.axis("off")
    figure.savefig(path, dpi=80, pil_kwargs={"quality": 80})


def main() -> None:
    """Parse the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "examples" / "photos")
    parser.add_argument(
        "--meta", type=Path, help="csv written by 'lifeiqa prepare' with an official split"
    )
    parser.add_argument("--count", type=int, default=50, help="images taken of --meta (default 50)")
    parser.add_argument(
        "--phase",
        default="test",
        choices=["train", "val", "test"],
        help="part of --meta (default test)",
    )
    parser.add_argument(
        "--side", type=int, default=512, help="shorter side of the photos (default 512)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random distortions")
    parser.add_argument("--figure", type=Path, help="image to draw of the scores")
    parser.add_argument(
        "--failures", type=Path, help="image to draw of steps at which the score rises"
    )
    add_metric_arguments(parser)
    args = parser.parse_args()
    metric = create_lifeiqa(args)
    photos = (
        find_photos(args.folder)
        if args.meta is None
        else find_best(args.folder, args.meta, args.count, args.phase)
    )
    images = [read_reduced(str(path), args.side) for path in photos]
    rows, kept = [], {}
    for use, kinds in {"trained": TRAINED, "held out": HELD_OUT}.items():
        shares = []
        for kind, distort in kinds.items():
            ladders = (build_ladder(image, distort, SEVERITIES, args.seed) for image in images)
            bar = tqdm(ladders, kind, len(images), unit="photo")
            kept[kind] = scores = np.array(
                [[metric(rung[None]).item() for rung in ladder] for ladder in bar]
            )
            shares.append(falls(scores).mean())
            steps, means = (
                (np.diff(scores) < 0).mean(),
                " ".join(f"{score:.2f}" for score in scores.mean(0)),
            )
            rows.append(
                [kind, use, f"{falls(scores).sum()} of {len(photos)}", f"{steps:.0%}", means]
            )
        rows.append([f"**all {len(kinds)}**", use, f"{np.mean(shares):.1%}", "", ""])
    if args.figure is not None:
        draw(args.figure, kept)
    if args.failures is not None:
        draw_failures(args.failures, images, kept, args.seed)
    print(f"{conditions()}; {len(photos)} photos, seed {args.seed}\n")
    print(
        markdown_table(
            ["distortion", "use", "ladders that fall", "steps that fall", "mean scores"], rows
        )
    )


if __name__ == "__main__":
    main()
