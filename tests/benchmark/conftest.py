"""Small images whose opinion score is their brightness, and metrics of a few lines: right, wrong, broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pyiqa.utils.registry import ARCH_REGISTRY

import lifeiqa_plugin
from lifeiqa_plugin import cli

lifeiqa_plugin.register()
COUNT = 24


class StubBrightness(torch.nn.Module):
    """Mean of the image times ``gain``; ``pretrained`` needs a network, which tests do not have."""

    calls: ClassVar[list[float]] = []
    interrupt_after: ClassVar[int] = 10**9

    def __init__(
        self,
        gain: float = 1.0,
        pretrained: bool = False,
        dark_fails: bool = False,
        nan: bool = False,
    ) -> None:
        super().__init__()
        if pretrained:
            raise OSError("no network")
        self.weight = torch.nn.Parameter(torch.tensor([gain]))
        self.dark_fails, self.nan = dark_fails, nan

    def forward(self, x: torch.Tensor, reference: torch.Tensor | None = None) -> torch.Tensor:
        if len(self.calls) >= self.interrupt_after:
            raise KeyboardInterrupt
        mean = x.mean((1, 2, 3))[:, None]
        self.calls.append(float(mean[0]))
        if self.dark_fails and mean[0] < 0.2:
            raise ValueError("too dark")
        if reference is not None:
            return -self.weight * (x - reference).abs().mean((1, 2, 3))[:, None]
        return self.weight * mean + (float("nan") if self.nan else 0)


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch) -> type[StubBrightness]:
    """Register the stub for one test and forget what it was called with."""
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "StubBrightness", StubBrightness)
    monkeypatch.setattr(
        "pyiqa.archs._ALL_ARCH_IMPORTED", True
    )  # or an unknown name would import every network there is
    monkeypatch.setattr(StubBrightness, "interrupt_after", 10**9)
    StubBrightness.calls.clear()
    return StubBrightness


@pytest.fixture
def metric_file(tmp_path) -> Path:
    """Return an option file: a metric that is right, one wrong way round, one that is lower better, one broken."""

    def describe(
        mode: str = "NR", lower_better: bool = False, **options: object
    ) -> dict[str, object]:
        return {
            "metric_opts": {"type": "StubBrightness", **options},
            "metric_mode": mode,
            "lower_better": lower_better,
        }

    table = {
        "right": describe(),
        "wrong": describe(gain=-1.0),
        "lower": describe(gain=-2.0, lower_better=True),
        "dark": describe(dark_fails=True),
        "weightless": describe(pretrained=True),
        "broken": {"metric_opts": {"type": "NoSuchArch"}, "metric_mode": "NR"},
        "paired": describe("FR"),
    }
    path = tmp_path / "metrics.yml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Write a folder with ``COUNT`` images, a reference and ``scores.csv`` with subsets and an official split."""
    root = tmp_path_factory.mktemp("benchmark") / "photos"
    root.mkdir()
    rng, lines = np.random.default_rng(0), ["name,mos,reference,subset,official_split"]
    Image.new("RGB", (40, 30), (255, 255, 255)).save(root / "white.png")
    for i in range(COUNT):
        level = 10 + 10 * i
        Image.fromarray(rng.integers(level - 10, level + 10, (30, 40, 3), dtype=np.uint8)).save(
            root / f"{i:02d}.png"
        )
        mos = level / 255 + rng.normal(0, 0.05)
        lines.append(
            f"{i:02d}.png,{mos:.4f},white,{'even' if i % 2 == 0 else 'odd'},{'test' if i >= 4 else 'train'}"
        )
    (root / "scores.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def command(metric_file, images, tmp_path, monkeypatch) -> Callable[..., int]:
    """Run the benchmark of these metrics and images in an empty folder, into ``out``; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    common = ["--metric-opt", str(metric_file), "-d", str(images / "scores.csv"), "-o", "out"]

    def run(*more: str) -> int:
        return cli.main(["benchmark", *common, "--device", "cpu", "--samples", "8", *more])

    return run
