"""A metric that was trained on some of the images: marked, counted, measured on the others, and not ranked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from lifeiqa_plugin.benchmark.accuracy import evaluate
from lifeiqa_plugin.benchmark.contamination import mark_trained_on
from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.metrics import find_metrics
from lifeiqa_plugin.benchmark.scores import Store
from lifeiqa_plugin.benchmark.tables import accuracy_table, significance_table, summary_table
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.datasets.trained_on import TrainedOn, digests_of


@pytest.fixture
def specs(images, tmp_path, monkeypatch):
    """Two checkpoints that were trained on images 0 to 8 and 7 and 8, and the bundled model."""
    monkeypatch.chdir(tmp_path)
    network = build_lifeiqa(
        pretrained=False, backbone="test_convnext", embed_dim=16, num_heads=2, depth=1, crop_size=32
    )
    Path("runs").mkdir()
    for name, rows in (("first", range(9)), ("second", (7, 8))):
        learnt = TrainedOn.build(digests_of(images / f"{i:02d}.png" for i in rows))
        save_checkpoint(
            network, f"runs/{name}.safetensors", ModelCard("", ""), trained_on=learnt.to_text()
        )
    return find_metrics(["runs/first.safetensors", "runs/second.safetensors", "lifeiqa"])


def empty_table(specs, datasets):
    """Return the table of scores, without any."""
    return Store(Path("scores"), {spec.name: spec.description for spec in specs}).table(datasets)


@pytest.fixture
def results(specs, images):
    """Their statistics on one dataset, of scores that are noise."""
    names = [spec.name for spec in specs]
    assert names == ["runs-first", "runs-second", "lifeiqa"]
    datasets = mark_trained_on(find_datasets([str(images / "scores.csv")]), specs)
    table = empty_table(specs, datasets)
    noise = np.random.default_rng(0).normal(0, 0.2, len(table))
    (found,) = evaluate(table.assign(score=table["mos"] + noise, error=""), specs, datasets, {}, 0)
    return found


def test_images_are_marked(specs, images):
    (dataset,) = mark_trained_on(find_datasets([str(images / "scores.csv")]), specs)
    marks = [image.groups["trained_on"] for image in dataset.images]
    assert marks == ["runs-first"] * 7 + ["runs-first and runs-second"] * 2 + ["none"] * 15
    words = "all 24 rows; 9 trained on by runs-first; 2 trained on by runs-second"
    assert dataset.rows == words
    assert dataset.images[0].groups["subset"] == "even"  # what it had before stays


def test_nothing_changes_where_nothing_was_learnt(specs, images):
    datasets = find_datasets([str(images / "scores.csv")])
    assert mark_trained_on(datasets, specs[2:]) == datasets


def test_both_numbers_stand_in_the_table(results):
    table = accuracy_table(results)
    notes = {row[0]: row[-1] for row in table.rows}
    assert notes["runs-first"].startswith("9 of 24 images were trained on: 15 left, SRCC 0.")
    assert notes["runs-second"].startswith("2 of 24 images were trained on: 22 left, SRCC 0.")
    assert notes["lifeiqa"] == ""
    assert "9 trained on by runs-first" in table.caption
    groups = results.numbers[results.numbers["column"] == "trained_on"]
    assert set(groups["group"]) == {"none", "runs-first"}  # two images are no group
    assert set(groups["n"][groups["group"] == "none"]) == {15}


def test_the_number_in_the_note_is_of_the_images_left(specs, images):
    (dataset,) = mark_trained_on(find_datasets([str(images / "scores.csv")]), specs)
    table = empty_table(specs[:1], [dataset])
    scores = np.random.default_rng(1).random(24)
    (found,) = evaluate(table.assign(score=scores, error=""), specs[:1], [dataset], {}, 0)
    srcc = spearmanr(scores[9:], table["mos"][9:]).statistic
    assert found.status["note"].iloc[0].endswith(f"15 left, SRCC {srcc:.3f}")


def test_comparisons_are_of_images_that_nobody_was_trained_on(results):
    assert list(results.pairs["n"]) == [15, 15, 15]
    caption = significance_table(results).caption
    assert "all on the same 15 images, without those that a metric was trained on" in caption


def test_no_rank_for_a_metric_that_was_trained_on_some(specs, images, tmp_path):
    again = tmp_path / "again.csv"
    again.write_text((images / "scores.csv").read_text())
    items = [str(images / "scores.csv"), f"{again}@{images}"]
    datasets = mark_trained_on(find_datasets(items), specs)
    table = empty_table(specs, datasets)
    found = evaluate(table.assign(score=table["mos"], error=""), specs, datasets, {}, 0)
    summary = summary_table(found, intervals=False)
    assert [row[1] for row in summary.rows] == ["1.000*", "1.000*", "1.000"]
    assert summary.marks == {}  # one metric alone is no best
    assert summary.caption.endswith("* was trained on some of these images, and is not ranked")
