"""What each part of Life-IQA's decoder is worth: the same frozen features, seeds and budget for every variant.

    lifeiqa prepare biq2021 BIQ2021_FOLDER --drop-near-duplicates
    python tools/imagenet_start.py imagenet_start.safetensors
    python tools/ablation.py meta_info_biq2021.csv BIQ2021_FOLDER imagenet_start.safetensors

The backbone keeps ImageNet's weights, so its output is computed once per crop and only the part above it is trained:
a run takes minutes and the variants can have several seeds each. Trained on the official training split, scored after
the last epoch on the val part of it, every image as the mean over the crops that scoring uses. The test split is not
read. What a decoder is worth above a backbone that is trained with it is another question, see docs/model_card.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.correlation import correlations
from lifeiqa_plugin.network.crops import cut_crops, to_working_size
from lifeiqa_plugin.network.decoder import Decoder, DecoderConfig, DecoderOutput
from lifeiqa_plugin.network.geometry import crop_offsets
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.network.moe import Routing, load_balancing_loss, router_z_loss
from lifeiqa_plugin.training.dataset import LifeIQADataset
from lifeiqa_plugin.training.optim import Schedule, parameter_groups

GRID = 7
SIZES: dict[str, Any] = {
    "embed_dim": 128,
    "num_heads": 4,
    "num_queries": 6,
    "depth": 2,
    "dropout": 0.1,
}
NO_ROUTING = Routing(
    torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
)


class Silent(nn.Module):
    """Stands in for a graph convolution that adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, C) -> zeros."""
        return torch.zeros_like(x)


class NoMoE(Silent):
    """Stands in for a mixture of experts that adds nothing."""

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:  # type: ignore[override]  # as SparseMoE
        """(B, Q, C) -> zeros and the routing of a single expert."""
        return torch.zeros_like(x), NO_ROUTING


class LinearHead(nn.Module):
    """A linear layer on the mean of stage4, which is normalised so that the common learning rate suits it."""

    def __init__(self, stage3_channels: int, stage4_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(stage4_channels)
        self.head = nn.Linear(stage4_channels, 1)

    def forward(self, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Routing]:
        """(B, C3, 7, 7), (B, C4, 7, 7) -> scores (B, 1)."""
        return self.head(self.norm(stage4.mean((2, 3)))), NO_ROUTING


class VanillaDecoder(nn.Module):
    """torch's Transformer decoder on the same queries and memory: self-attention for the GCN, no experts."""

    def __init__(self, stage3_channels: int, stage4_channels: int) -> None:
        super().__init__()
        dim, heads = SIZES["embed_dim"], SIZES["num_heads"]
        self.query_tokens = nn.Parameter(0.02 * torch.randn(1, SIZES["num_queries"], dim))
        self.context, self.memory = nn.Linear(stage4_channels, dim), nn.Linear(stage3_channels, dim)
        layer = nn.TransformerDecoderLayer(
            dim, heads, 4 * dim, SIZES["dropout"], batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, SIZES["depth"], nn.LayerNorm(dim))
        self.head = nn.Linear(dim, 1)

    def forward(self, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Routing]:
        """(B, C3, 7, 7), (B, C4, 7, 7) -> scores (B, Q)."""
        queries = self.query_tokens + self.context(stage4.mean((2, 3)))[:, None]
        tokens = self.layers(queries, self.memory(stage3.flatten(2).mT))
        return self.head(tokens).squeeze(-1), NO_ROUTING


class LifeDecoder(nn.Module):
    """The package's decoder, whole or with one part changed."""

    def __init__(
        self,
        stage3_channels: int,
        stage4_channels: int,
        without: str = "",
        experts: int = 4,
        adjacency: Any = "learnable",
    ) -> None:
        super().__init__()
        self.without = without
        channels = stage4_channels if without == "stage3" else stage3_channels
        self.decoder = Decoder(
            channels,
            stage4_channels,
            DecoderConfig(num_experts=experts, adjacency=adjacency, memory_grid=GRID, **SIZES),
        )
        if without == "gcn":
            for layer in self.decoder.layers:
                layer.gcn = Silent()
        if without == "moe":
            self.decoder.moe = NoMoE()  # type: ignore[assignment]

    def forward(self, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Routing]:
        """(B, C3, 7, 7), (B, C4, 7, 7) -> scores (B, Q)."""
        output: DecoderOutput = self.decoder(stage4 if self.without == "stage3" else stage3, stage4)
        return output.query_scores, output.routing


VARIANTS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear head on stage4": LinearHead,
    "vanilla Transformer decoder": VanillaDecoder,
    "no GCN": lambda c3, c4: LifeDecoder(c3, c4, "gcn"),
    "no MoE": lambda c3, c4: LifeDecoder(c3, c4, "moe"),
    "one expert (FFN)": lambda c3, c4: LifeDecoder(c3, c4, experts=1),
    "no stage3 (memory from stage4)": lambda c3, c4: LifeDecoder(c3, c4, "stage3"),
    "fixed adjacency": lambda c3, c4: LifeDecoder(c3, c4, adjacency="fixed"),
    "complete (learnable adjacency)": LifeDecoder,
}


# ------------------------------------------------------------------------------------------------------------ features


@torch.no_grad()
def compute_features(network: LifeIQA, dataset: LifeIQADataset) -> tuple[Tensor, Tensor]:
    """Run the backbone on the crops of every item: (N, V, C3, 7, 7) and (N, V, C4, 7, 7), bfloat16.

    Training items are random crops; whole images are cut as for scoring and must all have the same number of crops.
    """
    stage3, stage4, start = [], [], time.time()
    for row in range(len(dataset)):
        crops = dataset[(row, 1) if dataset.phase == "train" else row]["img"]  # seed 1
        if crops.dim() == 3:
            image = to_working_size(crops[None], network.crop_size, network.working_size)
            offsets = crop_offsets(image.shape[-2], image.shape[-1], network.crop_size)
            crops = cut_crops(image, offsets, network.crop_size)
        deep = ((crops - network.mean) / network.std).contiguous(memory_format=torch.channels_last)
        low, high = network.backbone(deep)
        stage3.append(nn.functional.adaptive_avg_pool2d(low, GRID).bfloat16())
        stage4.append(nn.functional.adaptive_avg_pool2d(high, GRID).bfloat16())
        if row % 500 == 499:
            print(
                f"features: {row + 1}/{len(dataset)}, {(time.time() - start) / (row + 1):.3f} s each",
                flush=True,
            )
    return torch.stack(stage3), torch.stack(stage4)


def load_features(args: argparse.Namespace) -> dict[str, Tensor]:
    """Compute the features of train and val, or read what an earlier run has left in ``args.features``."""
    if args.features.is_file():
        kept: dict[str, Tensor] = torch.load(args.features, weights_only=True)
        return kept
    network = build_lifeiqa(pretrained_model_path=args.start).eval()
    data = {}
    for phase in ("train", "val"):
        opt = {"phase": phase, "meta_info_file": str(args.meta), "dataroot_target": str(args.root)}
        opt |= {"crop_size": network.crop_size, "working_size": network.working_size}
        dataset = LifeIQADataset(
            opt | {"split_index": "official_split", "crops_per_image": args.views}
        )
        dataset.paths_mos = dataset.paths_mos[: args.limit]
        data[f"{phase}3"], data[f"{phase}4"] = compute_features(network, dataset)
        data[f"{phase}_mos"] = torch.tensor(dataset.mos)
    torch.save(data, args.features)
    return data


# ------------------------------------------------------------------------------------------------------------ training


def mos_loss(score: Tensor, mos: Tensor) -> Tensor:
    """SmoothL1 and linear correlation, as in the option file of the bundled checkpoint."""
    plcc = nn.functional.cosine_similarity(score - score.mean(), mos - mos.mean(), dim=0)
    return 10 * nn.functional.smooth_l1_loss(score, mos, beta=0.1) + 0.5 * (1 - plcc)


def fit(
    head: nn.Module, data: dict[str, Tensor], args: argparse.Namespace, seed: int
) -> dict[str, float]:
    """Train one variant with one seed; returns its correlations with the val part after the last epoch."""
    generator = torch.Generator().manual_seed(seed)
    mos, batch = data["train_mos"], args.batch
    per_epoch = len(mos) // batch
    groups = parameter_groups(head, args.lr, 0.01)
    optimizer = torch.optim.AdamW(groups)
    schedule = Schedule(args.epochs * per_epoch, warmup_iter=per_epoch // 2, type="cosine")
    iteration = 0
    for _ in range(args.epochs):
        head.train()
        for rows in torch.randperm(len(mos), generator=generator)[: per_epoch * batch].view(
            per_epoch, -1
        ):
            iteration += 1
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule.factor(iteration)
            views = torch.randint(args.views, (batch,), generator=generator)
            raw, routing = head(
                data["train3"][rows, views].float(), data["train4"][rows, views].float()
            )
            loss = mos_loss(raw.mean(1).sigmoid(), mos[rows])
            loss = (
                loss
                + 0.01 * load_balancing_loss(routing, "switch")
                + 0.001 * router_z_loss(routing)
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 5.0)
            optimizer.step()
    return correlations(predict(head, data), data["val_mos"].numpy())


@torch.no_grad()
def predict(head: nn.Module, data: dict[str, Tensor]) -> Any:
    """Mean score over the crops of each val image, (N,)."""
    head.eval()
    scores = []
    for low, high in zip(data["val3"].split(64), data["val4"].split(64), strict=True):
        raw, _ = head(low.flatten(0, 1).float(), high.flatten(0, 1).float())
        scores.append(raw.mean(1).sigmoid().view(len(low), -1).mean(1))
    return torch.cat(scores).numpy()


@torch.no_grad()
def cost(head: nn.Module, stage3: Tensor, stage4: Tensor) -> tuple[int, float]:
    """Return the parameters and the million multiply-adds per crop of one variant."""
    with FlopCounterMode(display=False) as counter:
        head.eval()(stage3[:1], stage4[:1])
    return sum(p.numel() for p in head.parameters()), counter.get_total_flops() / 2e6


@torch.no_grad()
def time_in_turns(
    heads: dict[str, nn.Module], stage3: Tensor, stage4: Tensor, rounds: int = 30
) -> dict[str, float]:
    """Median milliseconds per batch of each variant, taking turns so that a busy moment hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in heads}
    for _ in range(rounds):
        for name, head in heads.items():
            start = time.perf_counter()
            head(stage3, stage4)
            taken[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Parse the command line, run every variant with every seed, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "meta", type=Path, help="csv written by 'lifeiqa prepare biq2021 --drop-near-duplicates'"
    )
    parser.add_argument("root", type=Path, help="folder of BIQ2021")
    parser.add_argument("start", type=Path, help="checkpoint written by tools/imagenet_start.py")
    parser.add_argument(
        "--features", type=Path, default=Path("features.pt"), help="kept between runs"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--views", type=int, default=3, help="random crops kept of each training image"
    )
    parser.add_argument("--limit", type=int, help="use only this many images (for a trial)")
    args = parser.parse_args()
    torch.manual_seed(0)
    data = load_features(args)
    channels = data["train3"].shape[2], data["train4"].shape[2]
    crops = data["val3"].flatten(0, 1)[:16].float(), data["val4"].flatten(0, 1)[:16].float()
    heads, rows = {}, {}
    for name, build in VARIANTS.items():
        results = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            heads[name] = build(*channels)
            start = time.time()
            results.append(fit(heads[name], data, args, seed))
            print(f"{name}, seed {seed}: {results[-1]} in {time.time() - start:.0f} s", flush=True)
        rows[name] = results
    times = time_in_turns(heads, *crops)
    print(
        "\n| variant | SRCC, mean (each seed) | PLCC, mean | RMSE, mean | parameters | M MACs | ms for 16 crops |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, results in rows.items():
        mean = {key: statistics.mean(r[key] for r in results) for key in ("srcc", "plcc", "rmse")}
        each = " ".join(f"{r['srcc']:.4f}" for r in results)
        parameters, macs = cost(heads[name], *crops)
        print(
            f"| {name} | {mean['srcc']:.4f} ({each}) | {mean['plcc']:.4f} | {mean['rmse']:.4f} "
            f"| {parameters:,} | {macs:.2f} | {times[name]:.2f} |"
        )


if __name__ == "__main__":
    main()
