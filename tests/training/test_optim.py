"""What moves the weights: rates, decay, what stands still, and the losses in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.training import optim
from lifeiqa_plugin.training.losses import SmoothL1Loss, rank_loss
from lifeiqa_plugin.training.optim import (
    Schedule,
    bfloat16_slowdown,
    decays,
    freeze,
    parameter_groups,
    set_train_mode,
)

SMALL = {
    "backbone": "test_convnext",
    "embed_dim": 16,
    "num_heads": 2,
    "num_experts": 4,
    "crop_size": 32,
    "memory_grid": 2,
}


def test_smooth_l1_is_torchs():
    a, b = torch.tensor([[0.0], [3.0]]), torch.tensor([[0.5], [0.0]])
    assert SmoothL1Loss(loss_weight=2.0)(a, b).item() == pytest.approx(2 * (0.125 + 2.5) / 2)


def test_rank_loss_has_its_closed_form():
    scores = torch.tensor([[0.9, 0.8, 0.79], [0.5, 0.6, 0.1]])
    assert rank_loss(scores).item() == pytest.approx((0.02 + 0.13) / 4)
    assert rank_loss(torch.empty(0, 3)).item() == 0


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


class TwoBackbones(LifeIQA):
    backbone_modules = ("backbone", "second")

    def __init__(self, **options):
        super().__init__(**options)
        self.second, self.second_head = nn.Conv2d(3, 8, 3), nn.Linear(8, 8)


def test_a_variant_declares_its_backbones():
    network = TwoBackbones(**SMALL)
    groups = parameter_groups(network, lr=1.0, weight_decay=0.5, lr_backbone=0.1)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert rates[id(network.second.weight)] == rates[id(network.second.bias)] == 0.1
    assert rates[id(network.second_head.weight)] == 1.0


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


def test_batch_statistics_stand_still_on_request():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    set_train_mode(network, [], freeze_batch_stats=True)
    assert [module.training for module in network] == [True, False, True]
    set_train_mode(network, [])
    assert all(module.training for module in network)


def test_the_price_of_bfloat16_is_timed_and_nothing_changed(monkeypatch):
    timed = []

    def seconds(layers, x, dtype):
        timed.append((dtype, torch.equal(layers(x), layers(x))))
        return 6.0 if dtype == torch.bfloat16 else 2.0

    before = torch.random.get_rng_state()
    assert bfloat16_slowdown() > 0
    monkeypatch.setattr(optim, "_seconds", seconds)
    assert bfloat16_slowdown() == 3
    assert timed == [(torch.bfloat16, True), (torch.float32, True)]
    assert torch.equal(torch.random.get_rng_state(), before)
