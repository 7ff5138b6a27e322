"""Start pyiqa's ``train_pipeline`` on an option file: checks first, processes, resume, the test set."""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyiqa.train
import torch
from pyiqa.models import build_model
from pyiqa.utils import get_root_logger

from lifeiqa_plugin.checkpoints.factory import build_network, weights_of
from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.checkpoints.models import Model, resolve
from lifeiqa_plugin.datasets.trained_on import TrainedOn, count_in_words, digests_of, trained_on
from lifeiqa_plugin.journal import read_json, write_json
from lifeiqa_plugin.pyiqa_compat import forgetful_logger, training_loop
from lifeiqa_plugin.scoring.evaluation import evaluate
from lifeiqa_plugin.training import kept
from lifeiqa_plugin.training.dataset import LifeIQADataset
from lifeiqa_plugin.training.mixture import ResumableSampler
from lifeiqa_plugin.training.model import STATE_FILE
from lifeiqa_plugin.training.optim import bfloat16_slowdown, seconds_of
from lifeiqa_plugin.training.options import read_options
from lifeiqa_plugin.training.preparation import (
    Options,
    check_data,
    known_names,
    prepare_options,
    take_sizes_from_network,
)

TEST_RESULTS = "test_results.json"
"""Written last, below the run's folder: a run that has it is finished."""


def train(
    option_file: str | Path, force_yml: list[str] | None = None, auto_resume: bool = False
) -> dict[str, Any]:
    """Train as an option file says; results go to ``experiments/<name>`` under the current folder.

    Args:
        option_file: see ``docs/training.md``.
        force_yml: changes to it, ``section:key=value``.
        auto_resume: go on from the run's last state, if it has one; a run that has been tested is left as it is, if it
            was made of the same options and files.

    Returns:
        Correlations on the option file's first ``test`` set, of the weights that its first validation set chose, and
        on further ones below their names; empty without a ``test`` set.

    Raises:
        OSError, ValueError: whatever can be known before training: keys, csv, scores, splits, files, permissions.
        FloatingPointError, OSError: as :class:`~lifeiqa_plugin.training.model.LifeIQAModel`.
    """
    return run(read_options(option_file, force_yml), auto_resume)


def run(options: Options, auto_resume: bool = False, with_test: bool = True) -> dict[str, Any]:
    """Train with options that have been read, and test unless told not to; everything else as :func:`train`."""
    opt = prepare_options(options)
    network = take_sizes_from_network(opt)
    datasets = check_data(opt, network.score_range)
    del network
    test_sets = _plan(opt, datasets)
    state = load_state(opt, auto_resume)
    folder = Path(opt["path"]["experiments_root"])
    tested = folder / TEST_RESULTS
    done = 0 if state is None else state["iter"]
    is_tested = bool(done and test_sets and auto_resume and tested.is_file())
    is_over = auto_resume and 0 < done >= opt["train"]["total_iter"]
    if is_over and (is_tested or not with_test):
        kept.check_same(options, folder)
        return cast(dict[str, Any], read_json(tested)) if is_tested else {}
    with known_names():
        model = build_model(opt)  # before an older run of the name is moved aside
    if opt["rank"] == 0:
        print(about_time(model), file=sys.stderr, flush=True)
    if is_tested:
        tested.unlink(missing_ok=True)  # it is of a shorter run, which goes on
    model.trained_on = learn_digests(datasets["train"].sources, weights_of(opt["network"]))
    replaced = _functions_of_loop(opt, datasets, model, state)
    replaced["copy_opt_file"] = lambda *_: None if opt["rank"] else kept.note(options, folder)
    with forgetful_logger(), training_loop(replaced):
        pyiqa.train.train_pipeline(os.getcwd(), opt, argparse.Namespace(opt=None))
        tell_of_std(folder / "models" / "net_best.safetensors")
    return run_test(opt, test_sets) if test_sets and with_test else {}


def _functions_of_loop(
    opt: Options, datasets: dict[str, Any], model: Any, state: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what pyiqa's loop calls in place of its own functions: all that it would build is there already."""
    if state is not None:  # pyiqa makes these folders for new runs only
        for name in ("models", "training_states"):
            os.makedirs(opt["path"][name], exist_ok=True)
    done = 0 if state is None else state["iter"]
    order = {"seed": opt["manual_seed"], "start_iter": done, "epochs": opt["train"]["total_epoch"]}
    built = {dataset.opt["name"]: dataset for dataset in datasets.values()}
    return {
        "load_resume_state": lambda _: state,
        "EnlargedSampler": functools.partial(ResumableSampler, **order),
        "build_dataset": lambda dataset_opt: built[dataset_opt["name"]],
        "build_model": lambda _: hand_over(model, datasets),
    }


def _plan(opt: Options, datasets: dict[str, Any]) -> dict[str, LifeIQADataset]:
    """Count the iterations of the run, save and validate once per epoch by default; take out and return the test sets.

    pyiqa does not know test sets in an option file of training.
    """
    iterations = ResumableSampler.iterations_per_epoch(datasets["train"], opt["world_size"])
    opt["train"]["total_iter"] = iterations * opt["train"]["total_epoch"]  # as pyiqa counts
    opt["logger"].setdefault("save_latest_freq", iterations)
    if opt["val"]:
        opt["val"].setdefault("val_freq", iterations)
    phases = [phase for phase in opt["datasets"] if phase.startswith("test")]
    for phase in phases:
        del opt["datasets"][phase]
    return {phase: datasets[phase] for phase in phases}


def hand_over(model: Any, datasets: dict[str, Any]) -> Any:
    """Return the model that pyiqa's loop asks for, and describe it in the log that is open by then."""
    if model.opt["rank"] == 0:
        for dataset in [one for phase, one in datasets.items() if phase != "train"]:
            warn_of_trained_on(model.trained_on, dataset)
    model.print_network(model.net)
    return model


def learn_digests(sources: list[LifeIQADataset], start: Model | None) -> TrainedOn:
    """Return which images weights will have been trained on, those that they start from included."""
    images = [(one, source.is_pairs) for source in sources for one in source.images]
    judged = [one.path for one, is_pair in images if is_pair or math.isfinite(one.mos)]
    own = TrainedOn.build(digests_of(judged))
    before = None if start is None else trained_on(start)
    return own if before is None else own | before


def warn_of_trained_on(learnt: TrainedOn, dataset: LifeIQADataset) -> None:
    """Say which images of validation or test are in training too, perhaps as a copy, or were in that of the start."""
    hits = learnt.hits(digests_of(row[0] for row in dataset.paths_mos))
    if hits.any():
        count = count_in_words(int(hits.sum()), len(hits))
        get_root_logger().warning(f"{dataset.options.name}: {count}")


def about_time(model: Any) -> str:
    """Say how long a run will compute, within seconds; and so if this CPU has no instructions for bfloat16."""
    train, iterations = model.opt["datasets"]["train"], model.opt["train"]["total_iter"]
    crops = train["batch_size_per_gpu"] * model.sources[0].crops_per_image
    seconds = seconds_of(model.network, train["crop_size"], crops, model.dtype)
    advice = ""
    if model.dtype == torch.bfloat16 and model.device.type == "cpu":
        factor = bfloat16_slowdown()
        seconds *= factor
        if factor > 1.5:
            advice = (
                f"; this CPU computes bfloat16 {factor:.2g} times slower than float32: use --force-yml "
                "train:amp=fp32"
            )
    minutes = seconds * iterations / 60
    length = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.1f} minutes"
    return (
        f"{model.opt['name']}: about {length} of computing, {iterations:,} iterations of {seconds:.2g} s, beside "
        f"decoding and validation{advice}"
    )


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


def tell_of_std(path: Path) -> None:
    """Say at the end of a run what ``return_std`` of its weights is worth."""
    if path.is_file() and (card := read_checkpoint(path).card) is not None:
        get_root_logger().info(f"return_std of {path.name}: {card.std}")


def run_test(opt: Options, datasets: dict[str, LifeIQADataset]) -> dict[str, Any]:
    """Score the test sets once, with the chosen or else the last weights; writes a csv of each and one json."""
    folder = Path(opt["path"]["experiments_root"])
    label = "net_best" if opt["val"] else "net_latest"
    if opt["dist"]:
        torch.distributed.barrier()  # the first process may still be writing them
    path = str(folder / "models" / f"{label}.safetensors")
    network = build_network({"type": opt["network"]["type"], "pretrained_model_path": path})
    network.to("cuda" if opt["num_gpu"] else "cpu")
    learnt = trained_on(resolve(path))
    found: dict[str, Any] = {}
    for phase, dataset in datasets.items():
        out = folder / f"{phase.replace('test', 'test_scores', 1)}.csv"
        workers = dataset.opt["num_worker_per_gpu"]
        found[dataset.opt["name"]] = evaluate(network, dataset.images, out, workers, learnt=learnt)
    result: dict[str, Any] = found.pop(next(iter(found))) | found
    if opt["rank"] == 0:
        write_json(folder / TEST_RESULTS, result)
    return result


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
