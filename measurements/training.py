"""Measure training: crops per second, share of time waiting for data, memory.

    python measurements/training.py                  # beside pyiqa's stock model, and without our allocator settings
    python measurements/training.py --processes      # two processes beside one with the doubled batch

All train the same network on the same generated images with the same number of crops in a batch. ``lifeiqa`` is
this plugin's model and dataset as ``lifeiqa train`` runs them, ``stock`` pyiqa's ``GeneralIQAModel`` with
``GeneralNRDataset``, which decodes each image once for every crop and knows no side losses; it and the middle line
leave the C library's allocator alone. With ``--processes`` all processes together have ``--threads`` threads. Each line
is measured in processes of its own; the first iteration is left out. Timings are of this machine and its load; compare
the lines of one call only. ``system_s`` is the time in the system, start included: page faults, most of all. Either
call takes a minute or two on two cores.
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
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image

CROPS = 4


class Case(NamedTuple):
    """One line of the result."""

    name: str
    kind: str = "lifeiqa"
    keeps_memory: bool = True
    processes: int = 1


NETWORK = {
    "type": "LifeIQA", "pretrained": False, "backbone": "tf_efficientnet_lite0", "embed_dim": 128, "num_heads": 4,
    "depth": 2, "num_experts": 4, "crop_size": 224, "working_size": 384,
}  # fmt: skip


def write_images(root: Path, count: int) -> None:
    """Write ``count`` JPEG images of 512 x 384 and their csv."""
    rng, lines = np.random.default_rng(0), ["name,mos"]
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        small.resize((512, 384), Image.Resampling.BICUBIC).save(root / f"{i}.jpg", quality=90)
        lines.append(f"{i}.jpg,{i / count}")
    (root / "meta.csv").write_text("\n".join(lines) + "\n")


def make_options(
    kind: str, root: Path, batch: int, iterations: int, images: int, workers: int, processes: int
) -> dict[str, Any]:
    """Return the option file of one of the two kinds; the batch is that of one process."""
    common = {
        "name": "train",
        "meta_info_file": str(root / "meta.csv"),
        "dataroot_target": str(root),
    }
    common |= {"num_worker_per_gpu": workers}
    if kind == "lifeiqa":
        train_set = {
            "type": "LifeIQADataset",
            "crops_per_image": CROPS,
            "batch_size_per_gpu": batch,
        }
        optim: dict[str, Any] = {"lr": 1e-4}
    else:
        augment = {"random_crop": 224, "hflip": True}
        train_set = {
            "type": "GeneralNRDataset",
            "augment": augment,
            "batch_size_per_gpu": batch * CROPS,
        }
        train_set |= {"dataset_enlarge_ratio": CROPS}
        optim = {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.01}
    epochs = -(-iterations * batch * processes // images)
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


def run_one(kind: str, option_file: Path, keeps_memory: bool) -> None:
    """Train in this process, or below torchrun in this one of several; prints its peak MiB and system time."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    import lifeiqa_plugin
    from lifeiqa_plugin import allocator
    from lifeiqa_plugin.training import launch

    if keeps_memory and not allocator.keep_freed_memory():
        print("the allocator could not be set; both lines are the default", file=sys.stderr)
    lifeiqa_plugin.register()
    if kind == "lifeiqa":
        with launch.processes("pytorch" if "LOCAL_RANK" in os.environ else "none"):
            launch.train(option_file)
    else:
        import pyiqa.train
        from pyiqa.models.general_iqa_model import GeneralIQAModel

        step = GeneralIQAModel.optimize_parameters

        def with_metrics(
            self: Any, current_iter: int
        ) -> None:  # which the stock loop reads though val is absent
            self.opt["val"], self.best_metric_results = {"metrics": {}}, {}
            step(self, current_iter)

        GeneralIQAModel.optimize_parameters = with_metrics
        sys.argv = ["train", "-opt", str(option_file)]
        pyiqa.train.train_pipeline(os.getcwd())
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("PEAK", used.ru_maxrss // 1024, "SYSTEM", used.ru_stime)


def measure(case: Case, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Start the processes; returns crops per second and data's share by the first one's log, and the costs of all."""
    options = make_options(
        case.kind,
        folder,
        args.batch // case.processes,
        args.iterations,
        args.images,
        args.workers,
        case.processes,
    )
    option_file, work = folder / "case.yml", folder / case.name
    option_file.write_text(yaml.safe_dump(options))
    work.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, args.threads // case.processes))}
    command = [sys.executable]
    if case.processes > 1:
        command += [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={case.processes}",
        ]
    command += [__file__, "--one", case.kind, str(option_file)] + ["--default-allocator"] * (
        not case.keeps_memory
    )
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{case.name} failed:\n{done.stderr[-3000:]}")
    log = next((work / "experiments" / case.kind).glob("*.log")).read_text()
    pairs = [
        tuple(map(float, found))
        for found in re.findall(r"time \(data\): ([\d.]+) \(([\d.]+)\)", log)
    ]
    seconds, data = (
        np.diff(np.array(column) * np.arange(1, len(pairs) + 1))
        for column in zip(*pairs, strict=True)
    )
    peak, system = (
        sum(map(float, re.findall(rf"{what} ([\d.]+)", done.stdout))) for what in ("PEAK", "SYSTEM")
    )
    rate = args.batch * CROPS / float(np.median(seconds))
    share = round(float(data.sum() / seconds.sum()), 3)
    return {
        "crops_per_s": round(rate, 1),
        "data_share": share,
        "peak_MiB": peak,
        "system_s": round(system, 1),
    }


def main() -> None:
    """Parse the command line, print one JSON line for each case, the first line's rate in relation to it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument(
        "--batch",
        type=int,
        default=4,
        help=f"images in a batch of all processes, each {CROPS} crops",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--processes", action="store_true", help="one process against two")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--default-allocator", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_one(args.one[0], Path(args.one[1]), not args.default_allocator)
        return
    cases = [
        Case("lifeiqa"),
        Case("lifeiqa, default allocator", keeps_memory=False),
        Case("stock", "stock", False),
    ]
    if args.processes:
        cases = [Case("one process"), Case("two processes", processes=2)]
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name), args.images)
        results: list[dict[str, float]] = []
        for case in cases:
            results.append(measure(case, args, Path(name)))
            ratio = results[0]["crops_per_s"] / results[-1]["crops_per_s"]
            print(
                json.dumps({"case": case.name, **results[-1], "first_is_faster": round(ratio, 2)}),
                flush=True,
            )


if __name__ == "__main__":
    main()
