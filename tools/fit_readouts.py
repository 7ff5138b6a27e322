"""Fit the linear read-outs of both bundled models: what the backbone knows and the decoder does not say.

    python tools/fit_readouts.py look SET --biq CSV FOLDER --livec CSV FOLDER --agiqa CSV FOLDER --out seen/SET.pt
    python tools/fit_readouts.py check
    python tools/fit_readouts.py write lifeiqa-biq2021 --out lifeiqa-biq2021.safetensors
    python tools/fit_readouts.py write lifeiqa --out lifeiqa.safetensors

The csv files are those of ``lifeiqa prepare``. ``look``, once for each set, keeps what the network of
tools/reference_pairs.py (``--start``) sees of each image: the decoder's raw scores, mean and deviation of three stages.
All else takes seconds and draws nothing: ridge regression of opinions, in raw scores, which also holds the score still
under a shift, a scale and a mirror. ``check`` cross-validates ``lifeiqa`` on LIVE Challenge, and its recipe on half A.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from torch import Generator, Tensor
from tqdm import tqdm
from training_images import NAMES, draw_severities, read_pixels

from lifeiqa_plugin.benchmark.photos import CHANGES
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, read_checkpoint, save_checkpoint
from lifeiqa_plugin.correlation import measure
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.decoder import pool_to_grid, statistics_of
from lifeiqa_plugin.network.fusing import fuse_batch_norm
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.scoring.evaluation import fit_std_calibration

Floats = NDArray[np.float64]

VIEWS = "mirror", "1 pixel", "1 %"
SETS = "biq", "livec", "val", "agiqa", "biq_views", "distorted"
IN_VIEWS, DISTORTED = 700, 420
"""Photos of BIQ2021 that are also seen in these views, and in levels of one distortion each."""

WEIGHTS = {"livec": 4.0, "biq": 1.0, "distorted": 0.5}
"""Of the sets in the read-out for photos, whatever the number of their images."""

PENALTY, GENERATED_PENALTY, GATE_PENALTY = 0.1, 1.0, 0.003
STILLNESS = 10.0
"""Weight of the squared change of the score under the views."""

GATE_TARGET, GATE_START = 12.0, 2.0
"""The gate's regression says minus or plus the target of photos and generated images; it counts from the start on, so
that few photos are taken for generated."""

BLURRED = 0.2
"""Weight of the distorted photos in the read-out for generated images: what the gate takes for one stays as it is."""


class Seen(NamedTuple):
    """What the network saw of N images; the keys of raw and x are views, "" the image itself."""

    mos: Floats  # (N,)
    part: NDArray[np.str_]  # (N,)
    raw: dict[str, Floats]  # (N, Q) scores before the range
    x: dict[str, Floats]  # (N, C) statistics

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Seen:
        """Return some of the images."""
        raw, x = ({view: v[rows] for view, v in of.items()} for of in (self.raw, self.x))
        return Seen(self.mos[rows], self.part[rows], raw, x)

    @property
    def targets(self) -> Floats:
        """The opinions on the line of the decoder's scores, as raw scores, (N,)."""
        own, mos = expit(self.raw[""].mean(1)), self.mos
        on_line = (mos - mos.mean()) * own.std() / mos.std() + own.mean()
        return logit(on_line.clip(0.02, 0.98))

    @property
    def moves(self) -> tuple[Floats, Floats]:
        """What the views change: statistics (V * N, C) and the decoder's raw scores (V * N,)."""
        pairs = [
            (self.x[v] - self.x[""], (self.raw[v] - self.raw[""]).mean(1)) for v in self.x if v
        ]
        x, raw = zip(*pairs, strict=True)
        return np.concatenate(x), np.concatenate(raw)


class Linear(NamedTuple):
    """``x @ weight + bias``; the weight is rounded as the checkpoint keeps it."""

    weight: Floats  # (C,)
    bias: float

    def __call__(self, x: Floats) -> Floats:
        """(N, C) -> (N,)."""
        return x @ self.weight + self.bias


def ridge(
    parts: Iterable[tuple[Floats, Floats, float]],
    penalty: float,
    moves: tuple[Floats, Floats] | None = None,
) -> Linear:
    """Fit by least squares on standardized inputs.

    Args:
        parts: inputs (N, C), targets (N,) and the weight of the part.
        penalty: of the squared weights.
        moves: changes of inputs and of what the output is added to, which shall cancel.
    """
    xs, ts, weights = zip(*parts, strict=True)
    x, t = np.concatenate(xs), np.concatenate(ts)
    w = np.concatenate(
        [np.full(len(one), share / len(one)) for one, share in zip(xs, weights, strict=True)]
    )
    w /= w.sum()
    deviation = x.std(0) + 1e-4
    mean, middle = w @ x, w @ t
    z = (x - mean) / deviation
    matrix, vector = (z * w[:, None]).T @ z, z.T @ (w * (t - middle))
    if moves is not None:
        change = moves[0] / deviation
        matrix += STILLNESS * change.T @ change / len(change)
        vector -= STILLNESS * change.T @ moves[1] / len(change)
    matrix[np.diag_indices(len(matrix))] += penalty
    weight = (np.linalg.solve(matrix, vector) / deviation).astype(np.float16).astype(float)
    return Linear(weight, float(middle - mean @ weight))


class Readouts(NamedTuple):
    """Read-outs and their gates, as the network has them, and the share that the decoder keeps of its raw scores."""

    share: float
    values: list[Linear]
    gates: list[Linear]

    def raw(self, seen: Seen, view: str = "") -> Floats:
        """Return the raw scores of all queries with what the read-outs add, (N, Q)."""
        x = seen.x[view]
        values, gates = (np.stack([one(x) for one in of], 1) for of in (self.values, self.gates))
        return self.share * seen.raw[view] + (softmax(gates, 1) * values).sum(1)[:, None]

    def scores(self, seen: Seen, view: str = "") -> Floats:
        """Return the scores of all images, (N,)."""
        return expit(self.raw(seen, view).mean(1))


def nothing(channels: int) -> Linear:
    """Return what is always 0."""
    return Linear(np.zeros(channels), 0.0)


def fit_photos(sets: dict[str, Seen], share: float) -> Linear:
    """Fit the read-out for photos, from BIQ2021, its photos distorted, and LIVE Challenge if it is there.

    It is fitted to the opinions alone, and takes the share that the decoder leaves.
    """
    biq, distorted = sets["biq"], sets["distorted"]
    targets = {"biq": logit(biq.mos.clip(0.03, 0.97)), "distorted": distorted.raw[""].mean(1)}
    moves = [sets["biq_views"].moves]
    if "livec" in sets:
        targets["livec"] = sets["livec"].targets
        moves.append(sets["livec"].moves)
    parts = [(sets[k].x[""], (1 - share) * t, WEIGHTS[k]) for k, t in targets.items()]
    x, raw = (np.concatenate(of) for of in zip(*moves, strict=True))
    return ridge(parts, PENALTY, (x, share * raw))


def fit_biq2021(sets: dict[str, Seen], share: float = 0.5) -> Readouts:
    """Fit the one read-out of ``lifeiqa-biq2021``."""
    own = {name: sets[name] for name in ("biq", "biq_views", "distorted")}
    photos = fit_photos(own, share)
    return Readouts(share, [photos], [nothing(len(photos.weight))])


def fit_default(sets: dict[str, Seen], share: float = 0.3) -> Readouts:
    """Fit the two of ``lifeiqa``, for photos and for generated images, and the gate between them."""
    agiqa, distorted = sets["agiqa"], sets["distorted"]
    left = agiqa.targets - share * agiqa.raw[""].mean(1)
    same = (1 - share) * distorted.raw[""].mean(1)
    generated = ridge(
        [(agiqa.x[""], left, 1.0), (distorted.x[""], same, BLURRED)], GENERATED_PENALTY
    )
    kinds = {"agiqa": 1.0, "livec": -1 / 3, "biq": -1 / 3, "distorted": -1 / 3}
    which = ridge(
        [
            (sets[k].x[""], np.full(len(sets[k].mos), np.copysign(GATE_TARGET, w)), abs(w))
            for k, w in kinds.items()
        ],
        GATE_PENALTY,
    )
    gate = which._replace(bias=which.bias - GATE_START)
    return Readouts(share, [fit_photos(sets, share), generated], [nothing(len(gate.weight)), gate])


FITS: dict[str, Callable[[dict[str, Seen]], Readouts]] = {
    "lifeiqa-biq2021": fit_biq2021,
    "lifeiqa": fit_default,
}

LICENSE = "Apache-2.0; cite the datasets; ImageNet weights Apache-2.0"

BIQ2021_DATA = (
    "BIQ2021 (Ahmed & Asif 2022), official training split less near-duplicates of its test split: all three subsets in "
    "the first stage (commit 744f1a1), subsets 01 and 03 afterwards; ladders and pairs of its photos, without scores"
)

CARDS = {
    "lifeiqa-biq2021": ModelCard(BIQ2021_DATA, LICENSE),
    "lifeiqa": ModelCard(
        f"backbone and decoder: {BIQ2021_DATA}; read-outs: the same, all of LIVE in the Wild Challenge, AGIQA-3K "
        "training prompts (MIT)",
        LICENSE,
    ),
}


# ---- what the network sees


def in_views(path: str, views: Iterable[str]) -> Iterable[tuple[str, Tensor]]:
    """Open an image (3, H, W); the changes are made at full size, as `lifeiqa benchmark` makes them."""
    image = read_image(path)
    yield "", image
    for view in views:
        yield view, CHANGES[view](image)


@torch.no_grad()
def look(
    network: LifeIQA,
    images: Iterable[Iterable[tuple[str, Tensor]]],
    mos: Iterable[float],
    part: Iterable[str],
) -> Seen:
    """Show images, each in its views, to a network without read-outs."""
    raw: dict[str, list[Floats]] = {}
    x: dict[str, list[Floats]] = {}
    for views in tqdm(images, unit="image"):
        for view, image in views:
            pixels = to_working_size(image[None].float(), network.crop_size, network.working_size)
            stage2, stage3, stage4 = network.stages_of(network.normalize(pixels))
            scores = network.decoder(stage2, stage3, stage4).query_scores
            cells = pool_to_grid(stage3, network.decoder.config.memory_grid)
            statistics = torch.cat([statistics_of(maps) for maps in (stage2, cells, stage4)], 1)
            raw.setdefault(view, []).append(scores.double().numpy())
            x.setdefault(view, []).append(statistics.double().numpy())
    together = ({view: np.concatenate(v) for view, v in of.items()} for of in (raw, x))
    return Seen(np.array(list(mos), float), np.array(list(part)), *together)


def in_levels(path: str, kind: str, dice: random.Random) -> Iterable[tuple[str, Tensor]]:
    """Show a clean photo, and it in growing severities of one distortion, as images of their own."""
    pixels, distort = read_pixels(path), dice.choice(KINDS[kind].generators)
    severities, seed = draw_severities(dice), dice.randrange(2**31)
    yield "", pixels
    for severity in filter(None, severities):
        yield "", distort(pixels, severity, Generator().manual_seed(seed)).clamp(0, 1)


def look_stage(args: argparse.Namespace) -> None:
    """Show one set, and write its file."""
    network = fuse_batch_norm(build_lifeiqa(pretrained_model_path=args.start))
    biq, livec, agiqa = (read_rows(*one) for one in (args.biq, args.livec, args.agiqa))
    val = biq[biq["bundled_split"] == "val"]
    biq = biq[(biq["bundled_split"] == "train") & (biq["subset"] != "ss02")]
    if args.set == "distorted":
        seen = look_at_distorted(network, biq)
    else:
        rows = {
            "biq": biq,
            "livec": livec.assign(part=livec["half"]),
            "val": val,
            "agiqa": agiqa,
            "biq_views": biq.iloc[
                np.sort(np.random.default_rng(3).permutation(len(biq))[:IN_VIEWS])
            ],
        }[args.set]
        views = () if args.set in ("biq", "agiqa") else VIEWS
        images = (in_views(path, views) for path in rows["path"])
        seen = look(network, images, rows["mos"], rows["part"])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tuple(seen), args.out)


def look_at_distorted(network: LifeIQA, biq: pd.DataFrame) -> Seen:
    """Show the best photos of BIQ2021 in growing distortion, without opinions."""
    dice = random.Random(5)
    best = biq[(biq["subset"] == "ss03") & (biq["mos"] > 0.78)]["path"]
    clean = dice.sample(list(best), DISTORTED)
    shown = [in_levels(path, NAMES[i % len(NAMES)], dice) for i, path in enumerate(clean)]
    seen = look(network, shown, [], [])
    empty = np.zeros(len(seen.raw[""]))
    return seen._replace(mos=empty, part=empty.astype(str))


def read_rows(meta: Path, folder: Path) -> pd.DataFrame:
    """Return a csv of `lifeiqa prepare`, with the images' paths and which part each is."""
    table = pd.read_csv(meta)
    return table.assign(
        path=[str(folder / name) for name in table.iloc[:, 0]], part=table["bundled_split"]
    )


# ---- what is made of it


def open_sets(folder: Path) -> dict[str, Seen]:
    """Read what ``look`` wrote; of AGIQA-3K the training prompts only, its others as "agiqa_val"."""
    sets = {path.stem: Seen(*torch.load(path, weights_only=False)) for path in folder.glob("*.pt")}
    agiqa = sets["agiqa"]
    sets["agiqa_val"] = agiqa.take(agiqa.part == "val")
    return sets | {"agiqa": agiqa.take(agiqa.part == "train")}


def say(name: str, scores: Floats, mos: Floats) -> None:
    """Print SRCC and PLCC with bootstrap 95 % intervals."""
    found = measure(scores, mos, fitted=False)
    texts = [f"{k.upper()} {v.value:.4f} ({v.low:.3f} - {v.high:.3f})" for k, v in found.items()]
    print(f"{name}: {', '.join(texts)}")


def scores_of_folds(sets: dict[str, Seen], livec: Seen, folds: int, seed: int) -> Floats:
    """Score each photo of LIVE Challenge by read-outs that were fitted without its fold, (N,)."""
    fold = np.random.default_rng(seed).permutation(len(livec.mos)) % folds
    scores = np.empty(len(livec.mos))
    for one in range(folds):
        fitted = fit_default(sets | {"livec": livec.take(fold != one)})
        scores[fold == one] = fitted.scores(livec.take(fold == one))
    return scores


def check_stage(args: argparse.Namespace) -> None:
    """Print how well both models do on photos and prompts that they were not fitted on."""
    sets = open_sets(args.folder)
    livec, val, agiqa = sets["livec"], sets["val"], sets["agiqa_val"]
    half_a = livec.take(livec.part == "A")
    say("lifeiqa, half A, five folds", scores_of_folds(sets, half_a, 5, 0), half_a.mos)
    say("lifeiqa, LIVE Challenge, ten folds", scores_of_folds(sets, livec, 10, 7), livec.mos)
    for name, fit in FITS.items():
        fitted = fit(sets)
        say(f"{name}, AGIQA-3K val", fitted.scores(agiqa), agiqa.mos)
        say(f"{name}, BIQ2021 val", fitted.scores(val), val.mos)
        for view in VIEWS:
            move = np.median(np.abs(fitted.scores(val, view) - fitted.scores(val)))
            print(f"{name}, BIQ2021 val, {view}: median change {move:.4f}")
    say("lifeiqa-biq2021, LIVE Challenge", fit_biq2021(sets).scores(livec), livec.mos)


def write_stage(args: argparse.Namespace) -> None:
    """Fit one model on all there is, and write its checkpoint."""
    sets = open_sets(args.folder)
    fitted = FITS[args.model](sets)
    raw, mos = fitted.raw(sets["val"]), sets["val"].mos
    calibration = fit_std_calibration(expit(raw.mean(1)) - mos, expit(raw).std(1))
    start = read_checkpoint(args.start)
    options = {
        **(start.config or {}),
        "readouts": len(fitted.values),
        "std_calibration": calibration,
    }
    network = LifeIQA(**options)
    state = dict(start.state_dict)
    for name in ("weight", "bias"):
        state[f"decoder.head.{name}"] = fitted.share * state[f"decoder.head.{name}"]
    for name, of in (("values", fitted.values), ("gates", fitted.gates)):
        state[f"decoder.readout.{name}.weight"] = torch.tensor(np.stack([one.weight for one in of]))
        state[f"decoder.readout.{name}.bias"] = torch.tensor([one.bias for one in of])
    network.load_state_dict(state)
    save_checkpoint(network, args.out, CARDS[args.model], half=True)
    print(f"{args.out}: {args.model}")


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    stages = parser.add_subparsers(required=True)
    see = stages.add_parser("look", help="show the images of a set to the network")
    see.add_argument("set", choices=SETS)
    for name in ("--biq", "--livec", "--agiqa"):
        see.add_argument(name, type=Path, nargs=2, required=True, metavar=("CSV", "FOLDER"))
    see.set_defaults(run=look_stage)
    check = stages.add_parser("check", help="cross-validate")
    check.set_defaults(run=check_stage)
    write = stages.add_parser("write", help="fit on everything, and write a checkpoint")
    write.add_argument("model", choices=list(FITS))
    write.set_defaults(run=write_stage)
    for stage in (see, write):
        stage.add_argument("--start", type=Path, required=True, help="checkpoint without read-outs")
        stage.add_argument("--out", type=Path, required=True, help="file to write")
    for stage in (check, write):
        stage.add_argument("--folder", type=Path, default=Path("seen"), help="what look wrote")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
