from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "measuring")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script by its name, as Python finds it when it is run."""
    for folder in ("examples", "tools", "benchmarks"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module


@pytest.fixture
def photo() -> Image.Image:
    with Image.open(ROOT / "examples" / "photos" / "chelsea_0_clean.jpg") as picture:
        return picture.resize((225, 150))


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def test_time_in_turn_interleaves_rounds_after_one_untimed_call(load):
    calls: list[str] = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = load("measuring").time_in_turn(functions, rounds=2, repeats=2)
    assert "".join(calls) == "ab" + 2 * "aabb"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_medians_and_tables(load):
    measuring = load("measuring")
    assert measuring.median_and_quartiles([5.0, 1.0, 2.0, 4.0, 3.0], 1) == "3.0 (2.0 - 4.0)"
    assert measuring.median_and_quartiles([0.25]) == "0.250"
    assert measuring.median_ratio([2.0, 9.0, 40.0], [1.0, 3.0, 10.0]) == 3.0
    assert measuring.markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_missing_weights_are_named(load, monkeypatch, tmp_path):
    measuring = load("measuring")
    monkeypatch.setattr(measuring.weights, "BUNDLED", tmp_path / "none.safetensors")
    with pytest.raises(SystemExit, match=r"none\.safetensors: missing; give --checkpoint FILE, or --untrained"):
        measuring.create_lifeiqa(argparse.Namespace(untrained=False, checkpoint=None))


def test_scatters_agree_with_a_loop(load):
    scatter = load("scatter")
    index = torch.tensor([0, 0, 1, 2, 2, 2])
    messages = torch.rand(2, 6, 4)
    expected = torch.stack([messages[:, index == node].sum(1) for node in range(4)], dim=1)
    ways = scatter.scatters(index, 4)
    assert "index_add_" in ways
    for name, way in ways.items():
        torch.testing.assert_close(way(messages), expected, msg=name)


def test_peak_memory_units(load, monkeypatch):
    memory = load("memory")
    monkeypatch.setattr(sys, "platform", "linux")
    assert memory.gibibytes(3 * 1024**2) == 3
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.gibibytes(3 * 1024**3) == 3


def test_split_is_read_with_odd_case_and_empty_columns(load, tmp_path):
    (tmp_path / "Images").mkdir()
    for name in ("ss01 (1).jpg", "SS02 (2).JPG"):
        (tmp_path / "Images" / name).touch()
    (tmp_path / "Test (Images and MOS).csv").write_text(
        "Image Name,MOS,,\nss02 (2).jpg,0.25,,\nss01 (1).jpg,0.5,,\n", encoding="utf-8"
    )
    pairs = load("biq2021").read_split(tmp_path, "Test")
    assert [(path.name, mos) for path, mos in pairs] == [("SS02 (2).JPG", 0.25), ("ss01 (1).jpg", 0.5)]


def test_subset_rows_ignore_case(load):
    names = ["ss01 (1).jpg", "SS02 (2).JPG", "ss01 (3).jpg"]
    assert load("biq2021").subset_rows(names, "ss01").tolist() == [0, 2]
    assert load("biq2021").subset_rows(names, "ss02").tolist() == [1]


def test_agreement_has_closed_forms(load):
    mos = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(load("biq2021").agreement(mos + 0.5, mos), [1, 1, 1, 0.5])
    np.testing.assert_allclose(load("biq2021").agreement(-mos, mos)[:3], -1)


def test_bootstrap_is_seeded_and_encloses_the_value(load):
    biq2021 = load("biq2021")
    rng = np.random.default_rng(0)
    mos = rng.random(60)
    scores = mos + rng.normal(0, 0.2, 60)
    low, high = biq2021.bootstrap_interval(scores, mos, samples=50, seed=3)
    value = biq2021.agreement(scores, mos)
    assert (low < value).all()
    assert (value < high).all()
    np.testing.assert_array_equal(biq2021.bootstrap_interval(scores, mos, samples=50, seed=3), (low, high))
    assert (biq2021.bootstrap_interval(scores, mos, samples=50, seed=4)[0] != low).any()


def test_ladder_falls_only_if_every_step_does(load):
    scores = np.array([[3, 2, 1], [3, 3, 1], [1, 2, 3], [3, 1, 2]])
    assert load("ladders").falls(scores).tolist() == [True, False, False, False]


def test_best_pictures_of_the_test_part(load, tmp_path):
    rows = [("a.png", 0.9, "train"), ("b.png", 0.5, "test"), ("c.png", 0.7, "test"), ("d.png", 0.1, "test")]
    lines = "".join(f"{name},{mos},{phase}\n" for name, mos, phase in rows)
    (tmp_path / "meta.csv").write_text("name,mos,official_split\n" + lines)
    best = load("ladders").find_best(tmp_path, tmp_path / "meta.csv", 2)
    assert best == [tmp_path / "c.png", tmp_path / "b.png"]


def test_clean_photos_are_found(load, photo, tmp_path):
    ladders = load("ladders")
    with pytest.raises(SystemExit, match="no pictures"):
        ladders.find_photos(tmp_path)
    (tmp_path / "notes.txt").touch()
    for name in ("b.png", "a.jpg"):
        photo.save(tmp_path / name)
    assert [path.name for path in ladders.find_photos(tmp_path)] == ["a.jpg", "b.png"]
    photo.save(tmp_path / "c_0_clean.png")
    assert [path.name for path in ladders.find_photos(tmp_path)] == ["c_0_clean.png"]


def test_distorted_examples_can_be_made_anew(load, monkeypatch, tmp_path):
    make_distorted = load("make_distorted")
    monkeypatch.setattr(sys, "argv", ["make_distorted.py", "--out", str(tmp_path)])
    make_distorted.main()
    made = {path.name for path in tmp_path.iterdir()}
    shipped = {path.name for path in make_distorted.PHOTOS.iterdir()}
    assert len(made) == 15
    assert made | {f"{name}_0_clean.jpg" for name in make_distorted.DEGREES} == shipped
    for name in made:  # one gray level for other versions of the JPEG library
        assert difference(Image.open(tmp_path / name), Image.open(make_distorted.PHOTOS / name)) < 1, name


def test_examples_get_worse_file_by_file(load):
    make_distorted = load("make_distorted")
    for name in make_distorted.DEGREES:
        files = sorted(make_distorted.PHOTOS.glob(f"{name}_*"))
        clean, *spoilt = (Image.open(file).convert("RGB") for file in files)
        departures = [difference(picture, clean) for picture in spoilt]
        assert len(departures) == 3
        assert departures == sorted(set(departures)), f"{name}: {departures}"


def test_every_script_names_its_command():
    assert len(SCRIPTS) >= 7
    for script in SCRIPTS:
        source = (ROOT / "benchmarks" / f"{script}.py").read_text(encoding="utf-8")
        assert f"    python benchmarks/{script}.py" in source, script


def test_a_script_runs_from_any_folder(run_python, tmp_path):
    script = ROOT / "benchmarks" / "scatter.py"
    options = ["--rounds", "2", "--repeats", "2", "--channels", "8", "--batch", "2"]
    done: subprocess.CompletedProcess = run_python(script, *options, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "| index_add_ |" in done.stdout
    assert "6 nodes, 36 edges, 8 channels, batch 2" in done.stdout
