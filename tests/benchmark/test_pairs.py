"""Datasets of pairs: 2AFC accuracy with a known answer, and the whole command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lifeiqa_plugin.benchmark.accuracy import _note_on_pairs
from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.pairs import AFC, CEILING, measure_pairs

PAIRS = pd.DataFrame(
    [("a", "b", 3.0, 1.0), ("b", "c", 0.0, 2.0), ("c", "d", 1.0, 1.0)],
    columns=["left", "right", "votes_left", "votes_right"],
)


def rows(**scores: float) -> pd.DataFrame:
    return pd.DataFrame({"name": list(scores), "score": list(scores.values())})


@pytest.mark.parametrize(
    ("scores", "direction", "expected", "count"),
    [
        ({"a": 3, "b": 1, "c": 2, "d": 0}, 1, (3 + 2 + 1) / 8, 3),
        ({"a": 3, "b": 1, "c": 2, "d": 0}, -1, (1 + 0 + 1) / 8, 3),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, 1, 0.5, 3),
        ({"a": 3, "b": 1, "c": 2}, 1, 5 / 6, 2),  # d has no score
    ],
)
def test_accuracy_is_the_share_of_votes_for_the_better_score(scores, direction, expected, count):
    afc, ceiling = measure_pairs(PAIRS, rows(**scores), direction, 50)
    assert (afc.statistic, afc.value, afc.n) == (AFC, expected, count)
    assert (ceiling.statistic, ceiling.value) == (
        CEILING,
        (3 + 2 + (1 if count == 3 else 0)) / (8 if count == 3 else 6),
    )
    assert afc.low <= afc.value <= afc.high


def test_nothing_scored_is_no_accuracy():
    for found in measure_pairs(PAIRS, rows(a=1.0), 1, 5):
        assert np.isnan([found.value, found.low, found.high]).all()
        assert found.n == 0


def test_the_interval_narrows_with_pairs():
    many = pd.concat([PAIRS.iloc[:2]] * 200)
    scores = rows(a=3, b=1, c=0)
    few = measure_pairs(PAIRS.iloc[:2], scores, 1, 500)[0]
    found = measure_pairs(many, scores, 1, 500)[0]
    assert found.value == few.value == 0.5
    assert 0.02 < found.high - found.low < 0.2 < few.high - few.low


def test_training_images_are_counted():
    scores, hits = rows(a=3, b=1, c=2, d=0), np.array([False, False, False, True])
    note = _note_on_pairs(PAIRS, scores, hits, 1)
    assert note == "1 of 4 images were trained on: 3 left, 2AFC 0.833 on their 2 pairs"
    assert _note_on_pairs(PAIRS, scores, ~hits, 1).endswith("1 left")
    assert not _note_on_pairs(PAIRS, scores, hits & False, 1)


def test_the_whole_command(images, command):
    lines = [f"{i:02d}.png,{i + 1:02d}.png,{'left' if i < 2 else 'right'}" for i in range(20)]
    Path("votes.csv").write_text("\n".join(["left,right,winner", *lines]))
    data = ["-d", f"votes.csv@{images}", f"{images / 'scores.csv'}@{images}"]
    assert command("--no-speed", *data) == 0
    table = pd.read_csv("out/2afc.csv").set_index("metric")
    assert table.loc["right", ["n", AFC, CEILING]].tolist() == [20, 0.9, 1]
    assert table.loc["lower", AFC] == 0.9  # a lower score is better, and it falls with brightness
    text = Path("out/benchmark.md").read_text()
    assert "Agreement with votes on votes (20 pairs of 21 images, 20 votes)" in text
    assert "votes 2AFC" in text
    assert "scores SRCC" in text
    assert "Agreement with votes" in Path("out/benchmark.html").read_text()


def test_pairs_have_no_split(tmp_path):
    (tmp_path / "votes.csv").write_text("left,right,winner\na,b,a\n")
    with pytest.raises(ValueError, match=r"only is not for a csv of pairs, all of which is taken"):
        find_datasets([f"{tmp_path / 'votes.csv'}@.@official_split"])
