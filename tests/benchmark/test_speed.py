"""The protocol of cost: what is counted, in which order, and what is kept."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lifeiqa_plugin.benchmark import speed
from lifeiqa_plugin.benchmark.memory import memory_left, own_peak, peak_memory
from lifeiqa_plugin.benchmark.metrics import Builder, MetricSpec, find_metrics
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.benchmark.protocol import Protocol, make_inputs, parse_size
from lifeiqa_plugin.benchmark.speed import COLUMNS, measure_speed, read_speed, time_in_turn

SMALL = Protocol(sizes=((32, 24), (64, 48)), rounds=3, batch=2, memory=False)


def test_rounds_are_interleaved_and_slow_ones_come_once():
    calls: list[str] = []
    functions = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    seconds = time_in_turn(functions, 3, once={"b"})
    assert "".join(calls) == "abcacac"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 1, "c": 3}


def test_inputs():
    (image,) = make_inputs("NR", (40, 30), 2, "cpu")
    assert image.shape == (2, 3, 30, 40)
    assert 0 <= image.min() < image.max() <= 1
    assert len(make_inputs("FR", (40, 30), 1, "cpu")) == 2


def test_multiply_adds_of_known_layers():
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 48, 5),
    )
    attention = torch.nn.MultiheadAttention(16, 4, batch_first=True).eval()
    x, tokens = torch.rand(1, 3, 6, 8), torch.rand(1, 10, 16)

    def run() -> None:
        with torch.no_grad():
            layers(x)
            attention(tokens, tokens, tokens, need_weights=False)

    expected = (
        48 * 27 * 8 + 8 * 48 * 5 + 10 * 16 * 16 * 4 + 2 * 10 * 10 * 16
    )  # two products of attention, four layers
    assert speed._warm_up(run, "cpu")[0] == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_every_line_has_its_conditions_and_one_failure_stops_nobody(metric_file, tmp_path):
    specs = find_metrics(["entropy"], read_option_file(metric_file).entries)
    path = tmp_path / "efficiency.csv"
    measure_speed(Builder(), specs, SMALL, ["cpu"], path)
    table = read_speed(path, specs)
    assert list(table) == list(COLUMNS)
    assert len(table) == 2 * len(specs)
    assert (
        table[["device", "dtype", "torch", "threads", "size", "batch", "rounds"]]
        .notna()
        .all(axis=None)
    )
    lines = table[table["size"] == "64x48"].set_index("metric")
    assert "NoSuchArch" in lines.loc["broken", "note"]
    assert np.isnan(lines.loc["broken", "seconds"])
    assert lines.loc["weightless", "weights"] == "untrained"
    good = lines.drop("broken")
    assert (good["seconds_q1"] <= good["seconds"]).all()
    assert (good["seconds"] <= good["seconds_q3"]).all()
    assert (good["images_per_second"] > 0).all()
    assert lines.loc["right", "parameters"] == 1


def test_what_is_measured_is_kept_unless_metrics_or_rounds_differ(
    metric_file, tmp_path, monkeypatch
):
    specs, path, sizes = (
        find_metrics([], read_option_file(metric_file).entries),
        tmp_path / "efficiency.csv",
        [],
    )
    real = speed._measure_size
    monkeypatch.setattr(speed, "_measure_size", lambda *a: sizes.append(a[2]) or real(*a))
    measure_speed(Builder(), specs[:2], SMALL, ["cpu"], path)
    measure_speed(Builder(), specs[:2], SMALL, ["cpu"], path)
    assert sizes == [(32, 24), (64, 48)]
    measure_speed(Builder(), specs[:1], SMALL, ["cpu"], path)
    assert len(sizes) == 2
    measure_speed(Builder(), specs[:3], Protocol(((64, 48),), 3, 2, memory=False), ["cpu"], path)
    assert sizes[2:] == [(64, 48)]
    measure_speed(Builder(), specs[:3], Protocol(((64, 48),), 2, 2, memory=False), ["cpu"], path)
    assert len(sizes) == 4
    other = replace(specs[0], options=specs[0].options | {"gain": 2.0})
    for batch, first in ((3, specs[0]), (3, other)):
        protocol = Protocol(((64, 48),), 2, batch, memory=False)
        measure_speed(Builder(), [first, *specs[1:3]], protocol, ["cpu"], path)
    assert len(sizes) == 6
    assert set(read_speed(path, [other])["metric"]) == {"right"}
    assert read_speed(path, [specs[0]])["size"].tolist() == ["32x24"]  # at the other, of a new gain
    pd.read_csv(path).drop(columns="metric_sha256").to_csv(path, index=False)  # of earlier versions
    measure_speed(Builder(), [other, *specs[1:3]], protocol, ["cpu"], path)
    assert len(sizes) == 7
    kept = pd.read_csv(path)
    assert not kept.duplicated(["metric", "size"]).any()
    assert len(kept) == 2 + 3


def test_slow_metrics_are_timed_once_and_not_in_batches(metric_file, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SLOW", 0.0)
    specs = find_metrics([], read_option_file(metric_file).entries)[:1]
    protocol = Protocol(((32, 24),), 3, 2, memory=False)
    measure_speed(Builder(), specs, protocol, ["cpu"], tmp_path / "e.csv")
    (line,) = read_speed(tmp_path / "e.csv", specs).to_dict("records")
    assert (line["rounds"], line["note"]) == (1, "timed once, as slow")
    assert line["seconds"] == line["seconds_q1"] == line["seconds_q3"] > 0
    assert np.isnan(line["images_per_second"])


def test_what_does_not_fit_into_memory_is_not_run(metric_file, tmp_path, monkeypatch, stubs):
    monkeypatch.setattr(
        "lifeiqa_plugin.benchmark.memory.peak_memory",
        lambda spec, sizes, modules: dict.fromkeys(sizes, "exit status -9: killed"),
    )
    specs = find_metrics([], read_option_file(metric_file).entries)[:1]
    measure_speed(Builder(), specs, Protocol(((32, 24),), 3, 2), ["cpu"], tmp_path / "e.csv")
    assert read_speed(tmp_path / "e.csv", specs)["note"].tolist() == ["exit status -9: killed"]
    assert stubs.calls == []


@pytest.mark.slow
def test_peak_memory_of_a_process_of_its_own():
    found = peak_memory(MetricSpec("psnr", "FR", False, {"type": "PSNR"}), [(32, 24), (2000, 2000)])
    small, large = found.values()
    assert 0.1 < small < large < 8
    assert large - small > 2000 * 2000 * 3 * 4 / 1024**3


def test_peak_memory_that_cannot_be_measured_says_why(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    found = peak_memory(MetricSpec("entropy", "NR", False, {"type": "Entropy"}), [(32, 24)])
    assert found == {(32, 24): "exit status 1: no message"}


def test_memory_of_this_process():
    assert 0.05 < own_peak() < 64
    left = memory_left()
    if sys.platform == "linux":
        assert left > 2**20
    else:
        assert left is None


@pytest.mark.parametrize("text", ["metric,weights\n", "", "a\nb,c,d\n"])
def test_a_damaged_table_is_named(text, metric_file, tmp_path):
    path = tmp_path / "efficiency.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"efficiency\.csv: damaged \(.*\); delete it"):
        read_speed(path, find_metrics([], read_option_file(metric_file).entries))


@pytest.mark.parametrize("text", ["1080x", "0x5", "-1x5", "1080x800x3"])
def test_bad_sizes(text):
    with pytest.raises(
        ValueError, match=rf"--sizes takes WIDTHxHEIGHT, for example 1080x800, got '{text}'"
    ):
        parse_size(text)


def test_size():
    assert parse_size("4000x3000") == (4000, 3000)
