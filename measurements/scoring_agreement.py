"""Measure what the faster ways of ``lifeiqa score`` change: scores of the same images, by each way.

    python measurements/scoring_agreement.py --photos FOLDER  # large JPEGs, beside --exact
    python measurements/scoring_agreement.py --data_opt options/benchmark/cross.yml  # beside what people say

Of photos, those count that a JPEG decoder really shrinks in that way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import conditions, markdown_table
from PIL import Image

import lifeiqa_plugin
from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.correlation import compare, correlations
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.images.stream import Recipe
from lifeiqa_plugin.runtimes import Engine, create_engine

SAMPLES = 1000
"""Of the bootstrap."""


def machine() -> str:
    """Return one line that says on what was measured; without VNNI 8 bits round otherwise."""
    vnni = "with" if "vnni" in Path("/proc/cpuinfo").read_text() else "without"
    return f"{conditions()}, {vnni} VNNI"


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


def compare_photos(paths: list[str]) -> list[list[str]]:
    """Return for the default and for ``--fast`` how far scores of large photos are from those of ``--exact``."""
    engines = {"default": create_engine("onnxruntime"), "fast": create_engine(fast=True)}
    shrunk = {name: [p for p in paths if is_shrunk(p, one)] for name, one in engines.items()}
    scored = sorted({path for some in shrunk.values() for path in some})
    exactly = dict(zip(scored, score(scored, engines["default"], exact=True), strict=True))
    rows = []
    for name, some in shrunk.items():
        exact = np.array([exactly[path] for path in some])
        changed = score(some, engines[name], exact=False)
        off = np.abs(changed - exact)
        values = [f"{value:.4f}" for value in (np.median(off), off.max())]
        values.append(f"{correlations(changed, exact)['srcc']:.4f}")
        counts = f"{len(some)} of {len(paths)}", f"{(off <= 0.005).sum()} of {len(off)}"
        rows.append([name, *values, *counts])
    return rows


def compare_mos(full: np.ndarray, rounded: np.ndarray, mos: np.ndarray) -> list[str]:
    """Return the SRCC with opinions of both networks, the interval of their difference, and how far scores differ."""
    found, off = compare(rounded, full, mos, SAMPLES), np.abs(full - rounded)
    low, high = found.difference.low, found.difference.high
    return [
        *(f"{correlations(values, mos)['srcc']:.4f}" for values in (full, rounded)),
        f"{found.difference.value:+.4f} ({low:+.4f} to {high:+.4f})",
        f"{np.median(off):.4f}",
        f"{off.max():.4f}",
        f"{correlations(full, rounded)['srcc']:.4f}",
    ]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, nargs="+", metavar="FOLDER", help="large JPEGs")
    parser.add_argument("-d", nargs="+", default=[], metavar="DATASET", help="as for the benchmark")
    parser.add_argument("--data_opt", type=Path, metavar="YML", help="the same")
    args = parser.parse_args()
    print(machine())
    if args.photos:
        header = ["way", "median", "most", "SRCC", "photos halved, or more", "within .005"]
        paths = [path for folder in args.photos for path in find_images(folder)]
        print(markdown_table(header, compare_photos(paths)))
    datasets = find_datasets(args.d, read_option_file(args.data_opt).entries)
    rows = []
    for one in datasets:
        if one.kind == "mos":
            paths = [image.path for image in one.images]
            both = (
                score(paths, create_engine("onnxruntime", fast=way), False) for way in (False, True)
            )
            mos = np.array([image.mos for image in one.images])
            rows.append([f"{one.name}, {len(mos)}", *compare_mos(*both, mos)])
    if rows:
        header = ["dataset, images", "SRCC float32", "8 bits", "difference (95 %)"]
        header += ["scores differ: median", "most", "SRCC of both"]
        print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
