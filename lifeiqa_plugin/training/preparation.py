"""What is known before a run starts: the options of this process, the sizes of crops, every dataset and its labels."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyiqa.data import build_dataset
from pyiqa.utils import set_random_seed
from pyiqa.utils.dist_util import get_dist_info
from pyiqa.utils.options import make_paths

from lifeiqa_plugin.arguments import import_modules
from lifeiqa_plugin.checkpoints.factory import build_network
from lifeiqa_plugin.datasets.labelled import check_images
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.pyiqa_compat import quiet
from lifeiqa_plugin.training.dataset import check_no_overlap
from lifeiqa_plugin.training.mixture import Mixture
from lifeiqa_plugin.training.sections import BATCH

Options = dict[str, Any]


def prepare_options(options: Options) -> Options:
    """Add what pyiqa's own parser adds, for one process or, below torchrun, for this one of several; seed everything.

    Raises:
        ValueError: several GPUs without torchrun, no rights to write here.
    """
    opt = copy.deepcopy(options)
    import_modules(opt["import"])
    opt["dist"] = torch.distributed.is_initialized()
    opt["rank"], opt["world_size"] = get_dist_info()
    opt["num_gpu"] = count_gpus(opt["num_gpu"], opt["dist"])
    if not os.access(os.getcwd(), os.W_OK):
        raise ValueError(
            f"{os.getcwd()}: no permission to write here, where experiments/ would go; change the folder"
        )
    opt["is_train"], opt["auto_resume"] = True, False
    opt["datasets"]["train"] = as_one(opt["datasets"]["train"])
    for phase, dataset in opt["datasets"].items():
        dataset["phase"] = phase.split("_")[0]
    make_paths(opt, os.getcwd())
    set_random_seed(opt["manual_seed"] + opt["rank"])
    return opt


def count_gpus(wanted: int | str, is_distributed: bool) -> int:
    """Return the number of GPUs for ``num_gpu``, ``auto`` included; see :func:`prepare_options`."""
    there = torch.cuda.device_count()
    count = min(1, there) if wanted == "auto" else int(wanted)
    if count > 1 and not is_distributed:
        raise ValueError(
            f"num_gpu is {count}: several GPUs need one process each, torchrun --nproc_per_node "
            f"{count} -m lifeiqa_plugin.cli train ... --launcher pytorch"
        )
    if count > there:
        raise ValueError(f"num_gpu is {count}, but this machine has none; use num_gpu: auto or 0")
    return count


def as_one(train: Options | list[Options]) -> Options:
    """Return the training sets as pyiqa takes them: one section with the keys of the batch, and all in ``sources``."""
    sources = train if isinstance(train, list) else [train]
    sources = [source | {"phase": "train"} for source in sources]
    batch = {key: sources[0][key] for key in BATCH if key in sources[0]}
    name = " + ".join(source["name"] for source in sources)
    return {"name": name, "type": sources[0]["type"], **batch, "sources": sources}


def take_sizes_from_network(opt: Options) -> LifeIQA:
    """Build the network once, so that what is wrong with it is known first, and let the crops have its sizes.

    Raises:
        TypeError, OSError, ValueError: of the network, or a size of ``datasets:train`` that is not the network's.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        network = build_network(opt["network"])
    train_opt = opt["datasets"]["train"]
    wanted = {"crop_size": network.crop_size, "working_size": network.working_size}
    if network.whole_image:  # squares of up to the whole shorter side
        given = train_opt.get("crop_size", network.working_size)
        wanted["crop_size"] = min(max(given, network.crop_size), network.working_size)
    for name, own in wanted.items():
        for one in (train_opt, *train_opt["sources"]):
            given = one.setdefault(name, own)
            if given != own:
                raise ValueError(
                    f"datasets:train:{name} is {given}, but the network's is {own}; leave it out of datasets:train, "
                    f"or change network:{name}"
                )
    return network


def check_data(opt: Options, score_range: tuple[float, float] | None) -> dict[str, Any]:
    """Build and return every dataset, open every file, and see that no two share an image or a reference.

    Args:
        opt: as :func:`prepare_options` returns it.
        score_range: of the network, which must be able to give every label.

    Raises:
        OSError, ValueError: as :class:`~lifeiqa_plugin.training.dataset.LifeIQADataset` and its checks.
    """
    train_opt = opt["datasets"]["train"]
    names = [one["name"] for phase, one in opt["datasets"].items() if phase != "train"]
    names += [source["name"] for source in train_opt["sources"]]
    if len(set(names)) < len(names):
        raise ValueError(f"datasets: each needs a name of its own, got {', '.join(names)}")
    held_out = {phase: one for phase, one in opt["datasets"].items() if phase != "train"}
    with known_names():
        sources = [build_dataset(source) for source in train_opt["sources"]]
        datasets = {phase: build_dataset(one) for phase, one in held_out.items()}
    several = len(sources) > 1
    parts = {
        f"train {source.options.name}" if several else "train": source for source in sources
    } | datasets
    for dataset in parts.values():
        dataset.check_scores(score_range)
        check_images(dataset.images)
    check_no_overlap(parts)
    return {"train": Mixture(sources, train_opt)} | datasets


@contextmanager
def known_names() -> Iterator[None]:
    """Build a dataset or model without pyiqa's notices; a name that it does not know is an error like others.

    Raises:
        ValueError: instead of a KeyError.
    """
    try:
        with quiet():
            yield
    except KeyError as error:
        if "registry" not in str(error):
            raise
        raise ValueError(f"{error.args[0]} import: [MODULE] brings your own") from error
