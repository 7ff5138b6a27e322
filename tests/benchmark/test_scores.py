"""Kept scores: only what is missing is computed, nothing is mixed, failures have names, interrupts lose none."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.metrics import Builder, find_metrics
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.benchmark.scores import GIVE_UP, NOT_SCORED, Store, compute, score_metric


@pytest.fixture
def world(metric_file, images, tmp_path):
    """A store, the metrics by name, and the set."""
    metrics = {c.name: c for c in find_metrics([], read_option_file(metric_file).entries)}
    return (
        open_store(tmp_path / "scores", *metrics.values()),
        metrics,
        find_datasets([str(images / "scores.csv")]),
    )


def open_store(folder, *metrics) -> Store:
    return Store(folder, {metric.name: metric.description for metric in metrics})


def score(world, name: str) -> None:
    store, metrics, sets = world
    score_metric(store, Builder(), metrics[name], sets)


def test_scores_are_those_of_the_metric_and_are_computed_once(world, stubs):
    score(world, "right")
    assert len(stubs.calls) == 24
    kept = world[0].read("right", "scores")
    assert list(kept) == [p.name for p in world[2][0].images]
    np.testing.assert_allclose([s.score for s in kept.values()], np.float32(stubs.calls), rtol=1e-6)
    score(world, "right")
    assert len(stubs.calls) == 24


def test_a_score_that_was_cut_off_is_computed_again(world, stubs):
    score(world, "right")
    path = world[0].path("right", "scores")
    whole = path.read_text()
    path.write_text(whole[:-9])
    score(world, "right")
    assert len(stubs.calls) == 25
    assert path.read_text() == whole


def test_an_interruption_keeps_what_is_done(world, stubs, monkeypatch):
    monkeypatch.setattr(stubs, "interrupt_after", 7)
    with pytest.raises(KeyboardInterrupt):
        score(world, "right")
    assert len(world[0].read("right", "scores")) == 7
    monkeypatch.setattr(stubs, "interrupt_after", 10**9)
    score(world, "right")
    assert len(stubs.calls) == 24
    assert len(world[0].read("right", "scores")) == 24


def test_failures_have_names_and_are_tried_again(world, stubs):
    score(world, "dark")
    kept = world[0].read("dark", "scores")
    failed = {name: s.error for name, s in kept.items() if s.error}
    assert set(failed) == {f"0{i}.png" for i in range(5)}
    assert set(failed.values()) == {"ValueError: too dark"}
    score(world, "dark")
    assert len(stubs.calls) == 24 + 5


def test_a_metric_that_only_fails_is_given_up(world, stubs, capsys):
    store, metrics, sets = world
    metrics["right"].options["nan"] = True
    score_metric(store, Builder(), metrics["right"], sets)
    assert len(stubs.calls) == GIVE_UP
    assert f"the first {GIVE_UP} images failed" in capsys.readouterr().out
    table = open_store(store.folder, metrics["right"]).table(sets)
    assert list(table["error"].value_counts()[["the score is nan", NOT_SCORED]]) == [
        GIVE_UP,
        24 - GIVE_UP,
    ]


def test_scores_of_other_options_or_weights_are_never_mixed(world, stubs):
    score(world, "right")
    store, metrics, _ = world
    other = replace(metrics["right"], options=metrics["right"].options | {"gain": 3.0})
    message = r"scores/right were computed with gain none, now 3\.0; delete the folder .*/right or give another -o"
    with pytest.raises(ValueError, match=message):
        open_store(store.folder, other).check(world[2])
    store.path("right", "scores").write_text("name,score,error\n")
    store.describe("right", weights="of another network")
    with pytest.raises(ValueError, match="computed with other weights; delete"):
        score(world, "right")


def test_scores_of_a_changed_checkpoint_are_not_taken(world, tmp_path):
    def opened(weights: Path) -> Store:
        options = metrics["right"].options | {"pretrained_model_path": str(weights)}
        return open_store(store.folder, replace(metrics["right"], options=options))

    store, metrics, sets = world
    weights, moved = tmp_path / "w.pth", tmp_path / "moved.pth"
    weights.write_bytes(b"1")
    opened(weights).describe("right", weights="1234")
    store.path("right", "scores").write_text("name,score,error\n00.png,0.5,\n")
    opened(weights).check(sets)
    weights.rename(moved)
    opened(moved).check(sets)
    moved.write_bytes(b"22")
    with pytest.raises(
        ValueError, match=r"computed with weights sha256 6b86b273ff34\.\.\., now 785f"
    ):
        opened(moved).check(sets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("labels", r"right/scores\.csv were computed with csv sha256 .*; delete this file or give"),
        ("folder", r"right/scores\.csv were computed with root .*photos, now .*other; delete this"),
        ("version", r"scores/right were computed with pyiqa .*, now 9; delete the folder"),
    ],
)
def test_scores_of_other_images_or_versions_are_not_taken(
    world, images, tmp_path, monkeypatch, change, message
):
    score(world, "right")
    store, metrics, _ = world
    path, root = tmp_path / "scores.csv", images
    text = (images / "scores.csv").read_text()
    path.write_text(text.replace("test", "val") if change == "labels" else text)
    if change == "folder":
        root = tmp_path / "other"
        root.mkdir()
    if change == "version":
        monkeypatch.setattr("lifeiqa_plugin.benchmark.metrics.host_version", lambda: "9")
    with pytest.raises(ValueError, match=message):
        open_store(store.folder, replace(metrics["right"])).check(find_datasets([f"{path}@{root}"]))


def test_untrained_metrics_get_no_scores(world, stubs):
    score(world, "weightless")
    assert stubs.calls == []
    assert world[0].untrained() == {"weightless": "untrained, no weights: OSError: no network"}


def test_kept_scores_survive_the_loss_of_the_weights(world, monkeypatch):
    store, _, _ = world
    store.describe("weightless", weights="1234")
    store.path("weightless", "scores").write_text("name,score,error\n00.png,0.5,\n")
    with pytest.raises(
        ValueError, match="23 images have no score yet, and the metric has no weights: OSError"
    ):
        score(world, "weightless")
    assert store.about("weightless")["weights"] == "1234"


def test_references_are_given_to_those_who_need_them(world, tmp_path):
    store, metrics, _ = world
    score(world, "paired")
    kept = store.read("paired", "scores")
    assert -1 < kept["00.png"].score < kept["23.png"].score < 0
    (tmp_path / "scores.csv").write_text("name,mos\na.png,1\n")
    sets = find_datasets([str(tmp_path / "scores.csv")])
    score_metric(open_store(tmp_path / "none"), Builder(), metrics["paired"], sets)
    assert not (tmp_path / "none").exists()


def test_random_metrics_repeat_and_leave_the_process_its_own_numbers():
    import torch

    def dice(x: torch.Tensor) -> torch.Tensor:
        return torch.rand(1) + np.random.rand()

    x = [torch.zeros(1)]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert compute(dice, x, "a") == compute(dice, x, "a") != compute(dice, x, "b")
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected


@pytest.mark.parametrize(
    ("output", "error"),
    [(float("inf"), "the score is inf"), ([1.0, 2.0], "ValueError: only one element")],
)
def test_only_one_finite_number_is_a_score(output, error):
    import torch

    found = compute(lambda x: torch.tensor(output), [torch.zeros(1)], "a")
    assert found.error.startswith(error)
    assert np.isnan(found.score)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metric.json", "{"),
        ("metric.json", "[1]"),
        ("scores.csv", "name,score,error\n00.png,zero,\n"),
        ("scores.csv", "name,score,error\n00.png\n"),
        ("scores.csv", "name;score\n"),
        ("scores.csv", b"name,score,error\n\xff\xfe,1,\n"),
    ],
)
def test_a_damaged_file_is_named(world, file, text):
    score(world, "right")
    path = world[0].folder / "right" / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    advice = (
        rf"scores/right/{file}: damaged .*; delete the folder .*scores/right or give another -o"
    )
    with pytest.raises(ValueError, match=advice):
        score(world, "right")
