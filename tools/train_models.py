"""Train the two bundled models on whole images: ``lifeiqa-biq2021`` and, from it, the default ``lifeiqa``.

    python tools/train_models.py pool --biq CSV FOLDER --livec CSV FOLDER --agiqa CSV FOLDER --clean FOLDER
    python tools/train_models.py biq2021 --out biq2021.pt
    python tools/train_models.py default --start biq2021.pt --out default.pt

A csv has the columns ``name``, ``mos`` (0 to 1, higher is better), ``group`` and ``part``; rows whose part is ``train``
are read. ``pool`` shows images at random sizes and shapes to the lower half of the backbone, which stands still, and
keeps what comes out. The other two stages read nothing but the pool: half an hour on one core.
"""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training_images import NAMES, RUNGS, Batches, Ladder, read_rows

from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.network.decoder import DecoderOutput
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.network.moe import load_balancing_loss, router_z_loss
from lifeiqa_plugin.training.optim import Schedule, parameter_groups


def lower_half(network: LifeIQA, images: Tensor) -> Tensor:
    """Return block group 2's output (B, 48, H / 8, W / 8) of images (B, 3, H, W) in 0 to 1."""
    backbone = network.backbone
    x = ((images - network.mean) / network.std).contiguous(memory_format=torch.channels_last)
    x = backbone.bn1(backbone.conv_stem(x))
    for blocks in backbone.blocks[:3]:
        x = blocks(x)
    return x


def upper_half(network: LifeIQA, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return stage3 and stage4 from the lower half's output."""
    blocks = network.backbone.blocks
    stage3 = blocks[4](blocks[3](x))
    stage4 = blocks[6](blocks[5](stage3))
    return stage3.float(), stage4.float()


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


def opinion_loss(score: Tensor, mos: Tensor, groups: list[str]) -> Tensor:
    """Return SmoothL1, and the mean correlation loss over the dataset and each of its groups of six or more."""
    parts = [torch.ones(len(groups), dtype=torch.bool)]
    parts += [torch.tensor([g == group for g in groups]) for group in sorted(set(groups))]
    parts = [part for i, part in enumerate(parts) if i == 0 or 6 <= part.sum() < len(groups)]
    correlation = torch.stack([correlation_loss(score[part], mos[part]) for part in parts]).mean()
    return 10 * F.smooth_l1_loss(score, mos, beta=0.1) + correlation


def rank_loss(score: Tensor, ladders: list[Ladder]) -> Tensor:
    """Rank the rungs by their severities, gently where only the light changes."""
    weight = torch.tensor([ladder.rank_weight for ladder in ladders])[:, None]
    gaps = torch.stack([ladder.levels for ladder in ladders]).diff(dim=1)
    falls = score.view(len(ladders), RUNGS).diff(dim=1)
    return (weight * F.relu(0.15 * weight * gaps + falls)).mean()


def pair_loss(score: Tensor) -> Tensor:
    """Squared difference between the halves, which nobody could tell apart; linear above 0.03."""
    first, second = score.chunk(2)
    return 2 * F.huber_loss(first, second, delta=0.03)


@torch.no_grad()
def fill_pool(network: LifeIQA, batches: Batches, folder: Path) -> None:
    """Write one file per batch: the lower half's output in half precision, labels, ladders."""
    folder.mkdir(parents=True, exist_ok=True)
    loader = DataLoader(batches, batch_size=None, num_workers=1, worker_init_fn=_quiet_worker)
    for i, batch in enumerate(loader):
        images = batch.pop("images").float() / 255
        jittered = torch.rand(len(images), 1, 1, 1) < 0.3  # half a level of noise, as rounding
        images = (images + jittered * (torch.rand_like(images) - 0.5) / 255).clamp(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            lower = lower_half(network, images).bfloat16()
        torch.save({"lower": lower, **batch}, folder / f"{i:04d}.pt")


def _quiet_worker(_: int) -> None:
    os.nice(5)
    torch.set_num_threads(1)


def open_pool(folder: Path, counts: dict[str, int]) -> list[Part]:
    """Map the files of some folders of the pool; nothing is read before it is used."""
    return [
        Part(
            name,
            [
                torch.load(path, mmap=True, weights_only=False)
                for path in sorted((folder / name).glob("*.pt"))
            ],
            count,
        )
        for name, count in counts.items()
    ]


class Part(NamedTuple):
    """Files of a folder of the pool, and how many images, pairs or ladders of them each step takes."""

    name: str
    files: list[dict[str, Any]]
    count: int


class Drawn(NamedTuple):
    """What a step takes from one part."""

    lower: Tensor
    mos: Tensor
    group: list[str]
    ladders: list[Ladder]


def draw(part: Part, shape: torch.Size, dice: np.random.Generator) -> Drawn:
    """Draw from one file of a shape; the halves of pairs stay in the same order."""
    files = [file for file in part.files if file["lower"].shape[2:] == shape]
    file = files[dice.integers(len(files))]
    many = len(file["ladders"]) or len(file["mos"])
    chosen = dice.permutation(many)[: part.count].tolist()
    if file["ladders"]:
        rows = [i * RUNGS + rung for i in chosen for rung in range(RUNGS)]
        return Drawn(file["lower"][rows], torch.empty(0), [], [file["ladders"][i] for i in chosen])
    copies = len(file["lower"]) // many
    rows = [i + many * copy for copy in range(copies) for i in chosen]
    group = [file["group"][i] for i in chosen] * copies
    return Drawn(file["lower"][rows], file["mos"][chosen].float().repeat(copies), group, [])


class Recipe(NamedTuple):
    """How one stage trains; the weights are those of the losses."""

    steps: int
    seed: int
    decoder_rate: float
    backbone_rate: float = 0.0  # peak learning rate of the upper half, 0 where it stands still
    labels: tuple[str, ...] = ("biq",)  # datasets whose opinion scores are learnt
    rank: float = 3.0
    kinds: float = 1.0
    pairs: float = 0.0
    keep: float = 0.0  # hold BIQ2021's images and ladders to the scores from before


DECODER_ALONE = Recipe(150, 1, 5e-4)
SHORT = Recipe(160, 1, 2e-4, backbone_rate=1e-4, kinds=2)
LONG = Recipe(310, 3, 2e-4, backbone_rate=1e-4, pairs=600)
KINDS_ALONE = Recipe(400, 1, 8e-4, labels=(), rank=0, kinds=12, pairs=300, keep=500)
DEFAULT = Recipe(250, 1, 8e-4, labels=("livec", "agiqa"), rank=0, kinds=6, pairs=300, keep=500)


def train(network: LifeIQA, parts: list[Part], recipe: Recipe) -> None:
    """Train on parts of the pool; the network leaves with the average of its weights.

    The first part sets the scale; every other dataset has a line of its own onto it, before the sigmoid.
    """
    torch.manual_seed(recipe.seed)
    dice = np.random.default_rng(recipe.seed)
    choose_parameters(network, with_backbone=recipe.backbone_rate > 0)
    teacher = copy.deepcopy(network) if recipe.keep else None
    lines = {name: torch.tensor([1.0, 0.0], requires_grad=name != "biq") for name in recipe.labels}
    optimiser = build_optimiser(network, list(lines.values()), recipe)
    schedule = Schedule(recipe.steps, min(20, recipe.steps - 1), type="cosine", min_factor=0.02)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()  # BatchNorm keeps ImageNet's statistics
    network.decoder.moe.train()  # dropout in the experts
    for step in range(1, recipe.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * schedule.factor(step)
        shape = dice.choice([file["lower"].shape[2:] for file in parts[0].files])
        drawn = {part.name: draw(part, torch.Size(shape), dice) for part in parts}
        loss = total_loss(network, teacher, drawn, lines, recipe)
        optimiser.zero_grad()
        loss.backward()
        trained = [p for group in optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, 3.0)
        optimiser.step()
        decay = min(0.985, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
    network.load_state_dict(average)


def build_optimiser(network: LifeIQA, lines: list[Tensor], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW on upper half and decoder; the distortion head, which begins at nothing, goes faster."""
    head = list(network.decoder.distortion_head.parameters())
    groups = parameter_groups(network, recipe.decoder_rate, 0.02, recipe.backbone_rate)
    for group in groups:
        group["params"] = [p for p in group["params"] if all(p is not own for own in head)]
    lines = [line for line in lines if line.requires_grad]
    for own, rate in ((head, 4e-3), (lines, 5e-3)):
        groups.append({"params": own, "lr": rate, "initial_lr": rate, "weight_decay": 0.0})
    return torch.optim.AdamW([group for group in groups if group["params"]])


def total_loss(
    network: LifeIQA,
    teacher: LifeIQA | None,
    drawn: dict[str, Drawn],
    lines: dict[str, Tensor],
    recipe: Recipe,
) -> Tensor:
    """Pass what was drawn, of one shape, in one batch and add up the losses."""
    lower = torch.cat([own.lower for own in drawn.values()])
    sizes = [len(own.lower) for own in drawn.values()]
    output = decode(network, lower, with_backbone=recipe.backbone_rate > 0)
    raw = output.query_scores.mean(1)
    loss = 0.01 * load_balancing_loss(output.routing, "switch")
    loss = loss + 0.001 * router_z_loss(output.routing)
    parts = zip(drawn.items(), raw.split(sizes), output.distortion_logits.split(sizes), strict=True)
    for (name, own), score, kinds in parts:
        dataset = name.removesuffix("_pairs")
        if own.ladders:
            targets = torch.cat([ladder.targets for ladder in own.ladders])
            loss = loss + recipe.rank * rank_loss(score.sigmoid(), own.ladders)
            loss = loss + recipe.kinds * F.binary_cross_entropy_with_logits(kinds, targets)
        elif dataset in lines:
            slope, intercept = lines[dataset]
            on_own_scale = (slope * score + intercept).sigmoid()
            loss = loss + opinion_loss(on_own_scale, own.mos, own.group)
        if name.endswith("_pairs"):
            loss = loss + recipe.pairs * pair_loss(score.sigmoid())
    if teacher is not None:
        is_held = [name in ("biq", "biq_pairs", "ladders") for name in drawn]
        held = torch.tensor(is_held).repeat_interleave(torch.tensor(sizes))
        with torch.no_grad():
            before = decode(teacher, lower[held], with_backbone=False).query_scores.mean(1)
        loss = loss + recipe.keep * F.mse_loss(raw[held].sigmoid(), before.sigmoid())
    return loss


def decode(network: LifeIQA, lower: Tensor, with_backbone: bool) -> DecoderOutput:
    """Pass the lower half's output through the rest, with a gradient of the upper half on request."""
    with torch.set_grad_enabled(with_backbone), torch.autocast("cpu", torch.bfloat16):
        stages = upper_half(network, lower)
    output: DecoderOutput = network.decoder(*stages)
    return output


def average_networks(networks: list[LifeIQA], shares: list[float]) -> LifeIQA:
    """Return a network with the weights of all, each by its share."""
    result = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    for name, value in result.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                sum(share * state[name] for share, state in zip(shares, states, strict=True))
            )
    return result


def pool_stage(network: LifeIQA, args: argparse.Namespace) -> None:
    """Show every image of every dataset once (half A of LIVE Challenge twice), pairs, and ladders."""
    biq = [row for row in read_rows(*args.biq) if row.group != "ss02"]
    best = [row.path for row in biq if row.group == "ss03" and row.mos > 0.78]
    clean = [str(path) for path in sorted(args.clean.iterdir())] * 4 + best
    livec, agiqa = read_rows(*args.livec), read_rows(*args.agiqa)
    for name, rows, size, ladders, number, seed in (
        ("biq", biq, 32, 0, len(biq) // 32 + 1, 1),
        ("biq_pairs", biq, 16, 0, 250, 71),
        ("livec", livec, 29, 0, 40, 11),
        ("agiqa", agiqa, 32, 0, len(agiqa) // 32, 12),
        ("agiqa_pairs", agiqa, 16, 0, 50, 73),
        ("ladders", [], 0, 12, 110, 41),
    ):
        in_pairs = name.endswith("_pairs")
        batches = Batches(rows, size, clean, ladders, number, seed, in_pairs)
        fill_pool(network, batches, args.pool / name)


def biq2021_stage(start: LifeIQA, args: argparse.Namespace) -> None:
    """The decoder alone, then with the upper half, twice; the average of all with the start; then the kinds."""
    alone = copy.deepcopy(start)
    train(alone, open_pool(args.pool, {"biq": 96, "ladders": 16}), DECODER_ALONE)
    short, long = copy.deepcopy(alone), copy.deepcopy(alone)
    train(short, open_pool(args.pool, {"biq": 32, "ladders": 2}), SHORT)
    train(long, open_pool(args.pool, {"biq": 20, "biq_pairs": 10, "ladders": 2}), LONG)
    network = average_networks([long, short, alone, start], [0.25, 0.45, 0.15, 0.15])
    train(network, open_pool(args.pool, {"biq": 48, "biq_pairs": 12, "ladders": 12}), KINDS_ALONE)
    torch.save(network.state_dict(), args.out)


def default_stage(start: LifeIQA, args: argparse.Namespace) -> None:
    """On from ``lifeiqa-biq2021`` with the other labels, BIQ2021's scores held loosely and firmly; the average."""
    start.load_state_dict(torch.load(args.start))
    counts = {
        "biq": 48,
        "biq_pairs": 12,
        "ladders": 12,
        "livec": 32,
        "agiqa": 48,
        "agiqa_pairs": 12,
    }
    parts = open_pool(args.pool, counts)
    loose, firm = copy.deepcopy(start), copy.deepcopy(start)
    train(loose, parts, DEFAULT)
    train(firm, parts, DEFAULT._replace(keep=2000))
    torch.save(average_networks([loose, firm], [0.7, 0.3]).state_dict(), args.out)


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=["pool", "biq2021", "default"])
    parser.add_argument("--imagenet", type=Path, default=Path("imagenet_start.safetensors"))
    parser.add_argument(
        "--first",
        type=Path,
        default=Path("first_stage.safetensors"),
        help="weights of commit 744f1a1",
    )
    for name in ("biq", "livec", "agiqa"):
        parser.add_argument(f"--{name}", type=Path, nargs=2, metavar=("CSV", "FOLDER"))
    parser.add_argument(
        "--clean", type=Path, help="folder of photos without flaws, beside BIQ2021's best"
    )
    parser.add_argument("--pool", type=Path, default=Path("pool"))
    parser.add_argument(
        "--start", type=Path, help="what stage biq2021 wrote, for the default model"
    )
    parser.add_argument("--out", type=Path, default=Path("state.pt"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    network = start_network(args.imagenet, args.first)
    {"pool": pool_stage, "biq2021": biq2021_stage, "default": default_stage}[args.stage](
        network, args
    )


if __name__ == "__main__":
    main()
