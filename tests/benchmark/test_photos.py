"""Ladders and stability of clean photos, as datasets of their own kind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from lifeiqa_plugin import cli
from lifeiqa_plugin.benchmark import photos
from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.metrics import find_metrics, name_checkpoint
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED, build_ladder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Write two smooth photos, one of them in a folder below."""
    folder = tmp_path / "clean"
    (folder / "b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b/a.png"):
        tiny = Image.fromarray(rng.integers(60, 200, (4, 5, 3), dtype=np.uint8))
        tiny.resize((50, 40), Image.Resampling.BICUBIC).save(folder / name)
    return folder


def entry(path: Path, **options: object) -> Path:
    path.write_text(yaml.safe_dump({"photos": options}))
    return path


@pytest.mark.parametrize(
    "key", ["levels", "ladders"]
)  # the second as versions before 0.2 called it
def test_levels_are_those_of_training(clean, tmp_path, key):
    options = entry(tmp_path / "d.yml", **{key: str(clean)}, side=32, seed=3)
    (found,) = find_datasets([], read_option_file(options).entries)
    assert found.kind == "levels"
    assert found.rows == "2 photos, shorter side at most 32, seed 3"
    kinds = TRAINED | HELD_OUT
    assert len(found.images) == 2 * (1 + 5 * len(kinds))
    assert len({image.name for image in found.images}) == len(found.images)
    rows = [row for row, image in enumerate(found.images) if "b/a.png|noise" in image.name]
    (image,) = found.read(0, False)
    assert image.shape == (3, 32, 40)
    clean_photo = photos.read_reduced(str(clean / "b/a.png"), 32)
    expected = build_ladder(clean_photo, kinds["noise"], list(photos.SEVERITIES), 3)[1:]
    for row, level in zip(rows, expected, strict=True):
        assert torch.equal(found.read(row, False)[0], level)


def test_scores_fall_only_if_every_step_does():
    scores = np.array([[3, 2, 1], [3, 3, 1], [1, 2, 3], [3, 1, 2]])
    assert photos.falls(scores).tolist() == [True, False, False, False]


def test_shares_of_photos_that_fall():
    rows = []
    for photo in ("p", "q"):
        rows.append((photo, "clean", "0", 10.0))
        for kind in TRAINED | HELD_OUT:
            for level in range(1, 6):
                falls = kind != "noise" and not (kind == "haze" and photo == "q")
                rows.append((photo, kind, str(level), 10.0 + (-level if falls else level)))
    rows.append(("incomplete", "clean", "0", 10.0))
    frame = pd.DataFrame(rows, columns=["photo", "distortion", "degree", "score"])
    found = {(one.group, one.statistic): one for one in photos.measure_levels(frame, 1.0, 50)}
    assert found["noise", "falling"].value == found["noise", "steps_falling"].value == 0
    assert (found["haze", "falling"].value, found["haze", "falling"].n) == (0.5, 2)
    assert [found["blur", f"mean_{level}"].value for level in range(6)] == [10, 9, 8, 7, 6, 5]
    held_out = found["", "falling_held_out"]
    assert found["", "falling_trained"].value == pytest.approx(1 - 1 / len(TRAINED))
    assert held_out.value == pytest.approx(1 - 0.5 / len(HELD_OUT))
    assert held_out.low < held_out.value < held_out.high
    turned = {(one.group, one.statistic): one for one in photos.measure_levels(frame, -1.0, 5)}
    assert turned["", "falling_trained"].value == pytest.approx(1 / len(TRAINED))
    assert turned["blur", "mean_5"].value == 5


@pytest.mark.parametrize("rows", [[], [("p", "clean", "0", 1.0)]])
def test_photos_that_are_not_scored_to_the_end_count_for_nothing(rows):
    levels = pd.DataFrame(rows, columns=["photo", "distortion", "degree", "score"])
    changes = levels.rename(columns={"distortion": "change"})
    found = photos.measure_levels(levels, 1.0, 5) + photos.measure_stability(changes, 5)
    assert {one.n for one in found} == {0}
    assert np.isnan([one.value for one in found]).all()
    assert len(found) == 2 * len(TRAINED | HELD_OUT) + 2 + 2 * len(photos.CHANGES) + 1


def test_changes_that_nobody_sees_are_small():
    x = torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(0))
    for name, change in photos.CHANGES.items():
        assert change(x).mean().item() == pytest.approx(x.mean().item(), abs=0.01), name
    assert torch.equal(photos.mirror(x)[:, :, 0], x[:, :, -1])
    assert torch.equal(photos.shift_by_a_pixel(x)[:, 1:, 1:], x[:, :-1, :-1])
    assert (photos.round_to_8_bits(x) - x).abs().max() <= 0.5 / 255 + 1e-6
    assert photos.scale_by_1_percent(torch.rand(3, 100, 200)).shape == (3, 101, 202)


def test_stability_is_the_mean_absolute_move():
    rows = []
    for photo, score in (("p", 1.0), ("q", 3.0)):
        rows.append((photo, "clean", score))
        rows += [
            (photo, change, score + (0.5 if change == "mirror" else 0)) for change in photos.CHANGES
        ]
    frame = pd.DataFrame(rows, columns=["photo", "change", "score"])
    found = {(one.group, one.statistic): one.value for one in photos.measure_stability(frame, 5)}
    assert found["mirror", "move"] == found["mirror", "move_of_spread"] == 0.5
    assert found["8 bits", "move"] == 0
    assert found["", "largest_move_of_spread"] == 0.5


def test_the_whole_command_on_photos_and_a_csv(clean, images, metric_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {
        "falling": {"levels": str(clean), "side": 24},
        "still": {"stability": str(clean), "count": 1},
        "people": {
            "csv": str(images / "scores.csv"), "root": str(images), "within": "subset",
            "without": {"official_split": "train"}, "optional": True,
        },
        "elsewhere": {"csv": "not/here.csv", "optional": True},
    }  # fmt: skip
    Path("cross.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    Path("m.yml").write_text(
        "right: {metric_mode: NR, metric_opts: {type: StubBrightness}}\n"
        "dark: {metric_mode: NR, metric_opts: {type: StubBrightness, dark_fails: true}}"
    )
    arguments = ["--metric-opt", "m.yml", "--data-opt", "cross.yml", "-o", "out", "--no-speed"]
    assert cli.main(["benchmark", *arguments, "--samples", "9"]) == 0
    text = Path("out/benchmark.md").read_text()
    assert "people: 20 rows, without official_split train" in text
    assert "falling: 2 photos, shorter side at most 24, seed 0" in text
    counts = re.findall(r"^\| *(right|dark) *\| *all trained .*\| *(\d+) *\|$", text, re.MULTILINE)
    assert counts == [("right", "2"), ("dark", "0")]  # each of its own photos
    table = pd.read_csv("out/levels.csv")
    table = table[table["metric"] == "right"].set_index("distortion")
    assert table.loc["darken", "falling"] == 1  # the stub's score is brightness
    assert table.loc["brighten", "falling"] == 0
    moves = pd.read_csv("out/stability.csv")
    moves = moves[moves["metric"] == "right"].set_index("change")
    assert moves.loc["mirror", "move"] < 1e-6
    within = pd.read_csv("out/accuracy.csv")
    within = within[within["metric"] == "right"].set_index("dataset")["srcc_within"]
    assert within["people"] > 0.9
    assert np.isnan(within["falling"])
    assert "falling trained kinds that fall, %" in text


def test_what_is_optional_and_missing_is_left_out_with_a_note(tmp_path, capsys):
    path = tmp_path / "d.yml"
    path.write_text(
        "far: {csv: none.csv, optional: true}\nphotos: {ladders: nowhere, optional: true}"
    )
    assert find_datasets([], read_option_file(path).entries) == []
    error = capsys.readouterr().err
    assert "far is left out: dataset far: none.csv: no such file or folder" in error
    assert "photos is left out: dataset photos: nowhere: no such folder" in error
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        find_datasets(["far"], read_option_file(path).entries)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{csv: CSV, onyl: {a: b}}", "unknown key 'onyl'; did you mean 'only'"),
        ("{levels: FOLDER, sides: 3}", "unknown key 'sides'; did you mean 'side'"),
        (
            "{csv: CSV, only: {official_split: tset}}",
            "0 rows, with official_split tset; official_split has test, train",
        ),
        ("{csv: CSV, only: {halb: A}}", "no column 'halb'"),
        ("{csv: CSV, within: camera}", "--by camera: no such column"),
    ],
)
def test_bad_entries(options, message, images, tmp_path):
    options = options.replace("CSV", str(images / "scores.csv")).replace("FOLDER", str(images))
    (tmp_path / "d.yml").write_text(f"a: {options}")
    with pytest.raises(ValueError, match=message):
        find_datasets([], read_option_file(tmp_path / "d.yml").entries)


@pytest.mark.parametrize(("name", "count"), [("cross.yml", 7), ("closed.yml", 9)])
def test_shipped_datasets_are_valid_wherever_they_are_looked_for(
    name, count, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    assert find_datasets([], read_option_file(ROOT / "options" / "benchmark" / name).entries) == []
    assert capsys.readouterr().err.count("is left out") == count


def test_checkpoints_are_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("run1", "run 2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net_best.safetensors").touch()
    found = find_metrics(["run1/net_best.safetensors", "run 2/net_best.safetensors", "lifeiqa"])
    assert [one.name for one in found] == ["run1-net_best", "run_2-net_best", "lifeiqa"]
    assert found[0].options["pretrained_model_path"] == "run1/net_best.safetensors"
    with pytest.raises(
        FileNotFoundError, match=r"'x\.safetensors' is neither a file nor a bundled model"
    ):
        find_metrics(["x.safetensors"])
    for run in ("a", "b"):
        (tmp_path / run / "models").mkdir(parents=True)
        (tmp_path / run / "models" / "net_best.pth").touch()
    named = find_metrics(["a/models/net_best.pth", "b/models/net_best.pth"])
    assert [one.name for one in named] == ["a-net_best", "b-net_best"]
    assert name_checkpoint(Path("x/a/n.pt"), [Path("y/a/n.pt")]) == "x-a-n"
    assert name_checkpoint(Path("x/n.pt"), [Path("y/n.pt")]) == "x-n"
    (tmp_path / "run_2").mkdir()
    (tmp_path / "run_2" / "net_best.safetensors").touch()
    with pytest.raises(ValueError, match="metric 'run_2-net_best' comes twice"):
        find_metrics(["run_2/net_best.safetensors", "run 2/net_best.safetensors"])
