"""Start pyiqa's ``train_pipeline`` on an option file: checks first, processes, resume, several splits, the test set.

Two names of ``pyiqa.train`` are replaced while it runs: ``load_resume_state``, which needs a GPU and looks in another
folder than the one it is told, and ``EnlargedSampler``, which can only start an epoch at its beginning.
"""

from __future__ import annotations

import argparse
import copy
import csv
import functools
import json
import logging
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pyiqa.train
import torch
from pyiqa.data import build_dataset
from pyiqa.utils import set_random_seed
from pyiqa.utils.dist_util import get_dist_info
from pyiqa.utils.options import make_paths

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.host import forgetful_logger
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.scoring.evaluation import evaluate
from lifeiqa_plugin.training.dataset import LifeIQADataset, check_no_overlap
from lifeiqa_plugin.training.model import STATE_FILE
from lifeiqa_plugin.training.options import read_options
from lifeiqa_plugin.training.order import ResumableSampler

Options = dict[str, Any]

TEST_RESULTS = "test_results.json"
"""Written last, below the run's folder: a run that has it is finished."""


def train(
    option_file: str | Path, force_yml: list[str] | None = None, auto_resume: bool = False
) -> dict[str, float]:
    """Train as an option file says; results go to ``experiments/<name>`` under the current folder.

    Args:
        option_file: see ``docs/training.md``.
        force_yml: changes to it, ``section:key=value``.
        auto_resume: go on from the run's last state, if it has one; a run that has been tested is left as it is.

    Returns:
        Agreement on the option file's ``test`` set, of the weights that its first validation set chose; empty
        without a ``test`` set.

    Raises:
        OSError, ValueError: whatever can be known before training: keys, csv, scores, splits, files, permissions.
        FloatingPointError, OSError: as :class:`~lifeiqa_plugin.training.model.LifeIQAModel`.
    """
    return run(read_options(option_file, force_yml), option_file, auto_resume)


def run(options: Options, option_file: str | Path, auto_resume: bool = False) -> dict[str, float]:
    """Train with options that have been read; everything else as :func:`train`."""
    opt = prepare_options(options)
    train_set = check_data(opt)["train"]
    iterations = ResumableSampler.iterations_per_epoch(train_set, opt["world_size"])
    for section, key in (("val", "val_freq"), ("logger", "save_latest_freq")):
        if opt.get(section) and opt[section].get(key) is None:
            opt[section][key] = iterations  # once per epoch
    test_opt = opt["datasets"].pop("test", None)
    state = load_state(opt, auto_resume)
    tested = Path(opt["path"]["experiments_root"]) / TEST_RESULTS
    if test_opt and auto_resume and state and tested.is_file():
        if state["iter"] >= iterations * opt["train"]["total_epoch"]:
            return cast(dict[str, float], json.loads(tested.read_text(encoding="utf-8")))
        tested.unlink(missing_ok=True)  # it is of a shorter run, which goes on
    if state is not None:  # pyiqa makes these folders for new runs only
        for name in ("models", "training_states"):
            os.makedirs(opt["path"][name], exist_ok=True)
    sampler = functools.partial(
        ResumableSampler,
        seed=opt["manual_seed"],
        start_iter=0 if state is None else state["iter"],
        epochs=opt["train"]["total_epoch"],
    )
    with (
        forgetful_logger(),
        mock.patch.object(pyiqa.train, "load_resume_state", return_value=state),
        mock.patch.object(pyiqa.train, "EnlargedSampler", sampler),
    ):
        pyiqa.train.train_pipeline(os.getcwd(), opt, argparse.Namespace(opt=str(option_file)))
    if test_opt is None:
        return {}
    return run_test(opt, test_opt)


def prepare_options(options: Options) -> Options:
    """Add what pyiqa's own parser adds, for one process or, below torchrun, for this one of several; seed everything.

    Raises:
        ValueError: several GPUs without torchrun, a loader that hangs on errors, no rights to write here.
    """
    opt = copy.deepcopy(options)
    opt["dist"] = torch.distributed.is_initialized()
    opt["rank"], opt["world_size"] = get_dist_info()
    if opt["num_gpu"] == "auto":
        opt["num_gpu"] = min(1, torch.cuda.device_count())
    if opt["num_gpu"] > 1 and not opt["dist"]:
        raise ValueError(
            f"num_gpu is {opt['num_gpu']}: several GPUs need one process each, torchrun --nproc_per_node "
            f"{opt['num_gpu']} -m lifeiqa_plugin.cli train ... --launcher pytorch"
        )
    if opt["num_gpu"] > torch.cuda.device_count():
        raise ValueError(
            f"num_gpu is {opt['num_gpu']}, but this machine has none; use num_gpu: auto or 0"
        )
    if not os.access(os.getcwd(), os.W_OK):
        raise ValueError(
            f"{os.getcwd()}: no permission to write here, where experiments/ would go; change the folder"
        )
    opt["is_train"], opt["auto_resume"] = True, False
    for phase, dataset in opt["datasets"].items():
        dataset["phase"] = phase.split("_")[0]
        if dataset.get("prefetch_mode") == "cpu":
            raise ValueError(
                f"datasets:{phase}:prefetch_mode cpu hangs when an image is bad; use cuda, or leave it out"
            )
    make_paths(opt, os.getcwd())
    set_random_seed(opt["manual_seed"] + opt["rank"])
    return opt


def check_data(opt: Options) -> dict[str, LifeIQADataset]:
    """Build and return every dataset, open every file, and see that no two share an image or a reference.

    Raises:
        OSError, ValueError: as :class:`~lifeiqa_plugin.training.dataset.LifeIQADataset` and its checks.
    """
    with forgetful_logger():
        logging.getLogger("pyiqa").setLevel("ERROR")
        datasets = {phase: build_dataset(dataset) for phase, dataset in opt["datasets"].items()}
    for dataset in datasets.values():
        dataset.check_files()
    check_no_overlap(datasets)
    return datasets


def load_state(opt: Options, auto_resume: bool) -> dict[str, Any] | None:
    """Return the state to resume from: ``path:resume_state``, or with ``auto_resume`` the run's last, or None.

    Raises:
        OSError: the file that ``path:resume_state`` names does not exist.
        ValueError: not a state of this plugin.
    """
    path = Path(opt["path"]["training_states"]) / STATE_FILE
    if not (auto_resume and path.is_file()):
        if not opt["path"].get("resume_state"):
            return None
        path = Path(opt["path"]["resume_state"]).expanduser()
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if {"iter", "epoch", "network", "optimizer"} - state.keys():
            raise ValueError(f"expected keys of a training state, got {list(state)[:5]}")
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for damaged files
        raise ValueError(
            f"{path}: not a training state of lifeiqa_plugin, or damaged ({error})"
        ) from error
    return state


def run_test(opt: Options, test_opt: Options) -> dict[str, float]:
    """Score the test set once, with the chosen or else the last weights; writes two files."""
    folder, label = (
        Path(opt["path"]["experiments_root"]),
        "net_best" if opt.get("val") else "net_latest",
    )
    if opt["dist"]:
        torch.distributed.barrier()  # the first process may still be writing them
    network = build_lifeiqa(pretrained_model_path=folder / "models" / f"{label}.safetensors")
    network.to("cuda" if opt["num_gpu"] else "cpu")
    result = evaluate(
        network,
        build_dataset(test_opt),
        folder / "test_scores.csv",
        test_opt.get("num_worker_per_gpu", 0),
    )
    if opt["rank"] == 0:
        with write_whole(folder / TEST_RESULTS) as file:
            file.write((json.dumps(result, indent=1) + "\n").encode())
    return result


def train_splits(
    option_file: str | Path, count: int, force_yml: list[str] | None = None
) -> list[dict[str, float]]:
    """Train splits 1 .. ``count`` one after the other, each resumed if it was interrupted, none trained twice.

    Writes ``experiments/<name>_splits.csv`` and ``.md``: each split's test results, their median, mean and deviation.

    Raises:
        ValueError: no ``test`` set, or fewer than one split; else as :func:`train`.
    """
    options = read_options(option_file, force_yml)
    if count < 1 or "test" not in options["datasets"]:
        raise ValueError(
            "--splits needs a number of 1 or more, and an option file with datasets: test:"
        )
    results = []
    for split in range(1, count + 1):
        one = copy.deepcopy(options)
        one["name"] = f"{options['name']}_split{split:02d}"
        for dataset in one["datasets"].values():
            dataset |= {"split_index": split, "split_ratio": dataset.get("split_ratio", "712")}
        done = Path("experiments") / one["name"] / TEST_RESULTS
        if done.is_file():
            results.append(json.loads(done.read_text(encoding="utf-8")))
        else:
            results.append(run(one, option_file, auto_resume=True))
    if get_dist_info()[0] == 0:
        write_summary(results, Path("experiments") / f"{options['name']}_splits")
    return results


def write_summary(results: list[dict[str, float]], stem: Path) -> None:
    """Write the table of several splits as ``<stem>.csv`` and ``<stem>.md``."""
    rows: list[tuple[str, ...]] = [("split", *METRICS)]
    rows += [
        (str(i), *(f"{result[m]:.4f}" for m in METRICS)) for i, result in enumerate(results, 1)
    ]
    spread = statistics.stdev if len(results) > 1 else lambda _: 0.0
    for name, combine in (
        ("median", statistics.median),
        ("mean", statistics.mean),
        ("std", spread),
    ):
        rows.append((name, *(f"{combine([result[m] for result in results]):.4f}" for m in METRICS)))
    with open(f"{stem}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    Path(f"{stem}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def processes(launcher: str) -> Iterator[None]:
    """Join the processes that torchrun started, through nccl on GPUs and gloo on CPUs; ``none`` does nothing.

    Raises:
        ValueError: not started by torchrun.
    """
    if launcher == "none":
        yield
        return
    if "LOCAL_RANK" not in os.environ:
        raise ValueError(
            "--launcher pytorch needs torchrun: torchrun --nproc_per_node 2 -m lifeiqa_plugin.cli train ..."
        )
    use_gpu = torch.cuda.is_available()
    if use_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if use_gpu else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
