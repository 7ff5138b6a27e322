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
