"""Train the backbone and the decoder of both bundled models, on whole images of BIQ2021.

    python tools/train_models.py biq --biq CSV FOLDER --out pool/biq
    python tools/train_models.py levels --clean FOLDER --out pool/levels
    python tools/train_models.py train --pool pool --seed 1 --out seeds/1.safetensors
    python tools/train_models.py average --pool pool --seeds seeds --livec CSV FOLDER --out trained.safetensors

The csv files are those of ``lifeiqa prepare``; the training rows of BIQ2021 are read.
``biq`` and ``levels`` show every image, at random sizes and shapes, to the lower half of the backbone, which stands
still, and keep what comes out. ``train`` reads nothing else. Seeds differ by .03 on LIVE Challenge, so ``average``
takes the two that are best on its half A.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training_images import LEVELS, NAMES, Batches, Levels, read_rows

import lifeiqa_plugin
from lifeiqa_plugin.checkpoints.files import ModelCard, read_checkpoint, save_checkpoint
from lifeiqa_plugin.datasets.labelled import read_labelled
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.network.moe import Routing, load_balancing_loss, router_z_loss
from lifeiqa_plugin.training.optim import Schedule, parameter_groups


def lower_half(network: LifeIQA, images: Tensor) -> Tensor:
    """Return block group 2's output (B, 48, H / 8, W / 8) of images (B, 3, H, W) in 0 to 1."""
    backbone = network.backbone
    x = ((images - network.mean) / network.std).contiguous(memory_format=torch.channels_last)
    x = backbone.bn1(backbone.conv_stem(x))
    for blocks in backbone.blocks[:3]:
        x = blocks(x)
    return x


def upper_half(network: LifeIQA, x: Tensor) -> list[Tensor]:
    """Return what the decoder looks at, from the lower half's output, which is stage2."""
    blocks = network.backbone.blocks
    stage3 = blocks[4](blocks[3](x))
    stage4 = blocks[6](blocks[5](stage3))
    stages = [x, stage3, stage4]
    return [stage.float() for stage in stages[-network.decoder.config.num_stages :]]


def start_network(imagenet: Path, first: Path) -> LifeIQA:
    """Return the first stage's network with the mean of its backbone and ImageNet's, half and half."""
    checkpoint = read_checkpoint(first)
    config = {
        key: value
        for key, value in (checkpoint.config or {}).items()
        if key != "backbone_pretrained"
    }
    network = LifeIQA(**config | {"whole_image": True, "distortions": NAMES})
    plain, weights = read_checkpoint(imagenet).state_dict, dict(checkpoint.state_dict)
    for name in weights:
        if name.startswith("backbone.") and weights[name].is_floating_point():
            weights[name] = (weights[name] + plain[name]) / 2
    network.load_state_dict(weights, strict=False)  # the distortion head is new
    nn.init.normal_(network.decoder.distortion_head.weight, std=0.02)
    nn.init.constant_(network.decoder.distortion_head.bias, -2.0)
    return network


def choose_parameters(network: LifeIQA, with_backbone: bool) -> None:
    """Train the decoder and, on request, the upper half less its depthwise kernels and their scales."""
    for name, parameter in network.named_parameters():
        upper = name.startswith(tuple(f"backbone.blocks.{i}." for i in (3, 4, 5, 6)))
        depthwise = "conv_dw." in name or "bn2.weight" in name
        parameter.requires_grad_(
            name.startswith("decoder.") or (with_backbone and upper and not depthwise)
        )


def correlation_loss(score: Tensor, mos: Tensor) -> Tensor:
    """Return one minus the linear correlation."""
    return 1 - F.cosine_similarity(score - score.mean(), mos - mos.mean(), dim=0)


def add_routing_losses(loss: Tensor, routing: Routing) -> Tensor:
    """Keep the experts in equal use and the router's logits small."""
    return loss + 0.01 * load_balancing_loss(routing, "switch") + 0.001 * router_z_loss(routing)


def mos_losses(raw: Tensor, mos: Tensor, groups: list[str]) -> tuple[Tensor, Tensor]:
    """Return SmoothL1, and the mean correlation loss over the dataset and each of its groups."""
    score = raw.sigmoid()
    parts = [torch.ones(len(groups), dtype=torch.bool)]
    parts += [torch.tensor([g == group for g in groups]) for group in sorted(set(groups))]
    parts = [part for i, part in enumerate(parts) if i == 0 or 6 <= part.sum() < len(groups)]
    correlation = torch.stack([correlation_loss(score[part], mos[part]) for part in parts]).mean()
    return F.smooth_l1_loss(score, mos, beta=0.1), correlation


def level_losses(raw: Tensor, kinds: Tensor, levels: list[Levels], recipe: Recipe) -> Tensor:
    """Rank the levels by their severities, gently where only the light changes, and name what is wrong with them."""
    score = raw.sigmoid().view(len(levels), LEVELS)
    weight = torch.tensor([one.rank_weight for one in levels])[:, None]
    severities = torch.stack([one.severities for one in levels])
    rank = (weight * F.relu(0.15 * weight * severities.diff(dim=1) + score.diff(dim=1))).mean()
    targets = torch.cat([one.targets for one in levels])
    return recipe.rank_weight * rank + recipe.kinds_weight * F.binary_cross_entropy_with_logits(
        kinds, targets
    )


@torch.no_grad()
def fill_pool(network: LifeIQA, batches: Batches, folder: Path) -> None:
    """Write one file per batch: lower half's output in half precision, its pooled top, labels, levels."""
    folder.mkdir(parents=True, exist_ok=True)
    loader = DataLoader(batches, batch_size=None, num_workers=1, worker_init_fn=_quiet_worker)
    for i, batch in enumerate(loader):
        images = batch.pop("images").float() / 255
        jittered = (
            torch.rand(len(images), 1, 1, 1) < 0.3
        )  # half a level of noise, as rounding leaves it
        images = (images + jittered * (torch.rand_like(images) - 0.5) / 255).clamp(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            lower = lower_half(network, images).bfloat16()
            *_, stage3, stage4 = upper_half(network, lower)
        top = F.adaptive_avg_pool2d(stage3, 7).half(), stage4.mean((2, 3), keepdim=True).half()
        kept = {"lower": lower, "top": top, **batch}
        torch.save(kept, folder / f"{i:04d}.pt")


def _quiet_worker(_: int) -> None:
    os.nice(5)
    torch.set_num_threads(1)


class Part(NamedTuple):
    """Files of the pool, and how many of their images, or clean photos in levels, each step takes."""

    files: list[dict[str, Any]]
    count: int


def open_part(folder: Path, count: int) -> Part:
    """Map the files of a folder; nothing is read before it is used."""
    files = [
        torch.load(path, mmap=True, weights_only=False) for path in sorted(folder.glob("*.pt"))
    ]
    if not files:
        raise SystemExit(f"{folder}: holds no part of the pool; make it first")
    return Part(files, count)


class Drawn(NamedTuple):
    """What a step takes from one part: inputs of the upper half, or of the decoder, and what is known of them."""

    inputs: list[Tensor]
    mos: Tensor
    group: list[str]
    levels: list[Levels]


def draw_file(part: Part, shape: torch.Size | None, dice: np.random.Generator) -> dict[str, Any]:
    """Draw a file of one shape, or of any."""
    files = [file for file in part.files if shape is None or file["lower"].shape[2:] == shape]
    return files[dice.integers(len(files))]


def draw(part: Part, shape: torch.Size | None, dice: np.random.Generator) -> Drawn:
    """Draw from a file of one shape or, where only the top is asked for, of any."""
    file = draw_file(part, shape, dice)
    has_levels = len(file["levels"]) > 0
    chosen = dice.permutation(len(file["levels"] if has_levels else file["mos"]))[: part.count]
    rows = torch.tensor(
        [i * LEVELS + r for i in chosen for r in range(LEVELS)] if has_levels else chosen
    )
    inputs = (
        [value[rows].float() for value in file["top"]] if shape is None else [file["lower"][rows]]
    )
    if has_levels:
        return Drawn(inputs, torch.empty(0), [], [file["levels"][i] for i in chosen])
    return Drawn(inputs, file["mos"][rows].float(), [file["group"][i] for i in chosen], [])


class Recipe(NamedTuple):
    """How one stage trains."""

    steps: int
    backbone_rate: float  # peak learning rate, 0 for a backbone that stands still
    decoder_rate: float
    rank_weight: float
    kinds_weight: float
    seed: int
    decay: float  # of the average of the weights


DECODER_ALONE = Recipe(150, 0.0, 5e-4, rank_weight=3, kinds_weight=1, seed=1, decay=0.99)
BIQ2021 = Recipe(160, 1e-4, 2e-4, rank_weight=3, kinds_weight=2, seed=1, decay=0.98)
KINDS_ALONE = Recipe(320, 0.0, 8e-4, rank_weight=0, kinds_weight=12, seed=1, decay=0.98)
KEEP_WEIGHT = 500.0
BIQ2021_SHARE = 0.8
"""Of the trained weights in the average with those that the training began with."""


def train(network: LifeIQA, parts: list[Part], recipe: Recipe) -> None:
    """Train on two parts of the pool, levels last; the network leaves with the average of its weights."""
    torch.manual_seed(recipe.seed)
    dice = np.random.default_rng(recipe.seed)
    choose_parameters(network, with_backbone=recipe.backbone_rate > 0)
    optimizer = build_optimizer(network, recipe)
    network.eval()
    network.decoder.moe.train()  # dropout in the experts; BatchNorm keeps ImageNet's statistics
    optimize(network, optimizer, recipe, lambda: total_loss(network, parts, dice, recipe))


def optimize(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    compute_loss: Callable[[], Tensor],
    largest_gradient: float = 3.0,
) -> None:
    """Take the recipe's steps; the module leaves with the average of its weights."""
    average = {name: value.clone() for name, value in module.state_dict().items()}
    for step in range(1, recipe.steps + 1):
        set_rates(optimizer, step, recipe.steps)
        loss = compute_loss()
        optimizer.zero_grad()
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, largest_gradient)
        optimizer.step()
        update_average(average, module, min(recipe.decay, (1 + step) / (10 + step)))
    module.load_state_dict(average)


def build_optimizer(network: LifeIQA, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with decay of the decoder's matrices only."""
    groups = parameter_groups(network.decoder, recipe.decoder_rate, 0.02)
    if recipe.backbone_rate:
        groups += parameter_groups(network.backbone, recipe.backbone_rate, 0.0)
    return torch.optim.AdamW(groups)


def total_loss(
    network: LifeIQA,
    parts: list[Part],
    dice: np.random.Generator,
    recipe: Recipe,
) -> Tensor:
    """Draw a batch of one shape from every part, the levels last, pass it, add up the losses."""
    shapes = [file["lower"].shape[2:] for file in parts[0].files]
    shape = shapes[dice.integers(len(shapes))] if recipe.backbone_rate else None
    drawn = [draw(part, shape, dice) for part in parts]
    inputs = [torch.cat(values) for values in zip(*(d.inputs for d in drawn), strict=True)]
    if shape is not None:
        with torch.autocast("cpu", torch.bfloat16):
            inputs = upper_half(network, inputs[0])
    output = network.decoder(*inputs)
    raw, distorted = output.query_scores.mean(1).split([len(d.inputs[0]) for d in drawn])
    kinds = output.distortion_logits[-len(distorted) :]
    loss = level_losses(distorted, kinds, drawn[-1].levels, recipe)
    loss = add_routing_losses(loss, output.routing)
    fit, correlation = mos_losses(raw, drawn[0].mos, drawn[0].group)
    return loss + 10 * fit + correlation


def interpolate_weights(first: LifeIQA, second: LifeIQA, share: float) -> None:
    """Leave in ``first`` the weights of both, ``share`` of its own."""
    other = second.state_dict()
    mixed = {
        name: torch.lerp(other[name], value, share) if value.is_floating_point() else value
        for name, value in first.state_dict().items()
    }
    first.load_state_dict(mixed)


def biq_stage(network: LifeIQA, args: argparse.Namespace) -> None:
    """Show every image of BIQ2021 twice."""
    rows = [row for row in read_rows(*args.biq) if row.group != "ss02"]
    fill_pool(network, Batches(rows, 32, [], 0, 2 * len(rows) // 32 + 1, 1), args.out)


def levels_stage(network: LifeIQA, args: argparse.Namespace) -> None:
    """Show clean photos in growing distortion."""
    clean = [str(path) for path in sorted(args.clean.iterdir())]
    fill_pool(network, Batches([], 0, clean, 12, min(124, len(clean)), 41), args.out)


def name_kinds(network: LifeIQA, parts: list[Part], recipe: Recipe) -> None:
    """Train the decoder to name distortions, while its own scores of before hold it where it is; the backbone stands.

    Args:
        network: whose upper half is read as it is.
        parts: of the pool, levels last.
        recipe: steps, rate, weight of the kinds.
    """
    torch.manual_seed(recipe.seed)
    dice = np.random.default_rng(recipe.seed)
    choose_parameters(network, with_backbone=False)
    network.eval()
    teacher = copy.deepcopy(network.decoder)
    head = list(network.decoder.distortion_head.parameters())
    rest = [
        p
        for name, p in network.decoder.named_parameters()
        if not name.startswith("distortion_head.")
    ]
    groups = [
        {"params": head, "initial_lr": 5e-3},
        {"params": rest, "initial_lr": recipe.decoder_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    optimize(
        network.decoder,
        optimizer,
        recipe,
        lambda: kinds_loss(network, teacher, parts, dice, recipe),
        largest_gradient=5.0,
    )


def kinds_loss(
    network: LifeIQA,
    teacher: nn.Module,
    parts: list[Part],
    dice: np.random.Generator,
    recipe: Recipe,
) -> Tensor:
    """Add up: scores as the teacher's, kinds as the levels'."""
    shapes = [file["lower"].shape[2:] for file in parts[-1].files]
    shape = shapes[dice.integers(len(shapes))]
    drawn = [draw(part, shape, dice) for part in parts]
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            stages = upper_half(network, torch.cat([d.inputs[0] for d in drawn]))
        before = teacher(*stages).query_scores.mean(1)
    output = network.decoder(*stages)
    after = output.query_scores.mean(1)
    kinds = output.distortion_logits
    targets = torch.cat([one.targets for one in drawn[-1].levels])
    loss = recipe.kinds_weight * F.binary_cross_entropy_with_logits(kinds[-len(targets) :], targets)
    loss = add_routing_losses(loss, output.routing)
    return loss + KEEP_WEIGHT * F.mse_loss(after.sigmoid(), before.sigmoid())


def set_rates(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Warm up over 20 steps, then fall along a cosine to a fiftieth."""
    schedule = Schedule(steps, min(20, steps - 1), type="cosine", min_factor=0.02)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * schedule.factor(step)


def update_average(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """Move the average towards the module's weights."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)


def train_stage(network: LifeIQA, args: argparse.Namespace) -> None:
    """The decoder alone, then the upper half with it, then interpolated with the start."""
    start = copy.deepcopy(network)
    biq = open_part(args.pool / "biq", 32)
    train(
        network, [biq, open_part(args.pool / "levels", 12)], DECODER_ALONE._replace(seed=args.seed)
    )
    train(network, [biq, open_part(args.pool / "levels", 2)], BIQ2021._replace(seed=args.seed))
    interpolate_weights(network, start, BIQ2021_SHARE)
    save_checkpoint(network, args.out, ModelCard("BIQ2021", "Apache-2.0"))


def average_stage(network: LifeIQA, args: argparse.Namespace) -> None:
    """Average the two seeds that rank half A of LIVE Challenge best, and teach them the kinds."""
    meta, folder = args.livec
    half = read_labelled(meta, folder, only={"half": "A"})
    paths, mos = [image.path for image in half.images], [image.mos for image in half.images]
    srcc = {}
    for seed in sorted(args.seeds.iterdir()):
        found = lifeiqa_plugin.score(paths, model=seed, exact=True)
        srcc[seed] = spearmanr([one.score for one in found], mos, nan_policy="raise")[0]
        print(f"{seed}: SRCC {srcc[seed]:.4f} on half A", flush=True)
    best, second = sorted(srcc, key=srcc.__getitem__)[-2:]
    other = copy.deepcopy(network)
    network.load_state_dict(read_checkpoint(best).state_dict)
    other.load_state_dict(read_checkpoint(second).state_dict)
    interpolate_weights(network, other, 0.5)
    parts = [open_part(args.pool / "biq", 32), open_part(args.pool / "levels", 12)]
    name_kinds(network, parts, KINDS_ALONE)
    save_checkpoint(network, args.out, ModelCard("BIQ2021", "Apache-2.0"))


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    stages = {
        "biq": (biq_stage, ("biq",)),
        "levels": (levels_stage, ("clean",)),
        "train": (train_stage, ()),
        "average": (average_stage, ("seeds", "livec")),
    }
    parser.add_argument("stage", choices=list(stages))
    parser.add_argument("--imagenet", type=Path, default=Path("imagenet_start.safetensors"))
    parser.add_argument(
        "--first",
        type=Path,
        default=Path("first_stage.safetensors"),
        help="weights that 'lifeiqa train -opt options/train/bundled.yml' wrote",
    )
    for name in ("--biq", "--livec"):
        parser.add_argument(name, type=Path, nargs=2, metavar=("CSV", "FOLDER"))
    parser.add_argument("--clean", type=Path, help="folder of photos without flaws")
    parser.add_argument("--pool", type=Path, default=Path("pool"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=Path, help="folder of what train wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder or checkpoint to write")
    args = parser.parse_args()
    run, needed = stages[args.stage]
    for name in needed:
        if getattr(args, name) is None:
            parser.error(f"{args.stage} needs --{name}")
    try:
        run(start_network(args.imagenet, args.first), args)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
