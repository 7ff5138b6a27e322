"""Tables and figures of ``docs/claims.md`` from the results of ``claims.py``."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from claims_models import COMPLETE, LINEAR, MODELS, VANILLA
from measuring import load_pyplot, markdown_table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lifeiqa_plugin.benchmark.timing import time_in_turn


class Run(NamedTuple):
    """One thing that is trained."""

    claim: str
    model: str
    trained: str
    photos: int
    seed: int


Results = dict[tuple[Run, str], tuple[float, float]]
"""SRCC and PLCC of a run on a test."""


def by_seed(
    results: Results, claim: str, model: str, trained: str, test: str, photos: int = 0
) -> dict[int, float]:
    """Return the SRCC of every seed; ``photos`` 0 for any number of them."""
    return {
        run.seed: srcc
        for (run, of), (srcc, _) in results.items()
        if (run.claim, run.model, run.trained, of) == (claim, model, trained, test)
        and photos in (0, run.photos)
    }


def spread(values: Any) -> str:
    """Return mean and standard deviation over seeds."""
    values = list(values)
    if len(values) < 2:
        return " ".join(f"{value:.3f}" for value in values)
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def against(one: dict[int, float], other: dict[int, float]) -> str:
    """Return the mean difference of the same seeds, and its range."""
    gaps = [one[seed] - other[seed] for seed in one if seed in other]
    return f"{statistics.mean(gaps):+.3f} ({min(gaps):+.3f} to {max(gaps):+.3f})" if gaps else ""


@torch.no_grad()
def costs(stage3: Tensor, stage4: Tensor, rounds: int = 100) -> dict[str, list[str]]:
    """Return parameters, million multiply-adds and milliseconds of every model above the backbone, for one image."""
    models: dict[str, nn.Module] = {
        name: build(stage3.shape[1], stage4.shape[1]).eval() for name, build in MODELS.items()
    }
    calls = {name: lambda model=model: model(stage3, stage4) for name, model in models.items()}
    times = time_in_turn(calls, rounds)
    found = {}
    for name, model in models.items():
        with FlopCounterMode(display=False) as counter:
            model(stage3, stage4)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        milliseconds = min(times[name]) * 1000  # the round that was least disturbed
        found[name] = [
            f"{parameters / 1000:.0f} k",
            f"{counter.get_total_flops() / 2e6:.2f}",
            f"{milliseconds:.2f}",
        ]
    return found


def tables(results: Results, cost: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Return title and Markdown of every table."""
    tests = list(dict.fromkeys(test for run, test in results if run.claim == "parts"))
    home, away = tests[0], "livec-a"
    trained = next(run.trained for run, _ in results if run.claim == "parts")

    def models_of(claim: str) -> list[str]:
        return list(dict.fromkeys(run.model for run, _ in results if run.claim == claim))

    def line(claim: str, model: str, on: str = trained) -> list[str]:
        return [spread(by_seed(results, claim, model, on, test).values()) for test in tests]

    yield (
        "rates of learning, chosen on training photos left out",
        markdown_table(
            ["rate", "SRCC"],
            [
                [m, spread(by_seed(results, "rates", m, trained, trained).values())]
                for m in models_of("rates")
            ],
        ),
    )
    rows = [
        [
            m,
            *line("stages", m),
            *spread(by_seed(results, "stages", m, away, away).values()).split("\n"),
        ]
        for m in models_of("stages")
    ]
    yield "stages", markdown_table(["probe", *tests, f"{away}, trained there"], rows)
    for claim in ("parts", "upper half"):
        whole = [by_seed(results, claim, COMPLETE, trained, test) for test in (home, away)]
        rows = []
        for model in models_of(claim):
            own = [by_seed(results, claim, model, trained, test) for test in (home, away)]
            gaps = [against(a, b) for a, b in zip(own, whole, strict=True)]
            rows.append([model, *line(claim, model), *gaps, *cost[model]])
        header = ["model", *tests, f"{home} - complete", f"{away} - complete"]
        yield claim, markdown_table([*header, "parameters", "M MACs", "ms"], rows)
    rows = [[m, *line("both rates", m)] for m in models_of("both rates")]
    yield "both rates", markdown_table(["model", *tests], rows)
    sizes = sorted({run.photos for run, _ in results if run.claim == "data"})
    rows = [
        [m, *(spread(by_seed(results, "data", m, away, away, n).values()) for n in sizes)]
        for m in models_of("data")
    ]
    yield "data", markdown_table(["photos", *map(str, sizes)], rows)
    rows = []
    for m in models_of("data"):
        found = [by_seed(results, "data", m, away, test, sizes[-1]) for test in tests]
        rows.append([m, *(spread(values.values()) for values in found)])
    yield f"trained on {away}", markdown_table(["model", *tests], rows)


def draw(results: Results, folder: Path) -> None:
    """Write claims_stages.svg, claims_parts.svg and claims_data.svg."""
    plt = load_pyplot()
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "claims", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    trained = next(run.trained for run, _ in results if run.claim == "parts")
    tests = ("biq2021-val", "livec-a")
    titles = ("BIQ2021, home", "LIVE Challenge A, unseen")

    def points(claim: str, models: list[str], test: str) -> tuple[list[float], list[float]]:
        found = [list(by_seed(results, claim, m, trained, test).values()) for m in models]
        return [statistics.mean(v) for v in found], [statistics.pstdev(v) for v in found]

    def save(figure: Any, name: str) -> None:
        figure.savefig(folder / f"claims_{name}.svg", metadata={"Date": None})
        plt.close(figure)

    figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.8), sharey=True, layout="constrained")
    probes = list(dict.fromkeys(run.model for run, _ in results if run.claim == "stages"))
    for backbone in dict.fromkeys(probe.split(" ")[0] for probe in probes):
        own = [probe for probe in probes if probe.startswith(backbone)]
        for axis, test in zip(axes, tests, strict=True):
            means, deviations = points("stages", own, test)
            names = ["+".join(probe.split(" ")[1]) for probe in own]
            axis.errorbar(names, means, deviations, fmt="o", capsize=2, label=backbone)
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="stages seen by the probe")
        axis.tick_params(axis="x", rotation=60)
    axes[0].set_ylabel("SRCC")
    axes[0].legend()
    save(figure, "stages")

    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.6), sharey=True, layout="constrained")
    for claim, color in (("parts", "C0"), ("upper half", "C3")):
        models = list(dict.fromkeys(run.model for run, _ in results if run.claim == claim))
        for axis, test in zip(axes, tests, strict=True):
            means, deviations = points(claim, models, test)
            label = "backbone as it was" if claim == "parts" else "upper half trained too"
            axis.errorbar(
                means, models, xerr=deviations, fmt="o", color=color, capsize=2, label=label
            )
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="SRCC")
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=7)
    save(figure, "parts")

    figure, axis = plt.subplots(figsize=(4.5, 3), layout="constrained")
    sizes = sorted({run.photos for run, _ in results if run.claim == "data"})
    for model in (LINEAR, VANILLA, COMPLETE):
        found = [
            list(by_seed(results, "data", model, "livec-a", "livec-a", n).values()) for n in sizes
        ]
        means, deviations = map(statistics.mean, found), map(statistics.pstdev, found)
        axis.errorbar(sizes, list(means), list(deviations), fmt="o-", capsize=2, label=model)
    axis.set(xlabel="photos trained on", ylabel="SRCC", title="LIVE Challenge A, home")
    axis.legend()
    save(figure, "data")
