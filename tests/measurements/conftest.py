"""Scripts imported as Python finds them when they are run, and tiny input for their command lines."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.network.lifeiqa import LifeIQA

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script by its name."""
    for folder in ("examples", "tools", "measurements"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module


@pytest.fixture
def run_main(load, monkeypatch, capsys) -> Callable[..., str]:
    """Run ``main`` of a script with a command line; return what it printed."""

    def run(script: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        load(script).main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A network of a few thousand weights, as ``lifeiqa train`` writes it."""
    torch.manual_seed(0)
    network = LifeIQA(
        "test_convnext",
        embed_dim=16,
        num_heads=2,
        depth=1,
        num_experts=2,
        crop_size=32,
        working_size=48,
    )
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(network, path, ModelCard(training_data="nothing", license="none"))
    return path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """A folder of 36 images and ``meta.csv``, a third each of training, validation and test."""
    root = tmp_path_factory.mktemp("dataset")
    rng, lines = np.random.default_rng(0), ["name,mos,official_split"]
    for i in range(36):
        pixels = rng.integers(0, 7 * i + 2, (48, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{i / 36:.3f},{('train', 'val', 'test')[i % 3]}")
    (root / "meta.csv").write_text("\n".join(lines) + "\n")
    return root
