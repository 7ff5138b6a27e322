"""Training: what is optimised and how, what is saved, and that an interrupted run is the run itself."""

from __future__ import annotations

import io
import json
import logging
import math
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.scoring.evaluation import evaluate, fit_std_calibration
from lifeiqa_plugin.training import dataset as data
from lifeiqa_plugin.training import effort, launch
from lifeiqa_plugin.training.dataset import LifeIQADataset
from lifeiqa_plugin.training.losses import SmoothL1Loss, rank_loss
from lifeiqa_plugin.training.model import LifeIQAModel
from lifeiqa_plugin.training.optim import Schedule, decays, freeze, parameter_groups, set_train_mode
from lifeiqa_plugin.training.options import read_options
from lifeiqa_plugin.training.order import ResumableSampler
from lifeiqa_plugin.training.splits import train_splits

pytestmark = pytest.mark.slow

SMALL = {
    "backbone": "test_convnext",
    "embed_dim": 16,
    "num_heads": 2,
    "num_experts": 4,
    "crop_size": 32,
    "memory_grid": 2,
}
FOLDER = Path("experiments/tiny")
NO_SIDE_LOSS = ("train:load_balancing_weight=0", "train:router_z_weight=0", "network:dropout=0")


def read_state(folder: Path = FOLDER) -> dict:
    return torch.load(folder / "training_states/latest.state", weights_only=True)


def read_weights(label: str, folder: Path = FOLDER) -> dict:
    return read_checkpoint(folder / "models" / f"{label}.safetensors").state_dict


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


def build_model(option_file: Path, total_iter: int = 10) -> LifeIQAModel:
    """The model alone, ready for ``feed_data``."""
    opt = launch.prepare_options(read_options(option_file))
    launch.take_sizes_from_network(opt)
    opt["train"]["total_iter"] = total_iter
    with launch.forgetful_logger():
        return LifeIQAModel(opt)


def one_batch(count: int = 4, crops: int = 2) -> dict:
    generator = torch.Generator().manual_seed(7)
    images = torch.rand(count, crops, 3, 32, 32, generator=generator)
    return {
        "img": images,
        "mos_label": torch.linspace(0, 1, count)[:, None],
        "img_path": [f"{i}.png" for i in range(count)],
    }


def assert_same(first: dict, second: dict) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=0, atol=0, equal_nan=True, msg=key)


def test_smooth_l1_is_torchs():
    a, b = torch.tensor([[0.0], [3.0]]), torch.tensor([[0.5], [0.0]])
    assert SmoothL1Loss(loss_weight=2.0)(a, b).item() == pytest.approx(2 * (0.125 + 2.5) / 2)


def test_what_decays():
    network = LifeIQA(**SMALL, depth=1, adjacency="learnable")
    kept = {n for n, p in network.decoder.named_parameters() if decays(n, p)}
    assert kept == {
        "context.weight", "memory.weight", "head.weight", "moe.router.linear.weight", "moe.experts.weight1",
        "moe.experts.weight2", "layers.0.attention.in_proj_weight", "layers.0.attention.out_proj.weight",
        *(f"layers.0.gcn.conv{i}.weight" for i in (1, 2, 3)),
    }  # fmt: skip
    table = nn.Parameter(torch.zeros(9, 2))
    assert not decays("backbone.layers_0.blocks.0.attn.relative_position_bias_table", table)
    assert not decays("backbone.pos_embed", table)


def test_groups_hold_each_parameter_once_at_its_rate():
    network = LifeIQA(**SMALL)
    groups = parameter_groups(network, lr=1.0, weight_decay=0.5, lr_backbone=0.1)
    assert sorted((g["lr"], g["weight_decay"]) for g in groups) == [
        (0.1, 0.0),
        (0.1, 0.5),
        (1.0, 0.0),
        (1.0, 0.5),
    ]
    grouped = [id(p) for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    backbone = {id(p) for p in network.backbone.parameters()}
    assert all((id(p) in backbone) == (g["lr"] == 0.1) for g in groups for p in g["params"])


def test_schedules():
    warm = Schedule(100, warmup_iter=10, warmup_factor=0.1)
    assert [warm.factor(i) for i in (1, 6, 11, 100)] == pytest.approx([0.1, 0.55, 1.0, 1.0])
    step = Schedule(100, type="step", step_iter=30, gamma=0.1)
    assert [step.factor(i) for i in (1, 30, 31, 61, 100)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])
    cosine = Schedule(101, type="cosine", min_factor=0.2)
    assert [cosine.factor(i) for i in (1, 51, 101)] == pytest.approx([1.0, 0.6, 0.2])
    late = Schedule(101, type="cosine", start=50)
    assert [late.factor(i) for i in (1, 50, 51, 101)] == pytest.approx([0, 0, 1, 0], abs=1e-9)
    falling = Schedule(100, warmup_iter=10, warmup_factor=10.0)
    assert [falling.factor(i) for i in (1, 11)] == pytest.approx([10.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"type": "cosin"}, "must be 'constant', 'step' or 'cosine', got 'cosin'"),
        ({"warmup_iter": 10}, "must be shorter than the run, got 10 of 10 iterations"),
        ({"type": "step"}, "every_epochs must be above 0"),
    ],
)
def test_schedule_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(10, **arguments)


def test_nothing_is_left_for_the_backbone():
    with pytest.raises(ValueError, match=r"got 0 of 0 iterations after train\.decoder_first"):
        Schedule(10, start=10)


def test_freeze():
    network = LifeIQA(**SMALL)
    freeze(network, ["backbone.stem_0", "backbone"])
    set_train_mode(network, ["backbone"])
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {
        "decoder"
    }
    assert network.decoder.training
    assert not any(m.training for m in network.backbone.modules())
    with pytest.raises(
        ValueError,
        match=r"nothing is called 'backbon'; names that exist: backbone, backbone\.stem_0",
    ):
        freeze(network, ["backbon"])
    freeze(network, ["decoder"])
    with pytest.raises(ValueError, match="leaves no parameter to train"):
        parameter_groups(network, 1.0, 0.0)


def test_names_to_freeze_may_have_stars():
    network = LifeIQA(**SMALL)
    freeze(network, ["backbone.stages_*.blocks.*.conv_dw"])
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert len(frozen) == 2 * len([n for n, _ in network.named_modules() if n.endswith("conv_dw")])
    assert all(".conv_dw." in name for name in frozen)
    with pytest.raises(ValueError, match=r"nothing is called 'backbone\.\*\.conv_d'"):
        freeze(network, ["backbone.*.conv_d"])


def test_the_decoder_learns_first(write_options):
    """The backbone, its statistics included, stands still for an epoch; then it has a schedule of its own."""
    model = build_model(
        write_options("train:decoder_first=1", "train:optim:lr_backbone=0.1", "train:total_epoch=2")
    )
    start = {k: v.clone() for k, v in model.network.state_dict().items()}
    for iteration in range(1, 11):
        model.feed_data(one_batch())
        model.optimize_parameters(iteration)
        rates = {g["is_backbone"]: g["lr"] for g in model.optimizer.param_groups}
        assert rates[False] == pytest.approx(1e-3 * model.schedule.factor(iteration))
        now = model.network.state_dict()
        moved = {k.split(".")[0] for k, v in now.items() if not torch.equal(v, start[k])}
        assert moved == ({"decoder"} if iteration <= 5 else {"decoder", "backbone"})
        assert model.network.backbone.training == (iteration > 5)
        if iteration == 6:
            assert rates[True] == 0.1
    assert rates[True] == 0


def test_losses_are_weighted_and_logged(write_options):
    model = build_model(
        write_options(
            "train:load_balancing_weight=0.5", "train:router_z_weight=0.25", "network:dropout=0"
        )
    )
    batch = one_batch()
    with torch.no_grad():
        output = model.network(batch["img"].flatten(0, 1), return_details=True)
    mos = batch["mos_label"].repeat_interleave(2, 0)
    expected = {
        "l_mos": nn.functional.smooth_l1_loss(output.score, mos).item(),
        "l_balance": 0.5 * output.load_balancing_loss.item(),
        "l_router_z": 0.25 * output.router_z_loss.item(),
    }
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert {k: model.log_dict[k] for k in expected} == pytest.approx(expected, rel=1e-5)
    assert model.log_dict["l_total"] == pytest.approx(sum(expected.values()), rel=1e-5)
    assert model.log_dict["lr"] == 1e-3


def test_ladders_are_ranked_and_only_their_first_crop_is_labelled(write_options):
    """Of 6 images with 2 crops each, two are ladders: 10 labelled crops and 2 pairs to rank."""
    changes = (
        "train:rank_weight=2",
        "datasets:train:ladder_share=0.3",
        "network:dropout=0",
        *NO_SIDE_LOSS,
    )
    model, batch = build_model(write_options(*changes)), one_batch(6)
    batch["is_ladder"] = torch.tensor([False, True, False, False, True, False])
    with torch.no_grad():
        scores = model.network(batch["img"].flatten(0, 1)).view(6, 2)
    label, first, second = batch["mos_label"][:, 0], scores[:, 0], scores[:, 1]
    plain = ~batch["is_ladder"]
    labelled = torch.cat([first, second[plain]]), torch.cat([label, label[plain]])
    pairs = (0.03 + second - first)[batch["is_ladder"]].clamp(min=0)
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert model.log_dict["l_mos"] == pytest.approx(
        nn.functional.smooth_l1_loss(*labelled).item(), rel=1e-5
    )
    assert model.log_dict["l_rank"] == pytest.approx(2 * pairs.mean().item(), rel=1e-5)


def test_images_without_label_are_ranked_only(write_options):
    changes = ("datasets:train:ladder_share=0.3", "network:dropout=0", *NO_SIDE_LOSS)
    model, batch = build_model(write_options(*changes)), one_batch(4)
    batch["is_ladder"] = torch.tensor([False, True, False, True])
    batch["mos_label"][1] = torch.nan
    with torch.no_grad():
        scores = model.network(batch["img"].flatten(0, 1)).view(4, 2)
    labelled = torch.cat([scores[0], scores[2], scores[3, :1]])
    label = batch["mos_label"][[0, 0, 2, 2, 3], 0]
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert model.log_dict["l_mos"] == pytest.approx(
        nn.functional.smooth_l1_loss(labelled, label).item(), rel=1e-5
    )


def test_distortions_are_the_second_task(write_options):
    """Cross-entropy over the crops of ladders, for each distortion that the network names, in its order."""
    changes = ("network:distortions=[blocking, blur]", "train:distortion_weight=3", *NO_SIDE_LOSS)
    changes += ("train:scheduler:type=constant", "train:optim:lr=0.01")
    model = build_model(write_options("datasets:train:ladder_share=0.5", *changes))
    batch, names = one_batch(3), list(KINDS)
    blocking, noise = names.index("blocking"), names.index("noise")
    batch["is_ladder"] = torch.tensor([False, True, True])
    batch["kinds"] = torch.tensor([[data.UNKNOWN] * 2, [data.CLEAN, blocking], [noise, noise]])
    with torch.no_grad():
        crops = batch["img"].flatten(0, 1)
        chances = model.network(crops, return_details=True).distortions
    wanted = torch.zeros(4, 2)
    wanted[1, 0] = 1
    expected = 3 * nn.functional.binary_cross_entropy(chances[2:], wanted)
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert model.log_dict["l_distortion"] == pytest.approx(expected.item(), rel=1e-5)
    for iteration in range(2, 60):
        model.optimize_parameters(iteration)
    assert model.log_dict["l_distortion"] < 0.7 * expected.item()
    batch["kinds"][:] = data.UNKNOWN
    model.feed_data(batch)
    model.optimize_parameters(60)
    assert model.log_dict["l_distortion"] == 0


def test_distortions_are_learnt_and_kept(write_options):
    changes = ["network:distortions=[dark, noise]", "train:distortion_weight=1"]
    changes += ["datasets:train:ladder_share=0.5", "train:total_epoch=1"]
    launch.train(write_options(*changes))
    assert "l_distortion" in read_csv(FOLDER / "curves_losses.csv")[0]
    network = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_latest.safetensors")
    assert network.distortion_names == ("dark", "noise")


@pytest.mark.parametrize(
    "changes",
    [
        ("network:distortions=[blur]",),
        ("datasets:train:ladder_share=0.5",),
        ("network:distortions=[rain]", "datasets:train:ladder_share=0.5"),
    ],
)
def test_second_task_needs_ladders_and_known_names(write_options, changes):
    with pytest.raises(
        ValueError, match="distortion_weight needs ladder_share above 0 and network"
    ):
        build_model(write_options("train:distortion_weight=1", *changes))


def test_batch_without_any_label_is_ranked(write_options):
    changes = (
        "datasets:train:ladder_share=0.3",
        "train:metric_loss_opt={type: PLCCLoss, loss_weight: 1.0}",
    )
    model, batch = build_model(write_options(*changes)), one_batch(4)
    batch["is_ladder"], batch["mos_label"] = (
        torch.ones(4, dtype=torch.bool),
        torch.full((4, 1), torch.nan),
    )
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert model.log_dict["l_mos"] == model.log_dict["l_metric"] == 0
    assert model.log_dict["l_rank"] > 0


def test_rank_loss_has_its_closed_form():
    scores = torch.tensor([[0.9, 0.8, 0.79], [0.5, 0.6, 0.1]])
    assert rank_loss(scores).item() == pytest.approx((0.02 + 0.13) / 4)
    assert rank_loss(torch.empty(0, 3)).item() == 0


def test_batch_statistics_stand_still_on_request():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    set_train_mode(network, [], freeze_batch_stats=True)
    assert [module.training for module in network] == [True, False, True]
    set_train_mode(network, [])
    assert all(module.training for module in network)


def test_steps_per_batch_share_out_the_crops(write_options):
    """Two steps on four crops are the two steps on every other crop, one after the other."""
    whole = one_batch(crops=4)
    shared = build_model(
        write_options("train:steps_per_batch=2", "datasets:train:crops_per_image=4", *NO_SIDE_LOSS)
    )
    shared.feed_data(whole)
    shared.optimize_parameters(1)
    single, losses = build_model(write_options("train:scheduler:type=constant", *NO_SIDE_LOSS)), []
    for first in (0, 1):
        single.feed_data(whole | {"img": whole["img"][:, first::2]})
        single.optimize_parameters(1)
        losses.append(single.log_dict["l_mos"])
    assert_same(shared.network.state_dict(), single.network.state_dict())
    assert shared.log_dict["l_mos"] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_progress_bar(write_options, monkeypatch):
    """Losses, learning rate and time left, on a terminal; nothing where the output is a file."""
    for is_terminal in (True, False):
        screen = io.StringIO()
        screen.isatty = lambda shown=is_terminal: shown
        monkeypatch.setattr(sys, "stderr", screen)
        model = build_model(write_options())
        for iteration in (1, 2, 3):
            model.feed_data(one_batch())
            model.optimize_parameters(iteration)
        if not is_terminal:
            assert "l_mos=" not in screen.getvalue()  # pyiqa's log may be there
            continue
        model.bar.refresh()
        line = screen.getvalue().split("\r")[-1]
        assert re.search(r"3/10 \[\d\d:\d\d<\d\d:\d\d", line), line  # done, spent, left
        shown = dict(re.findall(r"(\w+)=([-+.\de]+)", line))
        assert shown.keys() == {"l_mos", "l_balance", "l_router_z", "l_total", "lr"}
        assert float(shown["l_mos"]) == pytest.approx(model.log_dict["l_mos"], rel=1e-2)
        assert float(shown["lr"]) == pytest.approx(model.log_dict["lr"], rel=1e-2)


def test_accumulation_is_the_whole_batch(write_options):
    """Without losses that look at the whole batch; 1e-6 is what another order of summing costs."""
    after = []
    for parts in (1, 3):
        model = build_model(
            write_options(f"train:accumulate={parts}", "train:optim:type=SGD", *NO_SIDE_LOSS)
        )
        model.feed_data(one_batch())
        model.optimize_parameters(1)
        after.append((model.log_dict["l_total"], model.network.state_dict()))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-6)
    for key, value in after[0][1].items():
        torch.testing.assert_close(after[1][1][key], value, atol=1e-6, rtol=1e-5)


def test_clipping_limits_the_step(write_options):
    lengths = []
    for limit in ("null", "0.001"):
        model = build_model(
            write_options(
                f"train:clip_grad_norm={limit}", "train:optim:type=SGD", "train:optim:lr=1.0"
            )
        )
        before = nn.utils.parameters_to_vector(model.network.parameters()).detach().clone()
        model.optimizer.param_groups[0]["weight_decay"] = 0.0
        for group in model.optimizer.param_groups:
            group["weight_decay"] = 0.0
        model.feed_data(one_batch())
        model.optimize_parameters(1)
        lengths.append(
            (nn.utils.parameters_to_vector(model.network.parameters()) - before).norm().item()
        )
    assert lengths[0] > 0.01
    assert lengths[1] == pytest.approx(0.001, rel=1e-2)


def test_average_follows_its_closed_form(write_options):
    model = build_model(write_options("train:ema_decay=0.75", "train:optim:lr=0.01"))
    history = []
    for iteration in (1, 2, 3):
        model.feed_data(one_batch())
        model.optimize_parameters(iteration)
        history.append(model.network.decoder.head.weight.detach().clone())
    expected = 0.75 * (0.75 * history[0] + 0.25 * history[1]) + 0.25 * history[2]
    torch.testing.assert_close(model.scored_network.decoder.head.weight, expected)
    assert not torch.equal(history[2], expected)


def test_precision_of_the_forward_pass(write_options):
    seen = []
    for amp in ("fp32", "bf16"):
        model = build_model(write_options(f"train:amp={amp}"))
        model.network.decoder.memory.register_forward_hook(lambda *args: seen.append(args[2].dtype))
        model.feed_data(one_batch())
        model.optimize_parameters(1)
        assert model.network.decoder.head.weight.dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


def test_activation_checkpointing_changes_nothing(write_options):
    after = []
    for on in ("false", "true"):
        model = build_model(write_options(f"train:grad_checkpointing={on}"))
        model.feed_data(one_batch())
        model.optimize_parameters(1)
        after.append(model.network.state_dict())
    assert_same(*after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train:amp=fp8", r"train\.amp must be one of"),
        ("train:amp=fp16", "fp16 needs a GPU"),
        ("train:ema_decay=1.0", "ema_decay must be 0"),
        (
            "train:steps_per_batch=3",
            r"steps_per_batch must divide crops_per_image, got 3 for 2 crops",
        ),
        ("val:key_metric=sroc", "key_metric must be one of"),
    ],
)
def test_options_out_of_range(write_options, change, message):
    with pytest.raises(ValueError, match=message):
        build_model(write_options(change))


def test_ladders_stay_in_one_step(write_options):
    changes = ("train:steps_per_batch=2", "datasets:train:ladder_share=0.5")
    with pytest.raises(ValueError, match="steps_per_batch must be 1 with ladder_share"):
        build_model(write_options(*changes))


def test_another_network_is_refused(write_options):
    with pytest.raises(
        ValueError, match="LifeIQA or a subclass of it that has been imported, got 'Entropy'"
    ):
        launch.train(write_options("network={type: Entropy}"))


def test_crops_of_another_size_are_refused(write_options):
    model = build_model(write_options())
    batch = one_batch()
    with pytest.raises(ValueError, match="crops are 16x16, but the network's are 32x32"):
        model.feed_data(batch | {"img": batch["img"][..., :16, :16]})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("network:num_expert=4", TypeError, "no option 'num_expert'; did you mean 'num_experts'"),
        ("datasets:train:crop_size=16", ValueError, "crop_size is 16, but the network's is 32; le"),
        ("datasets:train:working_size=64", ValueError, "size is 64, but the network's is 48"),
        (
            "datasets:val:name=noise-test",
            ValueError,
            "a name of its own, got noise-test, noise-test, noise-train",
        ),
        (
            "datasets:train:working_range=[16, 40]",
            ValueError,
            "both at least crop_size=32, got .16",
        ),
        ("datasets:train:prefetch_mode=cpu", ValueError, "prefetch_mode cpu hangs"),
    ],
)
def test_errors_before_training(write_options, change, error, message):
    with pytest.raises(error, match=message):
        launch.train(write_options(change))
    assert not Path("experiments").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "import: my_part: ModuleNotFoundError: No module named 'my_part'"),
        ("1 / 0", "import: my_part: ZeroDivisionError: division by zero"),
    ],
)
def test_an_import_that_fails(write_options, tmp_path, code, message):
    if code:
        (tmp_path / "my_part.py").write_text(code)
    with pytest.raises(ImportError, match=message):
        launch.train(write_options("import=[my_part]"))


class UpsideDown(LifeIQA):
    """A subclass whose scores have the other sign."""

    def __init__(self, *, shift: float = 0.0, **options) -> None:
        super().__init__(**options)
        self.config["shift"] = self.shift = shift

    def to_range(self, raw: torch.Tensor) -> torch.Tensor:
        return self.shift - super().to_range(raw)


def test_a_subclass_is_trained_validated_tested_and_read_as_itself(write_options, images):
    """Its final test has the sign that its validation had."""
    changes = ["network:type=UpsideDown", "network:shift=1.5", "train:total_epoch=1"]
    columns = {"val": "everything", "test": "everything_else"}
    meta = pd.read_csv(images / "meta.csv").assign(everything="train", everything_else="train")
    meta.loc[20:29, "everything"], meta.loc[30:, "everything_else"] = "val", "test"
    meta.loc[20:, "train_split"], meta.loc[:19, "train_split"] = "", "train"
    meta.to_csv("m.csv", index=False)
    changes += [f"datasets:{phase}:meta_info_file=m.csv" for phase in ("train", "val", "test")]
    changes += [f"datasets:{phase}:split_index={column}" for phase, column in columns.items()]
    result = launch.train(write_options(*changes, "datasets:train:split_index=train_split"))
    path = FOLDER / "models/net_best.safetensors"
    network = build_lifeiqa(pretrained_model_path=path)
    assert isinstance(network, UpsideDown)
    assert network.shift == 1.5
    test = LifeIQADataset(
        dict(read_options(FOLDER / "options.yml")["datasets"]["test"], phase="test")
    )
    assert evaluate(network, test) == pytest.approx(result, rel=1e-5)  # float32 sums
    val = LifeIQADataset(dict(read_options(FOLDER / "options.yml")["datasets"]["val"], phase="val"))
    validated = read_state()["best_metric_results"]["noise-val"]
    assert evaluate(network, val)["rmse"] == pytest.approx(validated["rmse"]["val"], abs=1e-6)
    plain = LifeIQA(**{k: v for k, v in network.config.items() if k != "shift"}).eval()
    plain.load_state_dict(network.state_dict())
    image = test[0]["img"][None]
    torch.testing.assert_close(network.eval()(image), 1.5 - plain(image))


@pytest.mark.parametrize("cause", ["loss", "gradient"])
def test_not_finite_stops_with_names_and_good_weights(write_options, cause):
    model = build_model(write_options("train:ema_decay=0.5"))
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    model.feed_data(one_batch())
    if cause == "loss":
        model.labels.mos[0] = math.nan
    else:
        model.network.decoder.head.bias.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(
        FloatingPointError, match=rf"the {cause} of iteration 1 is .*0\.png, 1\.png, 2\.png, 3\.png"
    ):
        model.optimize_parameters(1)
    assert_same(before, model.network.state_dict())


def test_overfits(write_options, images):
    """Thirty-two images are learnt by heart, and the files of a run are all there."""
    meta = pd.read_csv(images / "meta.csv")
    meta["ratio712_seed123_split_01"] = ["train"] * 32 + ["val"] * 4 + ["test"] * 4
    meta.to_csv("meta.csv", index=False)
    result = launch.train(
        write_options(
            "train:total_epoch=25", "train:optim:lr=3e-3", "val:val_freq=25", "logger:use_tb_logger=true",
            "datasets:train:crops_per_image=3", "datasets:train:num_worker_per_gpu=2",
            *(f"datasets:{phase}:meta_info_file=meta.csv" for phase in ("train", "val", "test")),
        )
    )  # fmt: skip
    learnt = LifeIQADataset(
        {"phase": "train", "meta_info_file": "meta.csv", "dataroot_target": str(images)}
        | {"split_index": "ratio712_seed123_split_01"}
    )
    learnt.phase = "test"  # whole images
    agreed = evaluate(
        build_lifeiqa(pretrained_model_path=FOLDER / "models/net_latest.safetensors"), learnt
    )
    assert agreed["images"] == 32
    assert agreed["srcc"] > 0.95
    assert result == json.loads((FOLDER / "test_results.json").read_text())
    log = read_log()
    assert len(log) == 150
    assert np.mean([line["l_mos"] for line in log[-10:]]) < 0.1 * np.mean(
        [line["l_mos"] for line in log[:10]]
    )
    assert {p.name for p in (FOLDER / "models").iterdir()} == {
        "net_best.safetensors",
        "net_latest.safetensors",
    }
    assert [p.name for p in (FOLDER / "training_states").iterdir()] == ["latest.state"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("tb_logger/tiny").Reload()
    assert {"losses/l_mos", "losses/l_balance", "losses/l_router_z", "losses/l_total", "lr"} <= set(
        events.Tags()["scalars"]
    )
    card = read_checkpoint(FOLDER / "models/net_best.safetensors").card
    assert (card.training_data, card.license, card.lower_better) == (
        "noise-train (meta.csv)",
        "not stated",
        False,
    )


def test_the_best_epoch_is_kept_and_scored_in_float32(write_options, images):
    """What validation reported is what the saved file gives, although training computes in bfloat16."""
    launch.train(
        write_options(
            "train:amp=bf16", "train:ema_decay=0.5", "train:optim:lr=3e-3", "val:val_freq=2"
        )
    )
    best = read_state()["best_metric_results"]["noise-val"]
    network = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_best.safetensors")
    opt = {
        "phase": "val",
        "meta_info_file": str(images / "meta.csv"),
        "dataroot_target": str(images),
    }
    dataset = LifeIQADataset(opt | {"split_ratio": "712", "split_index": 1})
    result = evaluate(network, dataset)
    assert {m: best[m]["val"] for m in best} == pytest.approx(
        {m: result[m] for m in best}, abs=1e-6
    )
    assert best["srcc"]["iter"] % 2 == 0
    last = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_latest.safetensors")
    assert last.std_calibration == (0, 1)
    assert "return_std of net_best.safetensors: " in newest_log()


@pytest.mark.parametrize("kind", ["carries", "noise", "falls", "flat"])
def test_return_std_is_fitted_or_nothing(write_options, kind):
    """Where the spread does not rank the errors, the checkpoint says so and gives NaN with one warning."""
    model, rng = build_model(write_options()), np.random.default_rng(0)
    (FOLDER / "models").mkdir(parents=True)
    errors = rng.normal(0, 0.1, 200)
    spread_of = {
        "carries": np.abs(errors) + rng.uniform(0, 0.1, 200),
        "noise": np.random.default_rng(3).uniform(0, 0.2, 200),
        "falls": 1 - np.abs(errors),
        "flat": np.full(200, 0.1),
    }
    model._save_best(errors, spread_of[kind])
    path = FOLDER / "models/net_best.safetensors"
    card, network = read_checkpoint(path).card, build_lifeiqa(pretrained_model_path=path)
    image = torch.rand(1, 3, 40, 40)
    if kind == "carries":
        assert network.std_calibration == pytest.approx(
            fit_std_calibration(errors, spread_of[kind]), rel=1e-6
        )
        assert card.std.startswith("fitted: rank correlation with the error of 200 validation im")
        assert network(image, return_std=True)[1].isfinite()
        return
    assert network.std_calibration is None
    assert card.std.startswith("carries nothing and is NaN: rank correlation with the error of 200")
    with pytest.warns(UserWarning, match="return_std gives NaN") as caught:
        score, std = network(image, return_std=True)
    assert len(caught) == 1
    assert score.isfinite()
    assert std.isnan()


def test_line_from_spread_to_error_is_found():
    rng = np.random.default_rng(0)
    spreads = rng.uniform(0, 0.2, 40_000)
    assert fit_std_calibration(rng.normal(0, 0.05 + 0.5 * spreads), spreads) == pytest.approx(
        (0.05, 0.5), rel=0.05
    )
    assert fit_std_calibration(rng.normal(0, 0.2 - spreads), spreads)[1] == 0, "never falls"


def test_without_validation_the_last_weights_are_tested(write_options):
    result = launch.train(write_options("train:total_epoch=1", drop=("datasets:val", "val")))
    assert result["images"] == 8
    assert [p.name for p in (FOLDER / "models").iterdir()] == ["net_latest.safetensors"]
    assert read_state()["iter"] == 5


def test_validation_and_states_come_once_per_epoch_by_default(write_options):
    launch.train(write_options(drop=("val", "logger", "datasets:test")))
    assert "Validation noise-val" in newest_log()
    assert newest_log().count("validation datasets are used") == 3
    assert newest_log().count("Saving latest") == 3


def test_state_waits_for_the_validation_of_its_iteration(write_options, images):
    """Otherwise a run killed between the two would resume behind a validation that never happened."""
    model = build_model(write_options("val:val_freq=5"))
    for name in ("models", "training_states"):
        (FOLDER / name).mkdir(parents=True)
    opt = dict(model.opt["datasets"]["val"])
    loader = type("Loader", (), {"dataset": LifeIQADataset(opt)})
    state_file = FOLDER / "training_states/latest.state"
    for iteration, due in ((4, False), (5, True)):
        model.current_iter = iteration
        model.save(0, -1)
        assert state_file.exists() != due
        if due:
            model.validation(loader, iteration, None)
            assert read_state()["validated"] == {"noise-val": 5}
        state_file.unlink()


def newest_log() -> str:
    return max(FOLDER.glob("train_*.log"), key=newest).read_text()


def test_a_image_is_decoded_once_in_an_epoch(write_options, monkeypatch):
    """However many crops and steps are made of it."""
    decoded, read = [], data.read_image
    monkeypatch.setattr(data, "read_image", lambda path: decoded.append(path) or read(path))
    monkeypatch.setattr(launch, "describe_effort", lambda *_: "")  # decodes two
    changes = ["datasets:train:crops_per_image=6", "train:steps_per_batch=3", "train:total_epoch=2"]
    launch.train(
        write_options(
            *changes, "datasets:train:batch_size_per_gpu=7", drop=("datasets:test", "datasets:val")
        )
    )
    assert len(read_log()) == 8
    assert [decoded.count(path) for path in set(decoded)] == [2] * 28


def test_a_finished_run_is_left_as_it_is(write_options, monkeypatch):
    """Not trained, scored or written again; a longer one goes on, and the result of the shorter is gone."""
    result = launch.train(write_options("train:total_epoch=1"))
    before = {
        path: newest(path)
        for path in Path().rglob("*")
        if path.is_file() and path.name != "tiny.yml"
    }
    with monkeypatch.context() as context:
        context.setattr("pyiqa.train.train_pipeline", lambda *_: pytest.fail("trained again"))
        assert launch.train(write_options("train:total_epoch=1"), auto_resume=True) == result
    assert before == {
        path: newest(path)
        for path in Path().rglob("*")
        if path.is_file() and path.name != "tiny.yml"
    }
    with monkeypatch.context() as context:
        context.setattr("pyiqa.train.train_pipeline", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            launch.train(write_options("train:total_epoch=2"), auto_resume=True)
    assert not (FOLDER / "test_results.json").exists()
    launch.train(write_options("train:total_epoch=2"), auto_resume=True)
    assert read_state()["iter"] == 10
    assert (FOLDER / "test_results.json").exists()
    assert "resumed with other options: train:total_epoch 1 -> 2\n" in newest_log()
    saved = read_options(FOLDER / "options.yml")
    assert saved == read_options(write_options("train:total_epoch=2"))


def test_a_run_killed_before_its_test_is_tested_and_not_trained(write_options, monkeypatch):
    option_file = write_options("train:total_epoch=1")
    result = launch.train(option_file)
    (FOLDER / "test_results.json").unlink()
    weights = {path.name: path.read_bytes() for path in (FOLDER / "models").iterdir()}
    monkeypatch.setattr(
        LifeIQAModel, "optimize_parameters", lambda *_: pytest.fail("trained again")
    )
    assert launch.train(option_file, auto_resume=True) == result
    assert weights == {path.name: path.read_bytes() for path in (FOLDER / "models").iterdir()}


def test_curves_of_a_resumed_run_are_those_of_the_whole_one(write_options, tmp_path, monkeypatch):
    """Each iteration's losses and each validation's results and scores, once, as csv."""
    changes = ["train:total_epoch=2", "logger:save_latest_freq=3", "val:val_freq=4"]
    option_file = write_options(*changes, drop=("datasets:test",))
    step, stop_at = LifeIQAModel.optimize_parameters, 6

    def stop(self, current_iter):
        if current_iter == stop_at:
            self.save_training_state = lambda *_: None
            self.loss_rows = self.loss_rows[:-1]
            raise KeyboardInterrupt
        step(self, current_iter)

    with monkeypatch.context() as context:
        context.setattr(LifeIQAModel, "optimize_parameters", stop)
        with pytest.raises(KeyboardInterrupt):
            launch.train(option_file)
    assert read_state()["iter"] == 3
    with open(FOLDER / "curves_losses.csv", "a") as file:
        file.write("4,1,2,3,4,5\n1")  # what a killed run may leave
    launch.train(option_file, auto_resume=True)
    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    launch.train(option_file)
    names = ("curves_losses.csv", "curves_validation.csv", "predictions_noise-val.csv")
    for name in names:
        resumed, whole = read_csv(tmp_path / FOLDER / name), read_csv(FOLDER / name)
        assert resumed == whole
    losses = read_csv(FOLDER / names[0])
    assert losses[0] == ["iteration", "l_mos", "l_balance", "l_router_z", "l_total", "lr"]
    assert [row[0] for row in losses[1:]] == [str(i) for i in range(1, 11)]
    validated = read_csv(FOLDER / names[1])
    assert [row[:2] for row in validated[1:]] == [[str(i), "noise-val"] for i in (4, 8, 10)]
    predictions = pd.read_csv(FOLDER / names[2])
    last = predictions[predictions.iteration == 10]
    assert len(last) == 4
    srcc = last.score.corr(last.mos, method="spearman")
    assert float(validated[-1][2]) == pytest.approx(srcc, abs=1e-6)


def test_effort_is_said_before_training(write_options, caplog, monkeypatch):
    with caplog.at_level("INFO", logger="pyiqa"):
        monkeypatch.setattr(logging.getLogger("pyiqa"), "propagate", True)
        launch.train(write_options("train:total_epoch=1", drop=("datasets:test",)))
    said = [record.message for record in caplog.records if " steps of " in record.message]
    assert len(said) == 1
    assert re.fullmatch(
        r"5 steps of 12 crops: about [\d.e-]+ hours on this machine \([\d.e-]+ s a step, [\d.e-]+ s "
        r"of reading\), without validation",
        said[0],
    )


@pytest.mark.parametrize("is_slower", [True, False])
def test_effort_says_where_bfloat16_is_slower(write_options, monkeypatch, is_slower):
    """CPUs without instructions for it compute it ten times and more slower than float32."""
    seconds = {"bf16": 2.0, "fp32": 0.5 if is_slower else 3.0}
    monkeypatch.setattr(effort, "_compute", lambda *given: seconds[given[-1]])
    opt = launch.prepare_options(read_options(write_options("train:amp=bf16")))
    network = launch.take_sizes_from_network(opt)
    mixture = launch.check_data(opt)["train"]
    said = effort.describe_effort(network, mixture, opt["train"], 1)
    remedy = "bfloat16 4 times slower than float32: use --force_yml train:amp=fp32"
    assert said.endswith(remedy) == is_slower


def test_whole_images(write_options):
    """Trained on squares of the whole shorter side, scored in one piece of any shape."""
    result = launch.train(
        write_options(
            "network:whole_image=true",
            "train:total_epoch=1",
            "train:scheduler:type=step",
            "train:scheduler:every_epochs=1",
            "datasets:train:working_range=[48, 60]",
        )
    )
    assert result["images"] == 8
    network = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_latest.safetensors")
    assert network.whole_image
    assert network(torch.rand(1, 3, 40, 57), return_details=True).crop_shape == (40, 57)
    opt = launch.prepare_options(read_options(FOLDER / "options.yml"))
    launch.take_sizes_from_network(opt)
    train_set = launch.check_data(opt)["train"]
    assert train_set[0, 1]["img"].shape == (2, 3, 48, 48)
    with pytest.raises(ValueError, match="crop_size is 64, but the network's is 48"):
        launch.train(write_options("network:whole_image=true", "datasets:train:crop_size=64"))


def test_numbered_weights_on_request(write_options):
    launch.train(
        write_options(
            "logger:save_checkpoint_freq=4", "train:total_epoch=2", drop=("datasets:test",)
        )
    )
    names = {p.name for p in (FOLDER / "models").iterdir()}
    assert names == {f"net_{label}.safetensors" for label in ("4", "8", "best", "latest")}


def test_nan_never_wins_but_a_first_result_counts(write_options):
    model = build_model(write_options())
    kept = []
    for iteration, value in enumerate([math.nan, 0.1, math.nan, 0.3, 0.2], 1):
        model.current_iter, model.metric_results = iteration, dict.fromkeys(METRICS, value)
        is_best = model._update_best("noise-val")
        kept.append((is_best, model.best_metric_results["noise-val"]["srcc"]["iter"]))
    assert kept == [(True, 1), (True, 2), (False, 2), (True, 4), (False, 4)]


def test_killed_and_resumed_is_the_same_run(write_options, tmp_path, monkeypatch, start_process):
    """SIGKILL at any moment, three times over; weights, average, optimiser, best epoch and test scores are equal."""
    changes = [
        "train:total_epoch=5",
        "train:ema_decay=0.9",
        "logger:save_latest_freq=2",
        "val:val_freq=4",
    ]
    changes += ["train:warmup_epochs=1", "train:clip_grad_norm=1.0"]
    option_file = write_options(*changes)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    process = start_process(launch.train, option_file)
    process.join(120)
    assert process.exitcode == 0
    monkeypatch.chdir(tmp_path / "killed")
    state_file, saved = FOLDER / "training_states/latest.state", []
    for pause in (0.0, 0.11, 0.23):
        process, before = start_process(launch.train, option_file, None, True), newest(state_file)
        while newest(state_file) == before:
            assert process.is_alive(), (
                "ended before it could be killed; the test needs a longer run"
            )
            time.sleep(0.005)
        time.sleep(pause)
        process.kill()
        process.join()
        assert process.exitcode == -9
        saved.append(read_state()["iter"])
    assert 0 < saved[0] <= saved[1] <= saved[2] < 25
    process = start_process(launch.train, option_file, None, True)
    process.join(120)
    assert process.exitcode == 0
    assert sum("Resuming training" in p.read_text() for p in FOLDER.glob("*.log")) >= 1
    whole = tmp_path / "whole" / FOLDER
    for label in ("net_best", "net_latest"):
        assert_same(read_weights(label, whole), read_weights(label))
    first, second = read_state(whole), read_state()
    assert first["iter"] == second["iter"] == 25
    assert_same(first["ema"], second["ema"])
    for key, slots in first["optimizer"]["state"].items():
        assert_same(slots, second["optimizer"]["state"][key])
    assert first["best_metric_results"] == second["best_metric_results"]
    assert (FOLDER / "test_scores.csv").read_text() == (whole / "test_scores.csv").read_text()


def newest(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_state_of_another_network_is_refused(write_options):
    launch.train(write_options("train:total_epoch=1"))
    with pytest.raises(ValueError, match=r"does not fit these options.*size mismatch"):
        launch.train(write_options("train:total_epoch=2", "network:embed_dim=32"), auto_resume=True)


def test_state_that_is_no_state(write_options, tmp_path):
    (tmp_path / "x.state").write_bytes(b"not a torch file")
    with pytest.raises(
        ValueError, match=r"x\.state: not a training state of lifeiqa_plugin, or damaged"
    ):
        launch.train(write_options(f"path={{resume_state: {tmp_path / 'x.state'}}}"))
    with pytest.raises(OSError, match="No such file"):
        launch.train(write_options("path={resume_state: nowhere.state}"))


def test_full_disk_leaves_the_last_state(tmp_path):
    path = tmp_path / "latest.state"
    with write_whole(path) as file:
        torch.save({"iter": 1}, file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = r"latest\.state: cannot be written .* what was there before is untouched"
        with pytest.raises(OSError, match=message), write_whole(path) as file:
            torch.save({"weights": torch.zeros(100_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.load(path, weights_only=True) == {"iter": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["latest.state"]


def test_splits(write_options):
    """Each split is trained once, on its own rows, and the table is their median, mean and deviation."""
    option_file = write_options("train:total_epoch=1")
    results = train_splits(read_options(option_file), 2)
    tested = [Path(f"experiments/tiny_split0{i}/test_scores.csv").read_text() for i in (1, 2)]
    assert tested[0] != tested[1]
    rows = read_csv("experiments/tiny_splits.csv")
    assert [row[0] for row in rows] == ["split", "1", "2", "median", "mean", "std"]
    assert rows[3][1] == rows[4][1] == f"{(results[0]['srcc'] + results[1]['srcc']) / 2:.4f}"
    assert float(rows[5][1]) == pytest.approx(
        abs(results[0]["srcc"] - results[1]["srcc"]) / math.sqrt(2), abs=1e-4
    )
    head = "| split | srcc | plcc | krcc | rmse | rows of noise-train | rows of noise-val | rows of"
    assert Path("experiments/tiny_splits.md").read_text().startswith(head)
    assert rows[1][5:] == rows[2][5:] == ["28", "4", "8"]
    before = [newest(p) for p in sorted(Path("experiments").rglob("net_*"))]
    assert len(before) == 4
    assert train_splits(read_options(option_file), 2) == results
    assert before == [newest(p) for p in sorted(Path("experiments").rglob("net_*"))]


def test_two_processes_are_one_with_the_doubled_batch(write_options, run_python, tmp_path):
    """Same images, same crops, gradients averaged; AdamW magnifies the order of summing to 1e-4."""
    changes = [
        "network:dropout=0",
        "train:optim:lr=1e-4",
        "train:ema_decay=0.5",
        *NO_SIDE_LOSS[:2],
        "train:total_epoch=2",
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    option_file = write_options(*changes, "datasets:train:batch_size_per_gpu=8")
    one.mkdir(), two.mkdir()
    root = Path(__file__).parents[2]
    done = run_python(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lifeiqa_plugin.cli", "train",
        "-opt", option_file, "--launcher", "pytorch", "--force_yml", "datasets:train:batch_size_per_gpu=4",
        cwd=two, PYTHONPATH=str(root), OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    import os

    os.chdir(one)  # write_options' monkeypatch takes us back
    launch.train(option_file)
    curves = [[line["l_mos"] for line in read_log(folder / FOLDER)] for folder in (one, two)]
    assert len(curves[0]) == 8
    np.testing.assert_allclose(*curves, rtol=1e-3)
    scores = [
        np.genfromtxt(f / FOLDER / "test_scores.csv", delimiter=",", skip_header=1)[:, 1:]
        for f in (one, two)
    ]
    assert scores[0].shape == (8, 3)
    np.testing.assert_allclose(*scores, atol=1e-4)


def finish(processes: list) -> None:
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def test_two_processes_killed_and_resumed_are_the_same_run(
    write_options, tmp_path, monkeypatch, start_two
):
    """Bit for bit: the sum of two gradients does not depend on who comes first. With batch statistics and average."""
    option_file = write_options(
        "network:backbone=test_efficientnet", "train:ema_decay=0.9", "train:total_epoch=4", "val:val_freq=4",
        "logger:save_latest_freq=2", "datasets:train:batch_size_per_gpu=3",
    )  # fmt: skip
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    finish(start_two("-opt", option_file))
    monkeypatch.chdir(tmp_path / "killed")
    pair, state_file = start_two("-opt", option_file), FOLDER / "training_states/latest.state"
    while not state_file.exists():
        assert all(process.is_alive() for process in pair)
        time.sleep(0.005)
    for process in pair:
        process.kill()
        process.join()
    assert 0 < read_state()["iter"] < 20
    finish(start_two("-opt", option_file, "--auto_resume"))
    assert any("Resuming training" in path.read_text() for path in FOLDER.glob("*.log"))
    whole = tmp_path / "whole" / FOLDER
    for label in ("net_best", "net_latest"):
        assert_same(read_weights(label, whole), read_weights(label))
    first, second = read_state(whole), read_state()
    assert first["iter"] == second["iter"] == 20
    for key in ("network", "ema"):
        assert_same(first[key], second[key])
    assert (FOLDER / "test_scores.csv").read_text() == (whole / "test_scores.csv").read_text()


def test_batch_statistics_of_two_processes_are_those_of_the_first(write_options, images, start_two):
    """Each normalises with its own share of the batch; the running averages of the first are kept and scored."""
    option_file = write_options(
        "network:backbone=test_efficientnet", "train:optim:lr=0.0", "train:total_epoch=1", "val:val_freq=2",
        "datasets:train:batch_size_per_gpu=7",
    )  # fmt: skip
    finish(start_two("-opt", option_file))
    state, opt = read_state(), launch.prepare_options(read_options(option_file))
    assert state["iter"] == 2
    launch.take_sizes_from_network(opt)
    dataset = launch.check_data(opt)["train"]
    averages = []
    for rank in (0, 1):
        network = build_model(option_file).network
        network.load_state_dict(state["network"])  # whose weights have not moved
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
        sampler = ResumableSampler(dataset, 2, rank, seed=1)
        sampler.set_epoch(0)
        visits = list(sampler)
        for batch in (visits[:7], visits[7:]):
            network(torch.cat([dataset[visit]["img"] for visit in batch]))
        averages.append(
            {name: value for name, value in network.state_dict().items() if "running" in name}
        )
    assert averages[0]
    for name, value in averages[0].items():
        torch.testing.assert_close(state["network"][name], value)
    assert any(not torch.allclose(averages[1][name], value) for name, value in averages[0].items())
    chosen = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_best.safetensors")
    val = LifeIQADataset(dict(read_options(option_file)["datasets"]["val"]) | {"phase": "val"})
    best = {
        metric: result["val"]
        for metric, result in state["best_metric_results"]["noise-val"].items()
    }
    expected = evaluate(chosen, val)
    assert best == pytest.approx({metric: expected[metric] for metric in best}, abs=1e-6)


def test_launcher_needs_torchrun():
    with (
        pytest.raises(ValueError, match="--launcher pytorch needs torchrun"),
        launch.processes("pytorch"),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="permissions differ")
def test_no_permission_is_known_before_training(write_options, monkeypatch):
    option_file = write_options()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="no permission to write here"):
        launch.train(option_file)
    assert not Path("experiments").exists()
