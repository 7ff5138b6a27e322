"""``lifeiqa explain`` from end to end, with the tiny network in place of the bundled one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lifeiqa_plugin.checkpoints import factory
from lifeiqa_plugin.cli import main
from lifeiqa_plugin.explanation.command import free_name

pytestmark = pytest.mark.slow

pytest.importorskip("matplotlib")


@pytest.fixture
def photos(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(factory, "build_lifeiqa", lambda **options: whole)
    generator = torch.Generator().manual_seed(0)
    for name in ("a.png", "b.png"):
        pixels = (torch.rand(70, 90, 3, generator=generator) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    return tmp_path


def run(*arguments):
    return main(["explain", *map(str, arguments)])


def test_each_image_has_a_folder_and_the_manifest_names_all(photos, capsys):
    out = photos / "out"
    assert run(photos / "a.png", photos / "broken.jpg", photos / "b.png", "-o", out) == 3
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert f"\t{photos / 'a.png'}\t" in printed.out
    assert len(printed.err.splitlines()) == 1
    assert "broken.jpg" in printed.err
    entries = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert [entry.get("folder") for entry in entries] == ["a.png", None, "b.png"]
    assert "broken.jpg" in entries[1]["error"]
    assert (out / "a.png" / "manifest.json").is_file()
    assert (out / "b.png" / "figure.svg").is_file()
    assert not (out / "b.png" / "details.svg").exists()


def test_a_folder_is_read_as_by_score_and_all_adds_a_figure(photos):
    out = photos / "out"
    assert run(photos, "-o", out, "--all", "--no-attribution") == 3
    entries = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert [entry.get("folder") for entry in entries] == ["a.png", "b.png", None]
    assert (out / "b.png" / "details.svg").is_file()
    with Image.open(out / "b.png" / "details.png") as picture:
        assert picture.width == 1600
    with np.load(out / "a.png" / "arrays.npz") as arrays:
        assert "attribution" not in arrays
    assert run(photos / "a.png", "-o", out / "with", "--all") == 0
    with np.load(out / "with" / "a.png" / "arrays.npz") as arrays:
        assert "attribution" in arrays


def test_an_existing_folder_is_refused_unless_asked(photos, capsys):
    out = photos / "out"
    out.mkdir()
    assert run(photos / "a.png", "-o", out) == 1
    assert "exists; choose another folder, or pass overwrite" in capsys.readouterr().err
    assert run(photos / "a.png", "-o", out, "--overwrite") == 0
    assert run(photos / "a.png", "-o", out, "--overwrite") == 0


def test_nothing_that_can_be_read_is_an_error_without_a_manifest(photos, capsys):
    out = photos / "out"
    assert run(photos / "broken.jpg", "-o", out) == 1
    assert "none of the 1 images could be explained" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["a.png", "missing.jpg", "-o", "out"], 2, "missing.jpg: no such file or folder"),
        (["a.png", "folder", "-o", "out"], 2, "folder: no images in this folder or those below it"),
        (["a.png", "-o", "b.png"], 1, "b.png is a file; expected the name of a folder"),
        (
            ["a.png", "-o", "b.png", "--overwrite"],
            1,
            "b.png is a file; expected the name of a folder",
        ),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_computed(
    arguments, status, words, photos, capsys, monkeypatch
):
    monkeypatch.chdir(photos)
    (photos / "folder").mkdir()
    monkeypatch.setattr("lifeiqa_plugin.explanation.explain.explain", None)
    assert run(*arguments) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(words)
    assert not (photos / "out").exists()


def test_folders_of_files_of_the_same_name_differ():
    taken = set()
    names = [free_name(name, taken) for name in ("x.jpg", "X.jpg", "x.jpg")]
    assert names == ["x.jpg", "X.jpg-2", "x.jpg-3"]
