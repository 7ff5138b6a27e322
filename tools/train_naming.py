"""Train the head that names distortions, and nothing else: every score stays as it is.

    python tools/train_naming.py lifeiqa_plugin/checkpoints/lifeiqa.safetensors FOLDER [FOLDER ...] -o OUT

The photos of the folders, clean ones, are shown as they are, in each kind of distortion, and in five pairs
of kinds, at random sizes (shorter side 256 to 512) and severities (.12 to 1). From the mean and deviation of stage2 and
of stage3's cells the head learns how much of each kind there is: 0, or .25 and .75 times the severity. They are
computed once, and kept beside OUT.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

from lifeiqa_plugin.benchmark.photos import reduced
from lifeiqa_plugin.checkpoints.factory import build_network
from lifeiqa_plugin.checkpoints.files import ModelCard, read_checkpoint, save_checkpoint
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.lifeiqa import LifeIQA

SIDES = (256, 512)
MILDEST = 0.12
PAIRS = 5
"""Of kinds, for each photo."""

CLEAN_WEIGHT = 20.0
"""How much oftener than a distorted image a clean one is drawn: nothing should be named where nothing is."""

NOISE = 0.3
"""Of the statistics in training, in parts of their deviation."""

DROPOUT = 0.3
"""Of the hidden units in training."""


class Seen(NamedTuple):
    """What the head learns from."""

    statistics: Tensor  # (N, 2 * (C2 + C3))
    targets: Tensor  # (N, D)


def with_new_head(path: Path) -> tuple[LifeIQA, ModelCard]:
    """Build a checkpoint's network with a new head of all kinds that looks at the stages."""
    checkpoint = read_checkpoint(path)
    if checkpoint.config is None or checkpoint.card is None:
        raise SystemExit(
            f"{path}: says nothing of its network; give a file that lifeiqa train wrote"
        )
    network = build_network(
        {
            "pretrained": False,
            **checkpoint.config,
            "distortions": list(KINDS),
            "distortions_from": "stages",
            "naming": None,
        }
    )
    old = {
        name: value
        for name, value in checkpoint.state_dict.items()
        if "distortion_head" not in name
    }
    network.load_state_dict(old, strict=False)
    return network.eval(), checkpoint.card


def distorted(photo: Tensor, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Show (3, H, W) in all ways; returns images and their targets (D,)."""
    generator = Generator().manual_seed(seed)
    found = []
    for number in range(1 + len(KINDS) + PAIRS):
        side = int(SIDES[0] + _random(generator) * (SIDES[1] - SIDES[0]))
        image = reduced(photo, side)
        if number > len(KINDS):
            kinds = sorted(torch.randperm(len(KINDS), generator=generator)[:2].tolist())
        else:
            kinds = [number - 1] if number else []
        target = torch.zeros(len(KINDS))
        for kind in kinds:
            generators = list(KINDS.values())[kind].generators
            distort = generators[int(_random(generator) * len(generators))]
            severity = MILDEST + (1 - MILDEST) * _random(generator)
            image = distort(image, severity, generator)
            target[kind] = 0.25 + 0.75 * severity
        found.append((image, target))
    return found


def _random(generator: Generator) -> float:
    return float(torch.rand((), generator=generator))


@torch.no_grad()
def look(network: LifeIQA, photos: Sequence[str], seed: int) -> Seen:
    """Compute what the head sees of all photos in all ways."""
    statistics: list[Tensor] = []
    targets = []
    handle = network.decoder.distortion_head.register_forward_pre_hook(
        lambda _, inputs: statistics.append(inputs[0])
    )
    for number, path in enumerate(tqdm(photos, unit="photo")):
        for image, target in distorted(read_image(path), seed + number):
            x = to_working_size(image[None], network.crop_size, network.working_size)
            network.forward_crops(x)
            targets.append(target)
    handle.remove()
    return Seen(torch.cat(statistics), torch.stack(targets))


def fit(head: nn.Sequential, seen: Seen, seed: int, steps: int) -> None:
    """Fit the head by cross-entropy with soft targets; the scaling of its input becomes a part of it."""
    torch.manual_seed(seed)
    mean, deviation = seen.statistics.mean(0), seen.statistics.std(0) + 1e-4
    inputs = (seen.statistics - mean) / deviation
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    is_clean = seen.targets.sum(1) == 0
    chances = torch.ones(len(inputs)) + (CLEAN_WEIGHT - 1) * is_clean
    for _ in range(steps):
        rows = torch.multinomial(chances, 256, replacement=True)
        noisy = inputs[rows] + NOISE * torch.randn_like(inputs[rows])
        hidden = F.dropout(head[:-1](noisy), DROPOUT)
        loss = F.binary_cross_entropy_with_logits(head[-1](hidden), seen.targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    first = head[0]
    first.weight.data = (first.weight.data / deviation).half().float()  # as it is kept
    first.bias.data -= first.weight.data @ mean


def main() -> None:
    """Parse the command line, look, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", help="of clean photos")
    parser.add_argument("-o", "--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1000)
    args = parser.parse_args()
    network, card = with_new_head(args.checkpoint)
    kept = args.out.with_suffix(".statistics.pt")
    if kept.is_file():
        seen = Seen(*torch.load(kept))
    else:
        photos = [path for folder in args.folders for path in find_images(folder)]
        seen = look(network, photos, args.seed)
        torch.save(tuple(seen), kept)
    fit(network.decoder.distortion_head, seen, args.seed, args.steps)
    save_checkpoint(network, args.out, card, half=True)
    print(f"{args.out}: head trained on {len(seen.targets)} images")


if __name__ == "__main__":
    main()
