"""Measure what the faster ways of ``lifeiqa score`` change: scores of the same images, by each way.

    python measurements/scoring_agreement.py --photos FOLDER  # large JPEGs, beside --exact
    python measurements/scoring_agreement.py --data_opt options/benchmark/cross.yml  # beside what people say

Of photos, those count that a JPEG decoder really shrinks in that way.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from measuring import conditions, markdown_table
from PIL import Image

import lifeiqa_plugin
from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.correlation import correlations, interval, resamples
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.images.stream import Recipe
from lifeiqa_plugin.runtimes import Engine, create_engine

SAMPLES = 1000
"""Of the bootstrap."""


def score(paths: list[str], engine: Engine, exact: bool) -> np.ndarray:
    """Return the scores (N,).

    Raises:
        SystemExit: an image has none.
    """
    rows = list(lifeiqa_plugin.score(paths, engine=engine, exact=exact))
    for row in rows:
        if row.error is not None:
            raise SystemExit(f"{row.name}: {row.error}")
    return np.array([row.score for row in rows])


def is_shrunk(path: str, engine: Engine) -> bool:
    """Tell whether an image is decoded at less than its size, if not exactly."""
    least = Recipe(engine.working_shape, engine.shrink_to).at_least
    with Image.open(path) as image:
        size = image.size
        image.draft(None, (least, least))
        return image.size != size


def compare_photos(folders: list[Path]) -> str:
    """Return a Markdown table of how far the scores of large photos are from those of ``--exact``."""
    engines = {"default": create_engine("onnxruntime"), "fast": create_engine(fast=True)}
    found = [path for folder in folders for path in find_images(folder)]
    shrunk = {name: [p for p in found if is_shrunk(p, one)] for name, one in engines.items()}
    scored = sorted({path for paths in shrunk.values() for path in paths})
    exactly = dict(zip(scored, score(scored, engines["default"], exact=True), strict=True))
    rows = []
    for name, paths in shrunk.items():
        print(f"{name}: {len(paths)} of {len(found)} photos are halved, or more", flush=True)
        exact = np.array([exactly[path] for path in paths])
        changed = score(paths, engines[name], exact=False)
        off = np.abs(changed - exact)
        srcc = correlations(changed, exact)["srcc"]
        within = f"{(off <= 0.005).sum()} of {len(off)}"
        values = [f"{value:.4f}" for value in (np.median(off), np.quantile(off, 0.99), off.max())]
        rows.append([name, *values, within, f"{srcc:.4f}"])
    return markdown_table(["way", "median", "99 %", "most", "within .005", "SRCC"], rows)


def compare_mos(names: list[str], option_file: Path | None) -> str:
    """Return a Markdown table of the SRCC with opinions of both networks, and the interval of their difference."""
    rows = []
    for dataset in find_datasets(names, read_option_file(option_file).entries):
        if dataset.kind != "mos":
            continue
        paths = [image.path for image in dataset.images]
        mos = np.array([image.mos for image in dataset.images])
        full, rounded = (
            score(paths, create_engine("onnxruntime", fast=fast), exact=False)
            for fast in (False, True)
        )
        both = [correlations(values, mos)["srcc"] for values in (full, rounded)]
        gains = []
        for chosen in resamples(len(mos), SAMPLES):
            one, other = (correlations(x[chosen], mos[chosen])["srcc"] for x in (full, rounded))
            gains.append(other - one)
        low, high = interval(np.array(gains))
        off = np.abs(full - rounded)
        agreement = correlations(full, rounded)["srcc"]
        row = [f"{dataset.name}, {len(mos)}", *(f"{value:.4f}" for value in both)]
        row.append(f"{both[1] - both[0]:+.4f} ({low:+.4f} to {high:+.4f})")
        rows.append([*row, f"{np.median(off):.4f}, {off.max():.4f}", f"{agreement:.4f}"])
    header = ["dataset, images", "SRCC float32", "8 bits", "difference (95 %)"]
    return markdown_table([*header, "scores differ: median, most", "SRCC of both"], rows)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, nargs="+", metavar="FOLDER", help="large JPEGs")
    parser.add_argument("-d", nargs="+", default=[], metavar="DATASET", help="as for the benchmark")
    parser.add_argument("--data_opt", type=Path, metavar="YML", help="the same")
    args = parser.parse_args()
    vnni = "with" if "vnni" in Path("/proc/cpuinfo").read_text() else "without"
    print(f"{conditions()}, {vnni} VNNI, load {os.getloadavg()[0]:.1f}")
    if args.photos:
        print(compare_photos(args.photos))
    if args.d or args.data_opt:
        print(compare_mos(args.d, args.data_opt))


if __name__ == "__main__":
    main()
