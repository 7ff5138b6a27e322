"""Measure training: crops per second, share of time waiting for data, memory; beside pyiqa's stock model.

    python benchmarks/training.py --pictures 64 --iterations 20 --threads 2

Both train the same network on the same generated pictures with the same number of crops in a batch. ``lifeiqa`` is
this plugin's model and dataset, ``stock`` pyiqa's ``GeneralIQAModel`` with ``GeneralNRDataset``, which decodes each
picture once for every crop and knows no side losses. Each runs in a process of its own; the first iteration is left
out. Timings are of this machine and its load; compare the two of one call only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

CROPS = 4
NETWORK = {
    "type": "LifeIQA", "pretrained": False, "backbone": "tf_efficientnet_lite0", "embed_dim": 128, "num_heads": 4,
    "depth": 2, "num_experts": 4, "crop_size": 224, "working_size": 384,
}  # fmt: skip


def write_pictures(root: Path, count: int) -> None:
    """Write ``count`` JPEG pictures of 512 x 384 and their csv."""
    rng, lines = np.random.default_rng(0), ["name,mos"]
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        small.resize((512, 384), Image.Resampling.BICUBIC).save(root / f"{i}.jpg", quality=90)
        lines.append(f"{i}.jpg,{i / count}")
    (root / "meta.csv").write_text("\n".join(lines) + "\n")


def make_options(kind: str, root: Path, batch: int, iterations: int, pictures: int, workers: int) -> dict[str, Any]:
    """Return the option file of one of the two kinds."""
    common = {"name": "train", "meta_info_file": str(root / "meta.csv"), "dataroot_target": str(root)}
    common |= {"num_worker_per_gpu": workers}
    if kind == "lifeiqa":
        train_set = {"type": "LifeIQADataset", "crops_per_image": CROPS, "batch_size_per_gpu": batch}
        optim: dict[str, Any] = {"lr": 1e-4}
    else:
        augment = {"random_crop": 224, "hflip": True}
        train_set = {"type": "GeneralNRDataset", "augment": augment, "batch_size_per_gpu": batch * CROPS}
        train_set |= {"dataset_enlarge_ratio": CROPS}
        optim = {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.01}
    epochs = -(-iterations * batch // pictures)
    return {
        "name": kind, "model_type": "LifeIQAModel" if kind == "lifeiqa" else "GeneralIQAModel", "num_gpu": "auto",
        "manual_seed": 1, "datasets": {"train": common | train_set}, "network": NETWORK,
        "train": {
            "total_epoch": epochs, "optim": optim, "mos_loss_opt": {"type": "L1Loss"},
            "scheduler": {"type": "cosine"} if kind == "lifeiqa" else {"type": "StepLR", "step_size": 100},
        },
        "logger": {"print_freq": 1, "save_latest_freq": 10**9, "use_tb_logger": False},
        **({} if kind == "lifeiqa" else {"path": {"resume_state": None}, "val": None}),
    }  # fmt: skip


def run_one(kind: str, option_file: Path) -> None:
    """Train in this process; prints the peak of its memory in MiB."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    import lifeiqa_plugin
    from lifeiqa_plugin import launch

    lifeiqa_plugin.register()
    if kind == "lifeiqa":
        launch.train(option_file)
    else:
        import pyiqa.train
        from pyiqa.models.general_iqa_model import GeneralIQAModel

        step = GeneralIQAModel.optimize_parameters

        def with_metrics(self: Any, current_iter: int) -> None:  # which the stock loop reads though val is absent
            self.opt["val"], self.best_metric_results = {"metrics": {}}, {}
            step(self, current_iter)

        GeneralIQAModel.optimize_parameters = with_metrics
        sys.argv = ["train", "-opt", str(option_file)]
        pyiqa.train.train_pipeline(os.getcwd())
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def measure(kind: str, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Start a process, read its log: crops per second, data's share of the time, peak memory."""
    options = make_options(kind, folder, args.batch, args.iterations, args.pictures, args.workers)
    option_file = folder / f"{kind}.yml"
    option_file.write_text(yaml.safe_dump(options))
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    command = [sys.executable, __file__, "--one", kind, str(option_file)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{kind} failed:\n{done.stderr[-3000:]}")
    log = next((folder / "experiments" / kind).glob("*.log")).read_text()
    pairs = [tuple(map(float, found)) for found in re.findall(r"time \(data\): ([\d.]+) \(([\d.]+)\)", log)]
    seconds, data = (np.diff(np.array(column) * np.arange(1, len(pairs) + 1)) for column in zip(*pairs, strict=True))
    peak = float(re.findall(r"PEAK (\d+)", done.stdout)[0])
    rate = args.batch * CROPS / float(np.median(seconds))
    return {"crops_per_s": round(rate, 1), "data_share": round(float(data.sum() / seconds.sum()), 3), "peak_MiB": peak}


def main() -> None:
    """Parse the command line, measure both kinds, print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4, help=f"pictures in a batch, {CROPS} crops of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_one(args.one[0], Path(args.one[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        write_pictures(Path(name), args.pictures)
        for kind in ("lifeiqa", "stock"):
            print(json.dumps({"model": kind, **measure(kind, args, Path(name))}), flush=True)


if __name__ == "__main__":
    main()
