"""One iteration: which losses, in which precision, how many steps, and what it refuses."""

from __future__ import annotations

import io
import math
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.scoring.evaluation import fit_std_calibration
from lifeiqa_plugin.training import dataset as data

from .conftest import FOLDER, NO_SIDE_LOSS, assert_same

pytestmark = pytest.mark.slow

WEIGH = "datasets:train:weigh_opinions=0.1"


def one_batch(count: int = 4, crops: int = 2) -> dict:
    generator = torch.Generator().manual_seed(7)
    images = torch.rand(count, crops, 3, 32, 32, generator=generator)
    return {
        "img": images,
        "mos_label": torch.linspace(0, 1, count)[:, None],
        "img_path": [f"{i}.png" for i in range(count)],
    }


def test_the_decoder_learns_first(write_options, build_model):
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


def test_losses_are_weighted_and_logged(write_options, build_model):
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


def test_opinions_weigh_in_the_main_loss(write_options, build_model):
    """Also in parts; without ``weigh_opinions`` the same weights change nothing."""
    weight = torch.tensor([0.5, 0.1, 0.9, 2.5])
    plain = ("train:mos_loss_opt:loss_weight=3", "network:dropout=0", *NO_SIDE_LOSS)
    for more in ((), (WEIGH,), (WEIGH, "train:accumulate=3")):
        model, batch = build_model(write_options(*plain, *more)), one_batch(4)
        with torch.no_grad():
            score = model.network(batch["img"].flatten(0, 1)).view(4, 2)
        each = nn.functional.smooth_l1_loss(
            score, batch["mos_label"].expand(4, 2), reduction="none"
        )
        model.feed_data(batch | {"weight": weight})
        model.optimize_parameters(1)
        expected = 3 * (each * (weight[:, None] if more else 1)).mean().item()
        assert model.log_dict["l_mos"] == pytest.approx(expected, rel=1e-5)


def test_opinions_weigh_in_one_loss_and_one_loop_only(write_options, build_model):
    with pytest.raises(ValueError, match="weigh_opinions needs lifeiqa train"):
        build_model(write_options(WEIGH)).feed_data(one_batch())
    message = "weigh_opinions needs train:mos_loss_opt of type SmoothL1Loss, got L1Loss"
    with pytest.raises(ValueError, match=message):
        build_model(write_options(WEIGH, "train:mos_loss_opt:type=L1Loss"))


def test_ladders_are_ranked_and_only_their_first_crop_is_labelled(write_options, build_model):
    """Of 6 images with 2 crops each, two are ladders: 10 labelled crops and 2 pairs to rank."""
    changes = (
        "train:rank_weight=2",
        "datasets:train:ladder_share=0.3",
        "network:dropout=0",
        *NO_SIDE_LOSS,
    )
    model, batch = build_model(write_options(*changes)), one_batch(6)
    batch["has_levels"] = torch.tensor([False, True, False, False, True, False])
    with torch.no_grad():
        scores = model.network(batch["img"].flatten(0, 1)).view(6, 2)
    label, first, second = batch["mos_label"][:, 0], scores[:, 0], scores[:, 1]
    plain = ~batch["has_levels"]
    labelled = torch.cat([first, second[plain]]), torch.cat([label, label[plain]])
    pairs = (0.03 + second - first)[batch["has_levels"]].clamp(min=0)
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert model.log_dict["l_mos"] == pytest.approx(
        nn.functional.smooth_l1_loss(*labelled).item(), rel=1e-5
    )
    assert model.log_dict["l_rank"] == pytest.approx(2 * pairs.mean().item(), rel=1e-5)


def test_images_without_label_are_ranked_only(write_options, build_model):
    changes = ("datasets:train:ladder_share=0.3", "network:dropout=0", *NO_SIDE_LOSS)
    model, batch = build_model(write_options(*changes)), one_batch(4)
    batch["has_levels"] = torch.tensor([False, True, False, True])
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


def test_distortions_are_the_second_task(write_options, build_model):
    """Cross-entropy over the crops of ladders, for each distortion that the network names, in its order."""
    changes = ("network:distortions=[blocking, blur]", "train:distortion_weight=3", *NO_SIDE_LOSS)
    changes += ("train:scheduler:type=constant", "train:optim:lr=0.01")
    model = build_model(write_options("datasets:train:ladder_share=0.5", *changes))
    batch, names = one_batch(3), list(KINDS)
    blocking, noise = names.index("blocking"), names.index("noise")
    batch["has_levels"] = torch.tensor([False, True, True])
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
    for iteration in range(2, 25):
        model.optimize_parameters(iteration)
    assert model.log_dict["l_distortion"] < 0.7 * expected.item()
    batch["kinds"][:] = data.UNKNOWN
    model.feed_data(batch)
    model.optimize_parameters(25)
    assert model.log_dict["l_distortion"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        ("network:distortions=[blur]",),
        ("datasets:train:ladder_share=0.5",),
        ("network:distortions=[rain]", "datasets:train:ladder_share=0.5"),
    ],
)
def test_second_task_needs_ladders_and_known_names(write_options, changes, build_model):
    with pytest.raises(
        ValueError, match="distortion_weight needs ladder_share above 0 and network"
    ):
        build_model(write_options("train:distortion_weight=1", *changes))


def test_batch_without_any_label_is_ranked(write_options, build_model):
    changes = (
        "datasets:train:ladder_share=0.3",
        "train:metric_loss_opt={type: PLCCLoss, loss_weight: 1.0}",
    )
    model, batch = build_model(write_options(*changes)), one_batch(4)
    batch["has_levels"], batch["mos_label"] = (
        torch.ones(4, dtype=torch.bool),
        torch.full((4, 1), torch.nan),
    )
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert model.log_dict["l_mos"] == model.log_dict["l_metric"] == 0
    assert model.log_dict["l_rank"] > 0


def test_steps_per_batch_share_out_the_crops(write_options, build_model):
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


def test_progress_bar(write_options, monkeypatch, build_model):
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


def test_accumulation_is_the_whole_batch(write_options, build_model):
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


def test_clipping_limits_the_step(write_options, build_model):
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


def test_average_follows_its_closed_form(write_options, build_model):
    model = build_model(write_options("train:ema_decay=0.75", "train:optim:lr=0.01"))
    history = []
    for iteration in (1, 2, 3):
        model.feed_data(one_batch())
        model.optimize_parameters(iteration)
        history.append(model.network.decoder.head.weight.detach().clone())
    expected = 0.75 * (0.75 * history[0] + 0.25 * history[1]) + 0.25 * history[2]
    torch.testing.assert_close(model.scored_network.decoder.head.weight, expected)
    assert not torch.equal(history[2], expected)


def test_precision_of_the_forward_pass(write_options, build_model):
    seen = []
    for amp in ("fp32", "bf16"):
        model = build_model(write_options(f"train:amp={amp}"))
        model.network.decoder.memory.register_forward_hook(lambda *args: seen.append(args[2].dtype))
        model.feed_data(one_batch())
        model.optimize_parameters(1)
        assert model.network.decoder.head.weight.dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


def test_activation_checkpointing_changes_nothing(write_options, build_model):
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
        ("train:amp=fp16", "fp16 needs a GPU"),
        (
            "train:steps_per_batch=3",
            r"steps_per_batch must divide crops_per_image, got 3 for 2 crops",
        ),
    ],
)
def test_options_that_do_not_go_together(write_options, change, message, build_model):
    with pytest.raises(ValueError, match=message):
        build_model(write_options(change))


def test_ladders_stay_in_one_step(write_options, build_model):
    changes = ("train:steps_per_batch=2", "datasets:train:ladder_share=0.5")
    with pytest.raises(ValueError, match="steps_per_batch must be 1 with ladder_share"):
        build_model(write_options(*changes))


def test_crops_of_another_size_are_refused(write_options, build_model):
    model = build_model(write_options())
    batch = one_batch()
    with pytest.raises(ValueError, match="crops are 16x16, but the network's are 32x32"):
        model.feed_data(batch | {"img": batch["img"][..., :16, :16]})


@pytest.mark.parametrize("cause", ["loss", "gradient"])
def test_not_finite_stops_with_names_and_good_weights(write_options, cause, build_model):
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


@pytest.mark.parametrize("kind", ["carries", "noise", "falls", "flat"])
def test_return_std_is_fitted_or_nothing(write_options, kind, build_model):
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


def test_nan_never_wins_but_a_first_result_counts(write_options, build_model):
    model = build_model(write_options())
    kept = []
    for iteration, value in enumerate([math.nan, 0.1, math.nan, 0.3, 0.2], 1):
        model.current_iter, model.metric_results = iteration, dict.fromkeys(METRICS, value)
        is_best = model._update_best("noise-val")
        kept.append((is_best, model.best_metric_results["noise-val"]["srcc"]["iter"]))
    assert kept == [(True, 1), (True, 2), (False, 2), (True, 4), (False, 4)]
