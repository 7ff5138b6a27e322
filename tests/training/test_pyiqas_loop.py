"""``python -m pyiqa.train`` with our network and our model: option files of pyiqa with another network block."""

from __future__ import annotations

import copy
import sys

import pyiqa
import pyiqa.train
import pytest
import torch
import yaml

from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.pyiqa_compat import forgetful_logger

NETWORK = {
    "backbone": "test_convnext", "embed_dim": 16, "num_heads": 2,
    "depth": 1, "num_experts": 4, "top_k": 1, "memory_grid": 2, "crop_size": 32, "working_size": 48,
}  # fmt: skip

OPTIONS = {
    "name": "theirs",
    "model_type": "GeneralIQAModel",
    "num_gpu": 0,
    "manual_seed": 123,
    "datasets": {
        "train": {
            "name": "noise", "type": "GeneralNRDataset", "augment": {"hflip": True, "random_crop": 28},
            "img_range": 1, "use_shuffle": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 8,
            "dataset_enlarge_ratio": 1, "prefetch_mode": None,
        },
        "val": {"name": "noise", "type": "GeneralNRDataset"},
    },
    "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
    "train": {
        "optim": {"type": "Adam", "lr_basemodel": 2e-5, "lr_hypermodule": 2e-4, "lr": 1e-3, "weight_decay": 5e-4},
        "scheduler": {"type": "MultiStepLR", "milestones": [4, 8], "gamma": 0.1},
        "total_iter": 8,
        "warmup_iter": -1,
        "mos_loss_opt": {"type": "PLCCLoss", "loss_weight": 1.0},
    },
    "val": {
        "val_freq": 4, "save_img": False, "pbar": True, "key_metric": "srcc",
        "metrics": {"srcc": {"type": "calculate_srcc"}, "plcc": {"type": "calculate_plcc"}},
    },
    "logger": {
        "print_freq": 1, "save_checkpoint_freq": 5e9, "save_latest_freq": 500, "use_tb_logger": False,
        "wandb": {"project": None, "resume_id": None},
    },
    "dist_params": {"backend": "nccl", "port": 29500},
}  # fmt: skip
"""As pyiqa's own file for HyperNet is, but for the sizes."""


@pytest.fixture
def train(images, tmp_path, monkeypatch):
    """Returns a function that trains as ``python -m pyiqa.train -opt FILE`` does, in an empty folder."""

    network = LifeIQA(**NETWORK)
    save_checkpoint(network, tmp_path / "start.safetensors", ModelCard("nothing", "none"))

    def run(change):
        options = copy.deepcopy(OPTIONS)
        options["network"] = {"type": "LifeIQA", "pretrained_model_path": "start.safetensors"}
        for dataset in options["datasets"].values():
            dataset |= {"dataroot_target": str(images), "meta_info_file": str(images / "meta.csv")}
            dataset |= {"split_index": 1, "split_ratio": "712"}
        change(options)
        (tmp_path / "theirs.yml").write_text(yaml.safe_dump(options))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train.py", "-opt", "theirs.yml"])
        with forgetful_logger():
            return pyiqa.train.train_pipeline(str(tmp_path))

    return run


def test_general_model(train, tmp_path):
    """Nothing but the network block is another than in pyiqa's file."""
    best = train(lambda options: None)
    assert -1 <= best["noise"]["srcc"]["val"] <= 1
    start, models = str(tmp_path / "start.safetensors"), tmp_path / "experiments/theirs/models"
    metric = pyiqa.create_metric("lifeiqa", device="cpu", pretrained_model_path=start)
    x = torch.rand(1, 3, 40, 50)
    before = metric(x)
    metric.load_weights(str(models / "net_best.pth"))
    assert not torch.equal(metric(x), before)


def test_model_for_two_stages(train):
    def change(options):
        options["model_type"] = "DBCNNModel"
        options["train"]["optim"] = {"type": "SGD", "lr": 1e-3, "momentum": 0.9}
        options["train"]["optim_finetune"] = {"type": "Adam", "lr": 1e-5}
        options["train"]["scheduler_finetune"] = {"type": "MultiStepLR", "milestones": [9]}
        options["train"]["finetune_start_iter"] = 5

    assert train(change)["noise"]["srcc"]["iter"] > 0


def of_ours(options):
    """What has to be changed for our model: the keys that its errors name."""
    options["model_type"] = "LifeIQAModel"
    del options["dist_params"], options["logger"]["wandb"]
    options["path"] = {}
    options["train"] = {"total_epoch": 2, "optim": {"lr": 1e-3}, "mos_loss_opt": {"type": "L1Loss"}}
    options["val"] = {"val_freq": 4.0, "save_img": False}


def use_our_dataset(options):
    of_ours(options)
    for name, dataset in options["datasets"].items():
        kept = (
            "dataroot_target",
            "meta_info_file",
            "split_index",
            "split_ratio",
            "num_worker_per_gpu",
        )
        options["datasets"][name] = {key: dataset[key] for key in kept if key in dataset}
        options["datasets"][name] |= {"name": f"noise-{name}", "type": "LifeIQADataset"}
    options["datasets"]["train"] |= {
        "batch_size_per_gpu": 6,
        "crops_per_image": 2,
        "crop_size": 32,
        "working_size": 48,
    }


@pytest.mark.parametrize("change", [of_ours, use_our_dataset])
def test_our_model(train, tmp_path, change):
    best = train(change)
    assert len(best) == 1
    path = tmp_path / "experiments/theirs/models/net_best.safetensors"
    metric = pyiqa.create_metric("lifeiqa", device="cpu", pretrained_model_path=str(path))
    assert metric.net.config["embed_dim"] == NETWORK["embed_dim"]


def test_keys_that_our_model_does_not_know_are_listed_with_their_homes(train):
    def change(options):
        options["model_type"] = "LifeIQAModel"

    with pytest.raises(ValueError, match=r"^10 unknown keys: ") as error:
        train(change)
    for part in (
        "train:optim:lr_basemodel (the backbone has 'lr_backbone', all the rest 'lr')",
        "train:scheduler:milestones (it is now 'type: step' with 'every_epochs')",
        "train:total_iter (it is now 'total_epoch', in epochs)",
        "val:metrics (leave it out: srcc, plcc, krcc and rmse are always computed)",
        "path:strict_load_g (leave it out: weights always have to fit)",
        "dist_params (leave it out: --launcher pytorch knows the backend)",
    ):
        assert part in str(error.value)
