"""Labels that the network cannot give are refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lifeiqa_plugin.datasets.table import check_mos_range
from lifeiqa_plugin.training import launch, preparation
from lifeiqa_plugin.training.options import read_options

NORMALIZED = ("mos_normalize=true", "mos_range=[0, 100]", "lower_better=false")


@pytest.fixture
def raw(images, write_options):
    """The set with the scores that its csv came with, 0 to 100, and the splits of ``meta.csv``."""
    table = pd.read_csv(images / "meta.csv")
    table["mos"] = 100 * table["mos"]
    table.to_csv("raw.csv", index=False)
    return "raw.csv"


@pytest.mark.parametrize("phase", ["train", "val", "test"])
def test_labels_outside_the_score_range_stop_the_run(write_options, raw, phase):
    option_file = write_options(
        "network:score_range=[0, 1]", f"datasets:{phase}:meta_info_file={raw}"
    )
    message = (
        rf"noise-{phase} \(raw\.csv\): mos goes from [\d.]+ to [\d.]+, but the network's scores from 0 \(worst\) to 1 "
        r"\(best\); write the csv with .* mos_normalize: true, mos_range: \[LOW, HIGH\]"
    )
    with pytest.raises(ValueError, match=message):
        launch.train(option_file)
    assert not Path("experiments").exists()


def datasets_of(option_file):
    opt = preparation.prepare_options(read_options(option_file))
    network = preparation.take_sizes_from_network(opt)
    return preparation.check_data(opt, network.score_range), network.score_range


def test_normalised_labels_are_taken(write_options, raw):
    changes = [
        f"datasets:{phase}:{change}"
        for phase in ("train", "val", "test")
        for change in (f"meta_info_file={raw}", *NORMALIZED)
    ]
    datasets, _ = datasets_of(write_options("network:score_range=[0, 1]", *changes))
    assert max(datasets["train"].sources[0].labels) <= 1


def test_a_network_without_limits_takes_any_labels(write_options, raw):
    datasets, score_range = datasets_of(write_options(f"datasets:train:meta_info_file={raw}"))
    assert score_range is None
    assert max(datasets["train"].sources[0].labels) > 1


@pytest.mark.parametrize("mos", [[0.0, 1.0], [0.2], []])
def test_scores_within_the_range(mos):
    check_mos_range(mos, (0, 1), "x.csv")


@pytest.mark.parametrize(
    ("mos", "found"), [([-0.1, 1], "from -0.1 to 1,"), ([2, 3], "from 2 to 3,")]
)
def test_scores_on_either_side_of_the_range(mos, found):
    with pytest.raises(ValueError, match=f"^x.csv: mos goes {found} but"):
        check_mos_range(mos, (0, 1), "x.csv")


@pytest.fixture
def opinions(images, write_options):
    """The set with deviations and numbers of votes, here of the scale 0 to 100 and of that 0 to 1."""
    table = pd.read_csv(images / "meta.csv")
    table["votes"] = [1, 4, 16, 100] * 10
    table["mos_std"] = 0.2
    table.to_csv("opinions.csv", index=False)
    table.assign(mos=100 * table["mos"], mos_std=20).to_csv("raw_opinions.csv", index=False)
    table.assign(votes=["", *table["votes"][1:]]).to_csv("gap.csv", index=False)
    return table


def weighed(meta: str, *more: str) -> list[str]:
    changes = [f"meta_info_file={meta}", "weigh_opinions=0.1", "split_index=null", *more]
    return [f"datasets:train:{change}" for change in changes]


@pytest.mark.parametrize("meta", ["opinions.csv", "raw_opinions.csv"])
def test_a_label_of_many_votes_weighs_more(write_options, opinions, meta):
    normalized = NORMALIZED if meta.startswith("raw") else ()
    drop = ("datasets:val", "val", "datasets:test")
    mixture = datasets_of(write_options(*weighed(meta, *normalized), drop=drop))[0]["train"]
    expected = 1 / (0.1**2 + 0.2**2 / opinions["votes"])
    weights = [mixture[row, 0]["weight"] for row in range(len(mixture))]
    assert weights == pytest.approx(list(expected / expected.mean()))
    assert max(weights) > 4 * min(weights)


def test_labels_weigh_the_same_by_default(write_options, opinions):
    options = write_options("datasets:train:meta_info_file=opinions.csv")
    assert set(datasets_of(options)[0]["train"].sources[0].weights) == {1.0}


@pytest.mark.parametrize("meta", ["gap.csv", "meta.csv"])
def test_weights_need_all_numbers(write_options, images, opinions, meta):
    path = images / meta if meta == "meta.csv" else meta
    with pytest.raises(
        ValueError, match=rf"{meta}: weigh_opinions needs a number in each row of mos_std and votes"
    ):
        launch.train(write_options(*weighed(path, "split_index=1")))
