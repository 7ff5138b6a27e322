"""Several training sets in one run: their weights, scales, losses, checks, and resuming."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.training import launch, preparation, splits
from lifeiqa_plugin.training.losses import AffineCalibration, FidelityLoss, within_sets
from lifeiqa_plugin.training.mixture import ResumableSampler
from lifeiqa_plugin.training.options import read_options
from lifeiqa_plugin.training.splits import train_splits

from .conftest import FOLDER, read_state

pytestmark = pytest.mark.slow


@pytest.fixture
def halves(images, tmp_path):
    """The set cut in two: ``a.csv`` as it is, ``b.csv`` with scores of 20 to 60 and 4 rows of its own to test on."""
    meta = pd.read_csv(images / "meta.csv")
    meta["split"] = ["train", "val", "train", "test"] * 10
    own = meta[20:].assign(mos=20 + 40 * meta.mos[20:])
    meta[:20].to_csv(tmp_path / "a.csv", index=False)
    own.to_csv(tmp_path / "b.csv", index=False)
    (tmp_path / "photos").mkdir()
    for name in ("000.png", "001.png", "002.png"):
        (tmp_path / "photos" / name).write_bytes((images / name).read_bytes())
    return tmp_path


@pytest.fixture
def write_mixture(write_options, images, halves):
    """Returns a function that writes the option file of a list of three: a, b with a scale of its own, photos."""

    def write(*changes, **of_b):
        path = write_options(*changes, "train:total_epoch=2", drop=("datasets:test",))
        options = yaml.safe_load(path.read_text())
        data = {"dataroot_target": str(images), "split_index": "split"}
        a, b = ({"meta_info_file": f"{name}.csv"} | data for name in "ab")
        photos = {"dataroot_target": "photos", "ladder_share": 1, "weight": 2, "name": "photos"}
        batch = {"batch_size_per_gpu": 6, "crops_per_image": 2}
        options["datasets"] = {
            "train": [a | batch, b | {"own_scale": True} | of_b, photos],
            "val": dict(a),
            "val_b": dict(b),
            "test": dict(a),
            "test_b": dict(b),
        }
        path.write_text(yaml.safe_dump(options, sort_keys=False))
        return path

    return write


def sampler_of(option_file, start_iter=0):
    opt = preparation.prepare_options(read_options(option_file))
    preparation.take_sizes_from_network(opt)
    mixture = preparation.check_data(opt, None)["train"]
    return ResumableSampler(mixture, 1, 0, seed=1, start_iter=start_iter), mixture


def test_weights_are_visits_of_an_epoch(write_mixture):
    sampler, mixture = sampler_of(write_mixture(weight=0.5))
    assert [len(source) for source in mixture.sources] == [10, 10, 3]
    assert mixture.visits == [10, 5, 6]
    parts = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        visits = list(sampler)[:21]
        rows = [visit.row for visit in visits]
        assert [rows.count(row) for row in range(10)] == [1] * 10
        assert [rows.count(row) for row in (20, 21, 22)] == [2] * 3
        assert len(set(visits)) == 21
        parts.append({row for row in rows if 10 <= row < 20})
        assert len(parts[-1]) == 5
    assert parts[0] != parts[1]
    assert mixture[20, 7]["source"] == 2
    assert mixture[19, 7]["source"] == 1


def test_labels_of_an_own_scale_have_mean_and_deviation_of_the_shared_one(write_mixture):
    _, mixture = sampler_of(write_mixture())
    labels = [
        [mixture[row, 1]["mos_label"].item() for row in rows] for rows in (range(10), range(10, 20))
    ]
    assert np.mean(labels[1]) == pytest.approx(np.mean(labels[0]), abs=1e-6)
    assert np.std(labels[1]) == pytest.approx(np.std(labels[0]), abs=1e-6)
    photos = [mixture[row, 1] for row in (20, 21, 22)]
    assert all(item["has_levels"] and item["mos_label"].isnan() for item in photos)


def test_own_scale_is_a_rising_line():
    lines = AffineCalibration([False, True])
    scores, source = torch.tensor([[0.2], [0.2], [0.6]]), torch.tensor([0, 1, 1])
    assert torch.equal(lines(scores, source), scores)
    with torch.no_grad():
        lines.offset.fill_(0.5)
        lines.log_slope.fill_(-1.0)
    expected = [0.2, 0.5 + 0.2 / np.e, 0.5 + 0.6 / np.e]
    assert lines(scores, source)[:, 0].tolist() == pytest.approx(expected)
    fit = torch.optim.Adam(lines.parameters(), lr=0.1)
    for _ in range(300):  # towards labels that fall: the slope goes to 0, not below
        fit.zero_grad()
        (lines(scores, source) - (1 - scores)).square().sum().backward()
        fit.step()
    assert lines.log_slope[1] < -3
    assert lines.offset[0] == 0.5  # the shared scale's has no gradient


def test_a_loss_within_sets_is_blind_to_their_levels():
    score = torch.tensor([[0.1], [0.5], [0.9], [0.4], [0.2], [0.7]])
    label = torch.tensor([[1.0], [2.0], [3.0], [90.0], [80.0], [5.0]])
    source = torch.tensor([0, 0, 0, 1, 1, 2])
    loss = nn.L1Loss()
    expected = (loss(score[:3], label[:3]) * 3 + loss(score[3:5], label[3:5]) * 2) / 6
    assert within_sets(loss, score, label, source).item() == pytest.approx(expected.item())
    assert within_sets(loss, score[:0], label[:0], source[:0]).item() == 0
    order = within_sets(FidelityLoss(deviation=0.01), score, label, source)
    assert order.item() == pytest.approx(0, abs=2e-3)


def test_fidelity_has_its_closed_form_and_a_gradient():
    score = torch.tensor([[0.3], [0.1], [0.2]], requires_grad=True)
    label = torch.tensor([[2.0], [1.0], [2.0]])
    loss = FidelityLoss(loss_weight=3.0, deviation=0.2)(score, label)
    chance = torch.distributions.Normal(0, 1).cdf(torch.tensor([0.2, 0.1, -0.1]) / (0.2 * 2**0.5))
    p, equal, q = chance[0], chance[1], chance[2]
    expected = [1 - p.sqrt(), 1 - (equal / 2).sqrt() - ((1 - equal) / 2).sqrt(), 1 - (1 - q).sqrt()]
    assert loss.item() == pytest.approx(3 * sum(expected).item() / 3, rel=1e-5)
    loss.backward()
    assert score.grad.isfinite().all()
    assert score.grad[1] > 0  # the worse image comes down


def test_a_run_on_three_sets(write_mixture):
    """Trained, chosen by the first validation set, tested on two; the card names all."""
    result = launch.train(write_mixture("train:metric_loss_opt={type: FidelityLoss}"))
    assert result["images"] == result["b-test_b"]["images"] == 5
    assert json.loads((FOLDER / "test_results.json").read_text()) == result
    assert (FOLDER / "test_scores.csv").exists()
    assert (FOLDER / "test_scores_b.csv").exists()
    card = read_checkpoint(FOLDER / "models/net_best.safetensors").card
    assert card.training_data == "a-train (a.csv), b-train (b.csv), photos (photos)"
    state = read_state()
    assert state["own_scales"]["offset"][[0, 2]].tolist() == [0, 0]
    assert state["own_scales"]["offset"][1] != 0
    assert set(state["best_metric_results"]) == {"a-val", "b-val_b"}


def test_an_interrupted_mixture_is_the_run_itself(
    write_mixture, train_until, tmp_path, monkeypatch
):
    """Stopped in the middle of an epoch; weights, lines and optimiser are the same bits."""
    option_file = write_mixture("logger:save_latest_freq=3", "train:total_epoch=2", weight=0.5)
    (tmp_path / "whole").mkdir()
    for name in ("a.csv", "b.csv", "photos"):
        os.symlink(tmp_path / name, tmp_path / "whole" / name)
    train_until(option_file, 6)
    launch.train(option_file, auto_resume=True)
    monkeypatch.chdir(tmp_path / "whole")
    launch.train(option_file)
    states = [read_state(root / FOLDER) for root in (tmp_path, tmp_path / "whole")]
    assert states[0]["iter"] == states[1]["iter"] == 8
    for part in ("network", "own_scales"):
        for name, value in states[0][part].items():
            torch.testing.assert_close(value, states[1][part][name], rtol=0, atol=0)


def change_train(option_file, number, **changes):
    options = yaml.safe_load(option_file.read_text())
    options["datasets"]["train"][number] |= changes
    option_file.write_text(yaml.safe_dump(options, sort_keys=False))
    return option_file


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (
            1,
            {"batch_size_per_gpu": 3},
            "train:batch_size_per_gpu is of the whole batch, but the list has 6 and 3",
        ),
        (0, {"own_scale": True}, "one dataset with scores must be without own_scale"),
        (1, {"weight": 0}, "datasets:train:1:weight must be greater than 0, got 0"),
        (
            2,
            {"ladder_share": 0.5},
            "datasets:train:2:meta_info_file is missing; photos without scores",
        ),
        (
            1,
            {"name": "a-train"},
            "each needs a name of its own, got a-val, b-val_b, a-test, b-test_b, a-tr",
        ),
        (
            1,
            {"meta_info_file": "a.csv", "name": "b"},
            "train b and train a-train share 10 images or ref",
        ),
        (
            0,
            {"ladder_share": 0.5, "ladder_folder": "held"},
            "the ladder_folder of train a-train and val share 1 ima",
        ),
        (
            1,
            {"split_index": "constant"},
            "b-train: all 10 scores are 60; expected scores that differ",
        ),
    ],
)
def test_errors_before_training(write_mixture, halves, images, number, changes, message):
    if "ladder_folder" in changes:
        (halves / "held").mkdir()
        os.symlink(images / "001.png", halves / "held" / "001.png")
    if changes.get("split_index") == "constant":
        meta = pd.read_csv(halves / "b.csv")
        meta.assign(mos=60, constant=meta.split).to_csv(halves / "b.csv", index=False)
    option_file = write_mixture()
    with pytest.raises(ValueError, match=message):
        launch.train(change_train(option_file, number, **changes))
    assert not Path("experiments").exists()


def test_changes_of_a_list(write_mixture):
    changes = ["datasets:train:1:weight=3", "datasets:train:2:name=ladders"]
    train = read_options(write_mixture(), changes)["datasets"]["train"]
    assert [source["weight"] for source in train] == [1, 3, 2]
    assert train[2]["name"] == "ladders"
    with pytest.raises(ValueError, match="datasets:train is a list of sections, got 5"):
        read_options(write_mixture(), ["datasets:train=[5]"])


def test_splits_renumber_only_numbered_sets(write_options, images, tmp_path, monkeypatch):
    """An external test set keeps all its rows; ``test_splits`` trains for real."""
    trained = []
    result = dict.fromkeys(METRICS, 0.5)
    monkeypatch.setattr(
        splits, "run", lambda options, auto_resume: trained.append(options) or result
    )
    external = f"{{meta_info_file: {images / 'meta.csv'}, dataroot_target: {tmp_path / 'other'}}}"
    (tmp_path / "other").mkdir()
    for path in images.glob("*.png"):
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    option_file = write_options("train:total_epoch=1", f"datasets:test={external}")
    Path("experiments").mkdir()
    train_splits(read_options(option_file), 2)
    assert [one["datasets"]["train"]["split_index"] for one in trained] == [1, 2]
    assert [one["datasets"]["test"].get("split_index") for one in trained] == [None, None]
    table = pd.read_csv("experiments/tiny_splits.csv")
    assert table["rows of meta-test"][:2].tolist() == [40, 40]
    assert table["rows of noise-train"][:2].tolist() == [28, 28]


def test_splits_of_nothing_that_is_numbered(write_options):
    columns = [
        f"datasets:{phase}:split_index=ratio712_seed123_split_01"
        for phase in ("train", "val", "test")
    ]
    with pytest.raises(
        ValueError, match="--splits goes through numbered splits, but every split_index"
    ):
        train_splits(read_options(write_options(*columns)), 2)


def test_two_processes_learn_the_line_of_one(
    write_mixture, halves, start_two, tmp_path, monkeypatch
):
    """The line is outside of what DDP wraps, and its gradient is averaged all the same."""
    no_dice = ["network:dropout=0", "train:load_balancing_weight=0", "train:router_z_weight=0"]
    option_file = write_mixture(*no_dice, "train:optim:lr=1e-4")
    options = yaml.safe_load(option_file.read_text())
    options["train"]["total_epoch"] = 1
    options["datasets"]["train"].pop()  # photos without labels would weigh the halves differently
    for source in (*options["datasets"]["train"], options["datasets"]["val"]):
        source["meta_info_file"] = str(halves / source["meta_info_file"])
    options["datasets"] = {phase: options["datasets"][phase] for phase in ("train", "val")}
    option_file.write_text(yaml.safe_dump(options, sort_keys=False))
    states = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "one":
            launch.train(option_file)
        else:
            half = "datasets:train:0:batch_size_per_gpu=3"
            for process in start_two("-opt", option_file, "--force-yml", half):
                process.join(120)
                assert process.exitcode == 0
        states.append(read_state()["own_scales"])
    assert states[0]["offset"][1] != 0
    for name in ("offset", "log_slope"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-2, atol=1e-6)
