"""What goes into the page: rows of each kind of file, groups of the same, small copies, and what is refused."""

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from lifeiqa_plugin.checkpoints import factory
from lifeiqa_plugin.cli import main
from lifeiqa_plugin.explanation import (
    explain,  # keeps the load of its first import, which must be the real one
)
from lifeiqa_plugin.report.collect import copy_side
from lifeiqa_plugin.report.command import default_out
from lifeiqa_plugin.runtimes import torch_engine
from lifeiqa_plugin.scoring.rows import parse_row, read_rows

ROWS = [
    {"path": "a.png", "width": 96, "height": 72, "score": 0.5, "std": 0.05, "distortion.blur": 0.7, "verdict": "check"},
    {"path": "b.png", "width": 96, "height": 72, "score": 0.7, "std": 0.06, "distortion.blur": 0.1, "verdict": "keep"},
    {"path": "c.png", "error": "damaged image"},
]  # fmt: skip


def write(path, rows):
    table = pd.DataFrame(rows).convert_dtypes()  # whole numbers stay whole where some are missing
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)


@pytest.fixture
def photos(tmp_path, monkeypatch, network):
    for module in (factory, explain):
        monkeypatch.setattr(module, "load", lambda model, fused=False: network)
    monkeypatch.setattr(torch_engine, "load", lambda model, fused=False: network)
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (72, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4)).save(tmp_path / name)
    return tmp_path


def report_table(photos, rows, *arguments, kind=".csv"):
    """Run the command on a table of these rows beside the photos; the page is ``r.html``."""
    write(photos / f"scores{kind}", rows)
    command = ["report", photos / f"scores{kind}", "-o", photos / "r.html", "--images", photos]
    return main([*map(str, command), *map(str, arguments)])


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_scores_of_each_kind_of_file_become_the_same_page(kind, photos, network, capsys):
    out = photos / "deep" / "report.html"
    assert report_table(photos, ROWS, "-o", out, "--maps", "1", kind=kind) == 3
    printed = capsys.readouterr()
    assert f"{out}: 2 photos" in printed.out
    assert "c.png: damaged image" in printed.err
    data = data_of(out)
    assert data["failures"] == [["c.png", "damaged image"]]
    assert (data["range"], data["keep"], data["drop"]) == ([0, 1], 0.6, 0.3)
    assert data["base"] == str(photos)
    assert data["dropped"] == str(out.with_name("report-dropped"))
    first, second = data["images"]
    assert (first["name"], first["score"], first["flaws"]) == ("a.png", 0.5, ["out of focus"])
    assert first["link"] == "../a.png"
    assert first["small"].startswith("data:image/jpeg;base64,")
    assert first["sentence"].startswith(("bad", "poor", "fair", "good", "excellent"))
    assert second["sentence"] == "good: no flaw named"
    assert "view" in first
    assert "view" not in second
    view = first["view"]
    assert (view["rows"], view["columns"]) == (30, 40)
    cells = np.frombuffer(base64.b64decode(view["map"]), np.uint8)
    assert len(cells) == 30 * 40
    flaw = np.frombuffer(base64.b64decode(view["flaw"]["map"]), np.uint8)
    assert view["flaw"]["name"] in network.distortion_names
    assert len(flaw) == 30 * 40
    assert len(view["attention"]) == 3


def test_columns_of_ones_own_are_no_distortions(photos):
    rows = [row | {"photo_id": 123, "note": "mine"} for row in ROWS[:2]]
    assert report_table(photos, rows, "--maps", "0") == 0
    assert data_of(photos / "r.html")["images"][0]["flaws"] == ["out of focus"]


@pytest.mark.parametrize(
    ("row", "distortions"),
    [
        ({"distortion.motion_blur": "0.5", "blur": "0.9"}, {"motion blur": 0.5}),
        ({"blur": "0.9", "photo_id": "123"}, {"blur": 0.9}),  # as version 0.1 wrote it
        ({"distortion.hot pixels": 1}, {"hot pixels": 1.0}),
    ],
)
def test_which_columns_are_distortions(row, distortions):
    scored = parse_row({"path": "a.png", "score": "0.5", **row}, ("blur", "motion blur"))
    assert (scored.score, scored.distortions) == (0.5, distortions)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,mos\na.png,1\n", "row 1: expected the columns path and score.*got name, mos"),
        ("path,score\na.png,good\n", "row 1: column 'score': expected a number, got 'good'"),
    ],
)
def test_tables_of_another_kind_are_refused(photos, capsys, content, message):
    (photos / "scores.csv").write_text(content)
    assert main(["report", str(photos / "scores.csv"), "-o", str(photos / "new.html")]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_maps_of_other_weights_than_the_scores_are_refused(photos, capsys):
    manifest = {"options": {"weights_sha256": "f00d"}, "model": "mine.pth"}
    (photos / "scores.csv.json").write_text(json.dumps(manifest))
    assert report_table(photos, ROWS[:2], "--model", "lifeiqa") == 1
    error = capsys.readouterr().err
    assert "scored by other weights than 'lifeiqa' has here" in error
    assert "with --model mine.pth. Give that model, score again, or pass --maps 0" in error
    assert report_table(photos, ROWS[:2], "--maps", "0") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "-o", "new.html"], "missing: no such file or folder"),
        (
            ["scores.csv", "-o", "scores.csv", "--overwrite"],
            "a page is written, so the name must end in .html",
        ),
        (
            ["scores.csv", "-o", "new.html", "--workers", "2"],
            "--workers has no effect on the scores of scores.csv",
        ),
        ([".", "-o", "new.html", "--images", "."], "--images has no effect on images; it is for"),
        (["-", "-o", "new.html"], "a page takes no list from standard input; write it to a file"),
        (
            ["a.png", "b.tar", "-o", "new.html"],
            "b.tar: a page shows files, not what is in archives",
        ),
        (
            ["scores.csv", "-o", "new.html", "--images", "nowhere"],
            "--images nowhere: no such folder",
        ),
        (["scores.csv", "-o", "new.html", "--model", "biq2021"], "did you mean 'lifeiqa-biq2021'?"),
        (["gone.csv", "-o", "new.html"], "none of the 1 images is below"),
        (["scores.csv", "-o", "there.html"], "there.html: exists; --append renews it, --overwrite"),
        (["scores.csv", "-o", "new.html", "--maps", "-1"], "--maps must be at least 0, got -1"),
        (["scores.csv", "-o", "new.html"], "none of the 1 images has a score"),
    ],
)
def test_the_command_refuses_before_it_writes(photos, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(photos)
    write(photos / "scores.csv", ROWS[2:])
    write(photos / "gone.csv", [ROWS[0] | {"path": "elsewhere/a.png"}])
    (photos / "there.html").write_text("there")
    (photos / "b.tar").touch()
    before = (photos / "scores.csv").read_text()
    assert main(["report", *arguments]) in (1, 2)
    assert (photos / "scores.csv").read_text() == before
    assert message in capsys.readouterr().err
    assert not (photos / "new.html").exists()
    assert (photos / "there.html").read_text() == "there"


def test_a_file_that_is_gone_is_a_card_without_an_image(photos, capsys):
    rows = [ROWS[0], ROWS[0] | {"path": "gone.png", "score": 0.1}]
    assert report_table(photos, rows) == 0
    assert "1 of 2 images are not there, the first is 'gone.png'" in capsys.readouterr().err
    gone = data_of(photos / "r.html")["images"][1]
    assert (gone["small"], gone["group"]) == ("", None)
    assert "view" not in gone


def test_small_copies_shrink_as_they_become_many():
    assert [copy_side(count) for count in (1, 1000, 5000, 20000, 10**7)] == [400, 335, 150, 75, 64]


def report(*arguments):
    """Run the command with the tiny network."""
    return main(["report", *map(str, arguments), "--engine", "torch", "--workers", "0"])


def test_a_folder_is_scored_and_what_cannot_be_read_is_named(photos, capsys):
    (photos / "broken.jpg").write_bytes(b"nothing")
    out = photos / "report.html"
    assert report(photos, "-o", out, "--maps", "1") == 3
    assert "cannot be read as an image" in capsys.readouterr().out
    data = data_of(out)
    assert [image["name"] for image in data["images"]] == ["a.png", "b.png"]
    assert data["images"][0]["link"] == "a.png"
    assert sum("view" in image for image in data["images"]) == 1
    assert [name for name, _ in data["failures"]] == [str(photos / "broken.jpg")]


def test_scores_lie_beside_the_page_and_are_gone_on_with(photos, capsys):
    out = photos / "report.html"
    assert report(photos / "a.png", photos / "b.png", "-o", out, "--maps", "0") == 0
    scores = photos / "report.scores.csv"
    assert [row["path"][-5:] for row in read_rows(scores)] == ["a.png", "b.png"]
    before = data_of(out)["images"]
    (photos / "b.png").rename(photos / "c.png")
    capsys.readouterr()
    assert report(photos, "-o", out, "--maps", "0", "--append") == 0
    assert "2 images are scored already; going on" in capsys.readouterr().err
    after = data_of(out)["images"]
    assert [image["name"] for image in after] == ["a.png", "c.png"]  # none that is gone
    assert [image["score"] for image in after] == [image["score"] for image in before]
    assert report(photos, "-o", out, "--maps", "0", "--overwrite") == 0
    assert "going on" not in capsys.readouterr().err


def test_hostile_names_reach_the_page_as_they_are(photos):
    names = ["two\nlines.png", "not utf-8 \udcff.png", 'it\'s $(x) `y` "z".png']
    for name in names:
        shutil.copy(photos / "a.png", photos / name)
    assert report(photos, "-o", photos / "report.html", "--maps", "0") == 0
    images = data_of(photos / "report.html")["images"]
    assert {image["path"] for image in images} == {"a.png", "b.png", *names}
    assert {image["link"] for image in images} >= {"two%0Alines.png", "not%20utf-8%20%FF.png"}
    assert all(image["name"].isprintable() for image in images)
    assert len({image["copy"] for image in images}) == 2


def test_maps_that_cannot_be_are_a_line_and_no_end(photos, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert report_table(photos, ROWS[:2]) == 0
    assert "no quality maps: they need torch, which is not installed" in capsys.readouterr().err
    (photos / "net.onnx").write_bytes(b"")
    assert report_table(photos, ROWS[:2], "--append", "--model", photos / "net.onnx") == 0
    assert "they need a checkpoint, and" in capsys.readouterr().err


def test_the_model_of_a_table_is_that_of_its_manifest(photos, capsys):
    manifest = {"options": {"weights_sha256": "f00d"}, "model": "gone.pth"}
    (photos / "scores.csv.json").write_text(json.dumps(manifest))
    assert report_table(photos, ROWS[:2]) == 2
    error = capsys.readouterr().err
    assert "'gone.pth' is neither a file nor a bundled model" in error
    assert "was scored with it. Say where it is, or pass --maps 0" in error


def test_scores_beyond_0_to_1_have_no_words_and_no_thresholds(photos):
    rows = [ROWS[0] | {"score": 45.0}, ROWS[1] | {"score": 70.0}]
    assert report_table(photos, rows, "--maps", "0") == 0
    data = data_of(photos / "r.html")
    assert (data["range"], data["keep"], data["drop"]) == ([45, 70], 45, 45)
    assert [image["sentence"] for image in data["images"]] == ["out of focus", "no flaw named"]


def test_the_page_is_opened_where_that_is_asked_for(photos, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    write(photos / "scores.csv", ROWS[:2])
    monkeypatch.chdir(photos)
    assert main(["report", "scores.csv", "--maps", "0", "--open"]) == 0
    assert opened == [(photos / "scores-report.html").as_uri()]


@pytest.mark.parametrize(
    ("inputs", "page"),
    [
        (["trip/"], "trip-report.html"),
        (["trip/day.1"], "trip/day.1-report.html"),
        (["scores.csv"], "scores-report.html"),
        (["trip", "scores.csv"], "report.html"),
        (["*.jpg"], "report.html"),
    ],
)
def test_where_the_page_lies(tmp_path, monkeypatch, inputs, page):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trip" / "day.1").mkdir(parents=True)
    (tmp_path / "scores.csv").touch()
    assert default_out(inputs) == Path(page)
    monkeypatch.chdir("trip")
    assert default_out(["."]) == tmp_path / "trip-report.html"
