"""Forty small generated images whose score is how little noise they have, and a network that trains in seconds."""

from __future__ import annotations

import copy
import multiprocessing
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import lifeiqa_plugin

lifeiqa_plugin.register()

OPTIONS: dict[str, Any] = {
    "name": "tiny",
    "model_type": "LifeIQAModel",
    "num_gpu": 0,
    "manual_seed": 1,
    "datasets": {
        "train": {
            "name": "noise-train", "batch_size_per_gpu": 6, "crops_per_image": 2,
        },
        "val": {"name": "noise-val"},
        "test": {"name": "noise-test"},
    },
    "network": {
        "type": "LifeIQA", "pretrained": False, "backbone": "test_convnext", "embed_dim": 16, "num_heads": 2,
        "depth": 1, "num_experts": 4, "top_k": 1, "memory_grid": 2, "crop_size": 32, "working_size": 48,
    },
    "train": {
        "total_epoch": 3, "optim": {"lr": 1e-3}, "scheduler": {"type": "cosine"},
        "mos_loss_opt": {"type": "SmoothL1Loss"},
    },
    "val": {"val_freq": 5, "key_metric": "srcc"},
    "logger": {"print_freq": 1, "save_latest_freq": 1000, "use_tb_logger": False},
}  # fmt: skip


FOLDER = Path("experiments/tiny")
NO_SIDE_LOSS = ("train:load_balancing_weight=0", "train:router_z_weight=0", "network:dropout=0")


def read_state(folder: Path = FOLDER) -> dict:
    return torch.load(folder / "training_states/latest.state", weights_only=True)


def read_log(folder: Path = FOLDER) -> list[dict[str, float]]:
    """The numbers of every iteration of the newest log."""
    text = max(folder.glob("train_*.log"), key=newest).read_text()
    lines = [line for line in text.splitlines() if "iter:" in line and "l_mos" in line]
    return [
        {k: float(v) for k, v in re.findall(r"(\w+): +([-+.\de]+)", line.split(")] ")[-1])}
        for line in lines
    ]


def read_csv(path: str | Path) -> list[list[str]]:
    return [line.split(",") for line in Path(path).read_text().splitlines()]


def newest_log() -> str:
    return max(FOLDER.glob("train_*.log"), key=newest).read_text()


def newest(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def assert_same(first: dict, second: dict) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=0, atol=0, equal_nan=True, msg=key)


def write_images(root: Path, count: int) -> Path:
    """Write ``count`` noisy images of odd sizes and ``scores.csv``, 0 (worst) to 100."""
    root.mkdir(parents=True)
    rng, lines = np.random.default_rng(0), ["name,mos"]
    for i in range(count):
        height, width = rng.integers(30, 60, 2)
        noise = rng.normal(0, 80 * i / count, (height, width, 3))
        Image.fromarray((128 + noise).clip(0, 255).astype(np.uint8)).save(root / f"{i:03d}.png")
        lines.append(f"{i:03d}.png,{100 * (1 - i / count):.2f}")
    (root / "scores.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A folder of 40 images with ``scores.csv`` and the ``meta.csv`` that prepare makes of it."""
    from lifeiqa_plugin.datasets.prepare import prepare

    root = write_images(tmp_path_factory.mktemp("set") / "images", 40)
    prepare("folder", root, root / "meta.csv", mos_range=(0, 100))
    return root


@pytest.fixture
def write_options(images, tmp_path, monkeypatch) -> Callable[..., Path]:
    """Change into an empty folder; returns a function that writes ``tiny.yml`` there, with ``section:key=value``s."""
    monkeypatch.chdir(tmp_path)

    def write(*changes: str, drop: tuple[str, ...] = ()) -> Path:
        from lifeiqa_plugin.training.options import apply_change

        options = copy.deepcopy(OPTIONS)
        for dataset in options["datasets"].values():
            dataset |= {"type": "LifeIQADataset", "meta_info_file": str(images / "meta.csv")}
            dataset |= {"dataroot_target": str(images), "split_ratio": "712", "split_index": 1}
        for change in changes:
            apply_change(options, change)
        for key in drop:
            *sections, last = key.split(":")
            section = options
            for name in sections:
                section = section[name]
            del section[last]
        path = tmp_path / "tiny.yml"
        path.write_text(yaml.safe_dump(options, sort_keys=False))
        return path

    return write


@pytest.fixture
def train_until(monkeypatch) -> Callable[..., None]:
    """Returns a function that trains up to a Ctrl-C at an iteration; ``before`` is done to the model first."""
    from lifeiqa_plugin.training import launch
    from lifeiqa_plugin.training.model import LifeIQAModel

    def train(
        option_file: Path, iteration: int, before: Callable[[Any], None] | None = None
    ) -> None:
        step = LifeIQAModel.optimize_parameters

        def stop(self: LifeIQAModel, current_iter: int) -> None:
            if current_iter == iteration:
                if before:
                    before(self)
                raise KeyboardInterrupt
            step(self, current_iter)

        with monkeypatch.context() as context:
            context.setattr(LifeIQAModel, "optimize_parameters", stop)
            with pytest.raises(KeyboardInterrupt):
                launch.train(option_file)

    return train


def lose_last_state(model: Any) -> None:
    """Let a model end as if it was killed: it saves no state."""
    model.save_training_state = lambda *_: None


@pytest.fixture
def build_model() -> Callable[..., Any]:
    """Returns a function that builds the model of an option file alone, ready for ``feed_data``."""

    def build(option_file: Path, total_iter: int = 10) -> Any:
        from lifeiqa_plugin.pyiqa_compat import forgetful_logger
        from lifeiqa_plugin.training import preparation
        from lifeiqa_plugin.training.model import LifeIQAModel
        from lifeiqa_plugin.training.options import read_options

        opt = preparation.prepare_options(read_options(option_file))
        preparation.take_sizes_from_network(opt)
        opt["train"]["total_iter"] = total_iter
        with forgetful_logger():
            return LifeIQAModel(opt)

    return build


@pytest.fixture(scope="session")
def start_process():
    """Start a function of an installed module in a process of its own, in the current folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lifeiqa_plugin.training.launch"])

    def start(function: Callable[..., Any], *arguments: Any) -> multiprocessing.Process:
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return start


@pytest.fixture
def start_two(start_process):
    """Start ``lifeiqa train`` in two processes that know of each other, as torchrun does; returns both."""

    def start(*arguments: object) -> list[multiprocessing.Process]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = ["train", "--launcher", "pytorch", *map(str, arguments)]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        started = []
        for rank in "01":
            environment = shared | {"RANK": rank, "LOCAL_RANK": rank}
            code = f"import os\nos.environ.update({environment})\nfrom lifeiqa_plugin import cli\n"
            started.append(start_process(exec, f"{code}raise SystemExit(cli.main({command}))"))
        return started

    return start
