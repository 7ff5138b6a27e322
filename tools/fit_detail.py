"""Fit what a nearer look takes off the scores of large photos, and say what it does.

    python tools/fit_detail.py PHOTOS [--sr4k SR4KIQA] [--model lifeiqa] [--write CHECKPOINT]

PHOTOS is a folder of large photos as cameras wrote them. Each is taken untouched, and with each of ``KINDS`` laid on
the part with most detail at full size. Untouched photos should keep their score, distorted ones fall by what is asked;
no opinion is looked at, but for ``SPARED``. The first figures are those of five-fold cross-validation over photos, the
second those of the rule that the model has. SR4KIQA is a folder of that set (github.com/mb21100/SR4KIQA, a folder a
scene and MOS.csv), which only says how well its 4K images are ordered.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter1d
from scipy.optimize import minimize
from scipy.stats import spearmanr
from write_option import write_option

from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.refusals import ImageError
from lifeiqa_plugin.images.resizing import resize
from lifeiqa_plugin.network.detail import FLOOR, SCORE, SHRUNK, DetailRule, find_part, is_large
from lifeiqa_plugin.runtimes import Engine, create_engine

FLAWS = ("blur", "motion blur", "upscaled", "blocking", "ringing", "noise")
DISTORTED = 7e6
"""Pixels from which a photo is distorted, too."""

MARGIN = 32
"""Pixels around the part that are distorted with it."""

SOFT = 0.005
"""Width of the bend of the rule while it is fitted."""

OF_UNTOUCHED, OF_SIZE = 20.0, 0.001
"""What the mean fall of untouched photos and the squares of the weights count while it is fitted."""

SPARED = 0.04
"""Of each fall: what is not taken off. Without it the scores of 66 phone photos (SQAD) agree less with people (SRCC
.678 for .726); 4K images lose .004 by it."""


class Kind(NamedTuple):
    """A distortion at full size."""

    distort: Callable[[Any, int], Any]
    wanted: float  # fall of the score, in the report
    asked: float  # the same, of the fit
    counts: float  # how much


def jpeg(pixels: Any, _: int) -> Any:
    """Save with quality 20."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=20)
    return np.asarray(Image.open(file))


def noise(pixels: Any, seed: int) -> Any:
    """Add noise of a deviation of 20 levels."""
    waves = np.random.default_rng(seed).standard_normal(pixels.shape)
    return (pixels + 20 * waves).round().clip(0, 255).astype(np.uint8)


KINDS = {
    "blur of 1.5 pixels": Kind(lambda x, _: gaussian_filter(x, (1.5, 1.5, 0)), 0.02, 0.03, 1),
    "blur of 3 pixels": Kind(lambda x, _: gaussian_filter(x, (3, 3, 0)), 0.05, 0.15, 2),
    "smear of 9 pixels": Kind(lambda x, seed: uniform_filter1d(x, 9, seed % 2), 0.05, 0.08, 3),
    "noise of 20 levels": Kind(noise, 0.02, 0.03, 0.3),
    "JPEG, quality 20": Kind(jpeg, 0.02, 0.06, 0.5),
}
UNTOUCHED, BEFORE, MOS = "untouched", "before", "mos"


class Look(NamedTuple):
    """One image in one state: its group, which decides the fold, the whole view's score, and what the rule adds up."""

    group: str
    kind: str
    whole: float
    near: list[float]  # 1, minus the logit of the score, the logits of FLAWS above FLOOR's
    mos: float = math.nan


def look(
    path: str, engine: Engine, kinds: dict[str, Kind], seed: int
) -> list[tuple[str, float, list[float]]]:
    """Score an image, untouched and in some kinds of distortion; nothing if it is not large."""
    try:
        pixels = decode(path).pixels
    except ImageError:
        return []
    height, width = pixels.shape[:2]
    size = min(engine.working_shape(100_000, 100_000))
    if pixels.dtype != np.uint8 or not is_large(height, width, size):
        return []
    planes = resize(pixels, engine.working_shape(height, width))
    whole = float(engine.score(planes[None]).score[0])
    top, left = find_part(planes, height, width, size)
    above, before = min(top, MARGIN), min(left, MARGIN)
    side = SHRUNK * size
    around = pixels[top - above : top + side + MARGIN, left - before : left + side + MARGIN]
    found = []
    if height * width < DISTORTED:
        kinds = {}
    for name, distort in {UNTOUCHED: None, **kinds}.items():
        state = around if distort is None else distort.distort(np.ascontiguousarray(around), seed)
        part = resize(state[above : above + side, before : before + side], (size, size))
        output = engine.score(part[None])
        shares = dict(zip(engine.names, output.distortions[0], strict=True))
        logits = [_logit(float(shares[flaw])) - _logit(0) for flaw in FLAWS]
        found.append((name, whole, [1.0, -_logit(float(output.score[0])), *logits]))
    return found


def _logit(share: float) -> float:
    share = min(max(share, FLOOR), 1 - FLOOR)
    return math.log(share / (1 - share))


def look_at_all(photos: Path, sr4k: Path | None, engine: Engine) -> list[Look]:
    """Score all images of both folders."""
    looks = []
    for seed, path in enumerate(find_images(photos)):
        looks += [Look(path, *one) for one in look(path, engine, KINDS, seed)]
    if sr4k is None:
        return looks
    with (sr4k / "MOS.csv").open(newline="", encoding="utf-8") as file:
        mos = {row[0]: float(row[2]) for row in csv.reader(file)}
    for path in map(Path, find_images(sr4k)):
        if path.name in mos:
            for _, *one in look(str(path), engine, {}, 0):
                looks.append(Look(path.parent.name, MOS, *one, mos=mos[path.name]))
    return looks


def fit(looks: list[Look]) -> Any:
    """Return the weights of ``Look.near``."""
    near = {kind: _near(looks, kind) for kind in (UNTOUCHED, BEFORE, *KINDS)}

    def lose(weights: Any) -> float:
        falls = {kind: SOFT * np.logaddexp(0, x @ weights / 100 / SOFT) for kind, x in near.items()}
        loss = OF_UNTOUCHED * falls[UNTOUCHED].mean() + OF_SIZE * (weights[1:] ** 2).mean()
        for name, kind in KINDS.items():
            lacks = (kind.asked - (falls[name] - falls[BEFORE])).clip(0) / kind.asked
            loss += kind.counts * (lacks**2).mean()
        return float(loss)

    bounds = [(None, None)] + [(0, None)] * (1 + len(FLAWS))
    start = np.r_[-1.0, np.ones(1 + len(FLAWS)) / 2]
    weights = minimize(lose, start, bounds=bounds, method="L-BFGS-B").x / 100
    weights[0] -= SPARED
    return weights


def _near(looks: list[Look], kind: str) -> Any:
    """Return what the rule adds up for images of a kind, or for those that were distorted, before that."""
    if kind == BEFORE:
        distorted = {one.group for one in looks if one.kind in KINDS}
        return np.array([x.near for x in looks if x.kind == UNTOUCHED and x.group in distorted])
    return np.array([one.near for one in looks if one.kind == kind])


def cross_validate(looks: list[Look]) -> Any:
    """Return the falls (N,) by rules that were fitted without the images in question."""
    groups = np.random.default_rng(0).permutation(sorted({one.group for one in looks}))
    fold = {group: place % 5 for place, group in enumerate(groups)}
    rules = [fit([one for one in looks if fold[one.group] != k]) for k in range(5)]
    return np.array([_fall(one, rules[fold[one.group]]) for one in looks])


def _fall(one: Look, weights: Any) -> float:
    return max(0.0, float(np.dot(one.near, weights)))


def report(looks: list[Look], falls: Any) -> str:
    """Say what falls (N,) do."""
    whole = np.array([one.whole for one in looks])
    at = {kind: [i for i, x in enumerate(looks) if x.kind == kind] for kind in (UNTOUCHED, *KINDS)}
    clean = dict(zip((looks[i].group for i in at[UNTOUCHED]), falls[at[UNTOUCHED]], strict=True))
    kept = spearmanr(whole[at[UNTOUCHED]], (whole - falls)[at[UNTOUCHED]])[0]
    few = np.percentile(list(clean.values()), [50, 75, 90, 100]).round(3)
    lines = [
        *_agree(looks, whole, "whole view"),
        *_agree(looks, whole - falls, "with the nearer look"),
        f"{len(clean)} untouched: SRCC old and new {kept:.3f}, falls of 50, 75, 90, 100 %: {few}",
    ]
    for name, kind in KINDS.items():
        more = np.array([falls[i] - clean[looks[i].group] for i in at[name]])
        share = (more >= kind.wanted).mean()
        lines.append(
            f"{name}: {len(more)}, median {np.median(more):.3f}, {share:.0%} at least {kind.wanted}"
        )
    return "\n".join(lines)


def _agree(looks: list[Look], scores: Any, title: str) -> list[str]:
    rated = [i for i, one in enumerate(looks) if one.kind == MOS]
    if not rated:
        return []
    scenes = {looks[i].group: [j for j in rated if looks[j].group == looks[i].group] for i in rated}
    mos = np.array([one.mos for one in looks])
    within = np.mean([spearmanr(scores[i], mos[i])[0] for i in scenes.values()])
    overall = spearmanr(scores[rated], mos[rated])[0]
    return [f"{title}: SRCC with MOS {overall:.3f}, within scenes {within:.3f}"]


def to_option(weights: Any) -> dict[str, float]:
    """Return the network's option ``detail``."""
    rounded = [round(float(weight), 5) for weight in weights]
    named = {name: x for name, x in zip(FLAWS, rounded[2:], strict=True) if x}
    offset = rounded[0] - _logit(0) * sum(named.values())
    return {"offset": round(offset, 5), **({SCORE: -rounded[1]} if rounded[1] else {}), **named}


def weights_of(rule: DetailRule) -> Any:
    """Return the weights of ``Look.near`` that a model has."""
    named = [rule.weights.get(flaw, 0.0) for flaw in FLAWS]
    return np.array([rule.offset + _logit(0) * sum(named), -rule.weights.get(SCORE, 0.0), *named])


def main() -> None:
    """Parse the command line, score, fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--sr4k", type=Path, metavar="SR4KIQA")
    parser.add_argument("--model", default="lifeiqa")
    parser.add_argument("--write", type=Path, metavar="CHECKPOINT")
    args = parser.parse_args()
    engine = create_engine(model=args.model, device="cpu")
    looks = look_at_all(args.photos, args.sr4k, engine)
    print(report(looks, cross_validate(looks)), flush=True)
    if engine.detail is not None:
        own = weights_of(engine.detail)
        print(
            f"rule of {args.model}:\n{report(looks, np.array([_fall(one, own) for one in looks]))}"
        )
    option = to_option(fit(looks))
    print(json.dumps(option))
    if args.write:
        write_option(args.write, "detail", option)


if __name__ == "__main__":
    main()
