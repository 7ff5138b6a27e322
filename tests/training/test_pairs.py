"""Training on people's votes for pairs of images: the loss, the crops, what is refused, and that it learns."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from lifeiqa_plugin.checkpoints.models import resolve
from lifeiqa_plugin.datasets.trained_on import digests_of, trained_on
from lifeiqa_plugin.training import launch, preparation
from lifeiqa_plugin.training.losses import Labels, has_label, pair_loss
from lifeiqa_plugin.training.options import read_options

from .conftest import FOLDER, NO_SIDE_LOSS, assert_same, lose_last_state, read_csv, read_state

pytestmark = pytest.mark.slow


@pytest.fixture
def write_pairs(write_options, images):
    """Returns a function that writes the option file of a run on pairs of the training images; the higher MOS wins."""
    meta = pd.read_csv(images / "meta.csv")

    def write(*changes, phase="train", beside_mos=False, turned=False, drop=(), **keys):
        rows = meta[meta["ratio712_seed123_split_01"] == phase]
        votes = [
            (a.name, b.name, 5 * (a.mos > b.mos), 5 * (b.mos > a.mos))
            for a, b in combinations(rows[["name", "mos"]].itertuples(index=False, name="I"), 2)
        ]
        table = pd.DataFrame(votes, columns=["left", "right", "votes_left", "votes_right"])
        if turned:
            table.columns = ["left", "right", "votes_right", "votes_left"]
        table.sample(min(60, len(table)), random_state=1).to_csv("pairs.csv", index=False)
        path = write_options(*changes, drop=drop)
        options = yaml.safe_load(path.read_text())
        of_mos = options["datasets"]["train"]
        pairs = {"meta_info_file": "pairs.csv", "dataroot_target": str(images)}
        batch = {name: of_mos[name] for name in ("batch_size_per_gpu", "crops_per_image")}
        pairs |= batch | keys
        options["datasets"]["train"] = [of_mos, pairs] if beside_mos else pairs
        path.write_text(yaml.safe_dump(options, sort_keys=False))
        return path

    return write


def check_data(option_file):
    opt = preparation.prepare_options(read_options(option_file))
    preparation.take_sizes_from_network(opt)
    return preparation.check_data(opt, None)


def test_loss_is_the_likelihood_of_bradley_and_terry():
    scores = torch.tensor([[0.1, 0.3, 0.5, 0.7], [0.9, 0.7, 0.6, 0.4], [0.0, 1.0, 0.2, 0.1]])
    votes = torch.tensor([[1.0, 3.0], [2.0, 0.0], [0.0, 0.0]])
    chances = [1 / (1 + torch.tensor(gap / 0.2).exp()) for gap in (0.4, -0.3)]  # of the left image
    likelihood = chances[0].log() + 3 * (1 - chances[0]).log() + 2 * chances[1].log()
    torch.testing.assert_close(pair_loss(scores, votes, 0.2), -likelihood / 6)
    assert pair_loss(scores, torch.zeros(3, 2), 0.2) == 0


def test_pairs_have_no_label():
    nothing = torch.zeros(2, dtype=torch.long)
    mos = torch.tensor([[0.5], [float("nan")]])
    votes = torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    labels = Labels(mos, torch.zeros(2, dtype=torch.bool), nothing, nothing, votes, torch.ones(2))
    assert has_label(torch.rand(2, 4), labels).tolist() == [[True] * 4, [False] * 4]


def test_half_of_the_crops_show_each_image(write_pairs, images):
    pairs = check_data(write_pairs(crops_per_image=4))["train"].sources[0]
    table = pd.read_csv("pairs.csv")
    assert len(pairs) == len(table)
    noisier = 0
    for row, (left, right, *votes) in enumerate(table.itertuples(index=False)):
        item = pairs[row, 7]
        assert item["img_path"] == f"{images / left}, {images / right}"
        assert item["votes"].tolist() == votes
        assert item["mos_label"].isnan()
        noise = item["img"].unflatten(0, (2, 2)).std((1, 2, 3, 4))  # (2,) of left, right
        noisier += int(noise.argmin() == torch.tensor(votes).argmax())
    assert noisier > 0.95 * len(table)
    assert torch.equal(pairs[3, 7]["img"], pairs[3, 7]["img"])
    assert not torch.equal(pairs[3, 7]["img"], pairs[3, 8]["img"])
    names = dict.fromkeys(table[["left", "right"]].to_numpy().ravel())
    assert {one.name for one in pairs.images} == names.keys()
    assert len(pairs.images) == len(names)


@pytest.mark.parametrize("turned", [False, True])
def test_pairs_alone_teach_an_order(write_pairs, images, turned):
    """Of images that are in no pair; the opposite one if the votes are the opposite."""
    changes = [*NO_SIDE_LOSS, "train:total_epoch=5", "train:warmup_epochs=1", "train:optim:lr=2e-3"]
    result = launch.train(write_pairs(*changes, turned=turned, drop=("datasets:val",)))
    assert (-1 if turned else 1) * result["srcc"] > 0.8
    losses = pd.read_csv(FOLDER / "curves_losses.csv")
    assert (losses["l_mos"] == 0).all()
    assert losses["l_pairs"][-10:].mean() < 0.5 * losses["l_pairs"][:10].mean()
    learnt = trained_on(resolve(FOLDER / "models/net_latest.safetensors"))
    hits = learnt.hits(digests_of(images / f"{i:03d}.png" for i in range(40)))
    judged = set(pd.read_csv("pairs.csv")[["left", "right"]].to_numpy().ravel())
    assert hits.tolist() == [f"{i:03d}.png" in judged for i in range(40)]


def test_an_interrupted_run_beside_scores_is_the_whole_one(
    write_pairs, train_until, tmp_path, monkeypatch
):
    """Bit for bit; the images of the pairs have scores too."""
    changes = ["train:total_epoch=2", "logger:save_latest_freq=4"]
    option_file = write_pairs(*changes, beside_mos=True, weight=0.5)
    train_until(option_file, 7, lose_last_state)
    assert read_state()["iter"] == 4
    launch.train(option_file, auto_resume=True)
    resumed, curves = read_state(), read_csv(FOLDER / "curves_losses.csv")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/pairs.csv").write_bytes(Path("pairs.csv").read_bytes())
    monkeypatch.chdir(tmp_path / "whole")
    launch.train(option_file)
    assert_same(resumed["network"], read_state()["network"])
    assert curves == read_csv(FOLDER / "curves_losses.csv")
    assert {"l_mos", "l_pairs"} < set(curves[0])


@pytest.mark.parametrize(
    ("keys", "changes", "message"),
    [
        (
            {"crops_per_image": 3},
            (),
            r"pairs\.csv: pairs need an even crops_per_image, half for each image, and no own_scale; got 3 and False",
        ),
        ({"own_scale": True}, (), "and no own_scale; got 2 and True"),
        (
            {},
            ("train:steps_per_batch=2",),
            "steps_per_batch must be 1 with ladder_share or pairs of images, whose crops belong",
        ),
        ({}, ("train:pair_scale=0",), "train:pair_scale must be greater than 0, got 0"),
        ({"phase": "test"}, (), "the pairs of train and test share . images or references"),
        ({"split_index": "mine"}, (), r"pairs\.csv: no column 'mine'"),
        (
            {},
            ("datasets:val:meta_info_file=pairs.csv",),
            r"pairs\.csv: expected a column mos, got \['left', 'right'",
        ),
    ],
)
def test_what_is_refused(write_pairs, keys, changes, message):
    option_file = write_pairs(*changes, **keys)
    with pytest.raises(ValueError, match=message):
        launch.train(option_file)
    assert not Path("experiments/tiny/models/net_latest.safetensors").exists()


def test_own_scales_alone_are_refused(write_options):
    with pytest.raises(ValueError, match="one dataset with scores must be without own_scale"):
        launch.train(write_options("datasets:train:own_scale=true"))
