"""Teach the backbone of both bundled models, without opinion scores, which of two photos is distorted more.

    python tools/reference_pairs.py pool imagenet.safetensors --clean FOLDER
    python tools/reference_pairs.py train before.safetensors --out after.safetensors

Levels of distortion rank an image among its own versions only. Here five full-reference metrics of pyiqa (FSIM, VSI,
GMSD, NLPD, VIF), which see the clean photo, compare distorted images of *different* photos: where all five agree, the
network's scores shall be ordered alike. Meanwhile its scores of BIQ2021's photos are held to what they were, so nothing
is learnt about opinion scores, or forgotten. A share of what the weights change by is added.
The folder of the pool is that of tools/train_models.py.

Pairs on which several full-reference metrics agree stand in for opinion scores as in arXiv 2106.14076; metrics and
losses are our own choice.
"""

from __future__ import annotations

import argparse
import copy
import random
from pathlib import Path

import numpy as np
import pyiqa
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Generator, Tensor
from tqdm import tqdm
from train_models import (
    Part,
    Recipe,
    add_routing_losses,
    build_optimizer,
    choose_parameters,
    draw,
    draw_file,
    level_losses,
    lower_half,
    open_part,
    optimize,
    upper_half,
)
from training_images import SHAPES, fit_shape, read_pixels, to_image

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import read_checkpoint, save_checkpoint
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.network.lifeiqa import LifeIQA

METRICS = "fsim", "vsi", "gmsd", "nlpd", "vif"
"""They need no weights of their own."""

PER_FILE = 24
FILES = 70

SCORED = [name for name, kind in KINDS.items() if kind.is_ranked and name != "warped"]
SCORED += ["low contrast", "over-exposed", "dark"]
"""The kinds that full-reference metrics can judge: they take bent shapes and tinted light for worse than people do."""

CLEAN_CHANCE, SECOND_CHANCE = 0.06, 0.3
DRAWN = 16
"""Distorted images a step."""

CLEARLY = 0.05
"""Mean difference of the percentiles of a pair that counts."""

MARGIN, PAIRS_WEIGHT, KEEP_WEIGHT = 0.4, 3.0, 300.0
SHARE = 0.7
"""Of the change of the weights that is taken on."""

RECIPE = Recipe(200, 1e-4, 2e-4, rank_weight=3, kinds_weight=1, seed=1, decay=0.99)


def distort(pixels: Tensor, dice: random.Random) -> Tensor:
    """Distort (3, H, W) in one way, at times in two, rarely not at all."""
    if dice.random() < CLEAN_CHANCE:
        return pixels
    is_double = dice.random() < SECOND_CHANCE
    for name in dice.sample(SCORED, 2 if is_double else 1):
        severity = dice.uniform(0.04, 1) * (0.7 if is_double else 1)
        generator = Generator().manual_seed(dice.randrange(2**31))
        pixels = dice.choice(KINDS[name].generators)(pixels, severity, generator)
    return pixels


@torch.no_grad()
def fill_pool(network: LifeIQA, clean: list[str], folder: Path, seed: int) -> None:
    """Write files of distorted images of one shape: the lower half's output, and (N, M) scores, higher better."""
    if len(clean) < PER_FILE:
        raise ValueError(
            f"{PER_FILE} clean photos are needed at least, got {len(clean)}; give more"
        )
    folder.mkdir(parents=True, exist_ok=True)
    metrics = [pyiqa.create_metric(name) for name in METRICS]
    dice = random.Random(seed)
    for number in tqdm(range(FILES)):
        shape = dice.choices(list(SHAPES), list(SHAPES.values()))[0]
        images, scores = [], []
        for path in dice.sample(clean, PER_FILE):
            pixels = read_pixels(path)
            place = dice.randrange(2**31)
            reference, distorted = (
                fit_shape(to_image(x), shape, random.Random(place), zoom=False)[None].float() / 255
                for x in (pixels, distort(pixels, dice))
            )
            values = [
                -m(distorted, reference) if m.lower_better else m(distorted, reference)
                for m in metrics
            ]
            scores.append([float(value) for value in values])
            images.append(distorted.flip(3) if dice.random() < 0.5 else distorted)
        with torch.autocast("cpu", torch.bfloat16):
            lower = lower_half(network, torch.cat(images)).bfloat16()
        torch.save({"lower": lower, "scores": torch.tensor(scores)}, folder / f"{number:04d}.pt")


def open_pairs(folder: Path) -> Part:
    """Map what :func:`fill_pool` wrote, and add how good each metric calls each image among all, (PER_FILE, M)."""
    part = open_part(folder, DRAWN)
    scores = torch.cat([file["scores"] for file in part.files]).numpy()
    percentiles = torch.tensor(rankdata(scores, axis=0) / len(scores), dtype=torch.float32)
    for file, own in zip(part.files, percentiles.split(PER_FILE), strict=True):
        file["percentiles"] = own
    return part


def pairs_loss(score: Tensor, percentiles: Tensor) -> Tensor:
    """Hinge on pairs of which all metrics say the same: (N,), (N, M) -> ()."""
    difference = percentiles[:, None] - percentiles
    mean = difference.mean(2)
    is_agreed = (difference > 0).all(2) & (mean > CLEARLY)
    gain = (score[:, None] - score)[is_agreed]
    return F.relu(MARGIN * mean[is_agreed] - gain).sum() / max(1, len(gain))


def train(network: LifeIQA, pairs: Part, biq: Part, levels: Part) -> None:
    """Order the pairs and the levels, while the scores of BIQ2021's photos stay; leaves the average of the weights."""
    torch.manual_seed(RECIPE.seed)
    dice = np.random.default_rng(RECIPE.seed)
    teacher = copy.deepcopy(network).eval().requires_grad_(False)
    choose_parameters(network, with_backbone=True)
    optimizer = build_optimizer(network, RECIPE)
    network.eval()
    network.decoder.moe.train()
    known = {file["lower"].shape[2:] for file in pairs.files}
    shapes = [shape for shape in (file["lower"].shape[2:] for file in biq.files) if shape in known]
    parts = [biq, levels, pairs]
    optimize(network, optimizer, RECIPE, lambda: step_loss(network, teacher, parts, shapes, dice))


def step_loss(
    network: LifeIQA,
    teacher: LifeIQA,
    parts: list[Part],
    shapes: list[torch.Size],
    dice: np.random.Generator,
) -> Tensor:
    """Draw a batch of one shape, pass it, add up the losses."""
    shape = shapes[dice.integers(len(shapes))]
    biq, levels_part, pairs = parts
    photos, levels = draw(biq, shape, dice), draw(levels_part, shape, dice)
    file = draw_file(pairs, shape, dice)
    rows = torch.tensor(dice.permutation(PER_FILE)[: pairs.count])
    inputs = [photos.inputs[0], levels.inputs[0], file["lower"][rows]]
    with torch.autocast("cpu", torch.bfloat16):
        stages = upper_half(network, torch.cat(inputs))
    output = network.decoder(*stages)
    counts = [len(x) for x in inputs]
    raw, distorted, score = output.query_scores.mean(1).split(counts)
    _, kinds, _ = output.distortion_logits.split(counts)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = teacher.decoder(*upper_half(teacher, photos.inputs[0])).query_scores.mean(1)
    loss = (
        KEEP_WEIGHT * F.mse_loss(raw.sigmoid(), before.float().sigmoid())
        + PAIRS_WEIGHT * pairs_loss(score.sigmoid(), file["percentiles"][rows])
        + level_losses(distorted, kinds, levels.levels, RECIPE)
    )
    return add_routing_losses(loss, output.routing)


def train_stage(args: argparse.Namespace) -> None:
    """Train from a checkpoint, and write it with a share of what that changes."""
    network = build_lifeiqa(pretrained_model_path=args.checkpoint)
    before = copy.deepcopy(network.state_dict())
    biq, levels = open_part(args.pool / "biq", 24), open_part(args.pool / "levels", 2)
    train(network, open_pairs(args.pairs), biq, levels)
    mixed = {
        name: torch.lerp(before[name], value, SHARE)
        if value.is_floating_point() and "distortion_head" not in name
        else before[name]
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(mixed)
    card = read_checkpoint(args.checkpoint).card
    if card is None:
        raise SystemExit(f"{args.checkpoint}: has no card; give a file that lifeiqa train wrote")
    save_checkpoint(network, args.out, card, half=True)


def pool_stage(args: argparse.Namespace) -> None:
    """Distort clean photos, and ask the metrics."""
    network = build_lifeiqa(pretrained_model_path=args.checkpoint)
    clean = [str(path) for path in sorted(args.clean.iterdir())]
    fill_pool(network, clean, args.pairs, seed=6)


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    stages = parser.add_subparsers(required=True)
    pool = stages.add_parser("pool", help="distort, and ask the metrics")
    pool.add_argument("--clean", type=Path, required=True, help="folder of photos without flaws")
    pool.set_defaults(run=pool_stage)
    learn = stages.add_parser("train", help="order the pairs")
    learn.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    learn.set_defaults(run=train_stage)
    for stage in (pool, learn):
        stage.add_argument(
            "checkpoint",
            type=Path,
            help="what tools/train_models.py trained; of pool, any network with its lower half",
        )
        stage.add_argument("--pool", type=Path, default=Path("pool"))
        stage.add_argument("--pairs", type=Path, default=Path("pairs"))
    args = parser.parse_args()
    try:
        args.run(args)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
