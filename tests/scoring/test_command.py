"""``lifeiqa score``: what goes in, what comes out, and that nothing is lost or done twice."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from lifeiqa_plugin.words import FLAT

ROOT = Path(__file__).parents[2]


def read(path: str) -> pd.DataFrame:
    if path.endswith(".csv"):
        return pd.read_csv(path)
    if path.endswith(".jsonl"):
        return pd.read_json(path, lines=True)
    return pd.read_parquet(path)


@pytest.mark.parametrize("out", ["s.csv", "s.jsonl", "s.parquet"])
def test_a_folder_becomes_a_table(score, out):
    code, printed, _ = score("photos", "-o", out)
    assert code == 0
    table = read(out)
    assert list(table) == [
        "path", "width", "height", "score", "std", "detail", "distortion.dark", "distortion.bright", "verdict",
        "sentence", "note", "error", "size", "mtime",
    ]  # fmt: skip
    assert list(table["path"]) == [f"photos/{i}.png" for i in range(8)] + [
        "photos/below/8.png", "photos/below/9.png",
    ]  # fmt: skip
    assert table["score"].tolist() == pytest.approx([i / 10 for i in range(10)], abs=0.02)
    assert table["verdict"].tolist() == ["drop"] * 3 + ["check"] * 3 + ["keep"] * 4
    assert table["error"].isna().all()
    assert (table["width"][1], table["height"][1]) == (128, 64)
    assert "10 images, 10 scored, 0 failed" in printed
    assert "verdicts: keep 4, check 3, drop 3" in printed
    assert "best:\n  0.918  photos/below/9.png" in printed
    assert "worst:\n  0.000  photos/0.png" in printed
    assert "said of them: there is nothing to judge 100%" in printed
    assert set(table["sentence"]) == {FLAT}
    assert len(re.findall(r"^  0\.\d - [01]\.\d +\d", printed, re.MULTILINE)) == 10
    assert sorted(os.listdir(".")) == ["photos", out, f"{out}.json"]
    assert json.loads(Path(f"{out}.json").read_text())["rows"] == 10


def test_without_a_file_scores_are_printed(score):
    code, printed, _ = score("photos/3.png", "photos/below")
    assert code == 0
    assert printed == (
        f"0.3059\tphotos/3.png\tcheck\t{FLAT}\n"
        f"0.8157\tphotos/below/8.png\tkeep\t{FLAT}\n"
        f"0.9176\tphotos/below/9.png\tkeep\t{FLAT}\n"
    )


def test_verdicts_have_colors_on_a_terminal(score, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mkeep\x1b[0m\t" in score("photos/below/8.png")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in score("photos/below/8.png")[1]


def test_bad_images_are_rows_with_an_error_and_exit_status_3(score):
    Path("photos/1.png").write_bytes(b"")
    os.mkfifo("photos/fifo.jpg")
    Path("photos/folder.jpg").mkdir()
    Path("photos/two\nlines.png").symlink_to("gone")
    shutil.copy("photos/2.png", b"photos/caf\xe9.png")
    code, printed, _ = score("photos", "-o", "s.csv")
    assert code == 3
    rows = list(csv.DictReader(Path("s.csv").read_text().splitlines()))
    errors = {row["path"]: row["error"] for row in rows if row["error"]}
    assert errors == {
        "photos/1.png": "empty file",
        "photos/fifo.jpg": "not a regular file, but a pipe, socket or device",
        "photos/two\\nlines.png": "link to a file that is not there",
    }
    assert "photos/caf\\xe9.png" in {row["path"] for row in rows}
    assert "13 images, 10 scored, 3 failed\n" in printed
    assert "         1  empty file" in printed


def test_every_kind_of_input(score, monkeypatch):
    with tarfile.open("shard.tar", "w") as archive:
        archive.add("photos/3.png", "000.png")
        archive.add("photos/3.png", "000.txt")
        archive.add("photos/4.png", "001.png")
    content = [Path(f"photos/{i}.png").read_bytes() for i in (5, 6)]
    pd.DataFrame({"__key__": ["a", "b"], "jpg": content}).to_parquet("bytes.parquet")
    pd.DataFrame({"path": ["photos/7.png"]}).to_parquet("paths.parquet")
    nested = [{"bytes": content[0], "path": None}, {"bytes": None, "path": "photos/1.png"}]
    pd.DataFrame({"image": [*nested, None], "n": 0}).to_parquet("nested.parquet")
    Path("list.txt").write_text("photos/0.png\r\n\nphotos/1.png\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"photos/2.png\n")))
    code, printed, _ = score(
        "photos/below", "photos/[45].png", "list.txt", "-", "shard.tar", "bytes.parquet",
        "paths.parquet", "nested.parquet",
    )  # fmt: skip
    assert code == 3
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [(name, text if "error" in text else round(float(text), 1)) for text, name, *_ in rows] == [
        ("photos/below/8.png", 0.8), ("photos/below/9.png", 0.9),
        ("photos/4.png", 0.4), ("photos/5.png", 0.5),
        ("photos/0.png", 0.0), ("photos/1.png", 0.1),
        ("photos/2.png", 0.2),
        ("shard.tar/000.png", 0.3), ("shard.tar/001.png", 0.4),
        ("bytes.parquet/a", 0.5), ("bytes.parquet/b", 0.6),
        ("photos/7.png", 0.7),
        ("nested.parquet/0", 0.5), ("photos/1.png", 0.1),
        ("nested.parquet/2", "error: no image in this row"),
    ]  # fmt: skip


BAD_USAGE = [
    ("photos -o s.txt", r"-o s\.txt: the name must end in \.parquet, \.csv, \.jsonl"),
    ("nowhere.png", r"nowhere\.png: no such file or folder"),
    ("empty", "empty: no images in this folder or those below it"),
    ("photos/*.gif", r"photos/\*\.gif: no file matches"),
    ("photos -o there.csv", r"there\.csv exists; give --overwrite, or another name"),
    ("photos -o s.csv --drop 0.7", r"--drop 0\.7 must not be above --keep 0\.6"),
    ("photos -o s.csv --keep 60", "--keep must be 0 to 1, as scores are, got 60"),
    ("photos -o s.csv --drop -1", "--drop must be 0 to 1, as scores are, got -1"),
    ("photos -o s.csv --keep nan", "--keep must be 0 to 1, as scores are, got nan"),
    ("photos --copy-to d", "--copy-to has no effect without -o; give -o FILE"),
    ("photos --link-to d", "--link-to has no effect without -o; give -o FILE"),
    ("photos --xmp", "--xmp has no effect without -o; give -o FILE"),
    ("photos --xmp-undo", "--xmp-undo has no effect without -o; give -o FILE"),
    ("photos --time-limit 9", "--time-limit needs processes that decode, and --workers 0 has none"),
    ("photos --batch-size 0", "--batch-size must be more than 0, got 0"),
    ("photos --memory 1T", "--memory 1T: expected a size such as 1G or 500M"),
    ("photos --model nowhere", "--model 'nowhere' is neither a file nor a bundled model"),
    ("photos --model biq2021", r"did you mean 'lifeiqa-biq2021'\? Bundled: lifeiqa, lifeiqa-biq2021$"),
    ("photos --model lifeiqa-biq2021 --fast", "model 'lifeiqa-biq2021' has no file in 8 bits, only"),
    ("photos --overwrite", "--overwrite has no effect without -o; give -o FILE"),
    ("photos --append", "--append has no effect without -o; give -o FILE"),
    ("photos --retry-failed", "--retry-failed has no effect without -o; give -o FILE"),
    ("photos -o s.csv --overwrite --retry-failed", "--retry-failed has no effect with --overwrite"),
    ("photos -o there.csv.parquet --shard-rows 5 --overwrite", "a file; --shard-rows writes a folder"),
    ("photos -o photos --overwrite", r"-o with a folder takes \.tar and \.parquet"),
    ("photos -o s.csv --shard-rows 5", r"shards are Parquet; the name must end in \.parquet"),
    ("table.parquet --column x", r"table\.parquet: no column 'x'; it has n"),
    ("table.parquet", r"which column holds the images .* there are n \(int64\)"),
    ("there.csv.parquet", "cannot be read as Parquet"),
    ("photos --column x", "--column x names a column of a .parquet file, and there is none"),
    ("table.parquet --column n -o s.csv --copy-to d", "--copy-to, --link-to and --xmp take files"),
    ("table.parquet --column n -o s.csv --xmp", "--copy-to, --link-to and --xmp take files"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD_USAGE)
def test_bad_usage(score, arguments, message):
    Path("empty").mkdir()
    Path("there.csv").write_text("mine")
    Path("there.csv.parquet").write_text("mine")
    pd.DataFrame({"n": [1]}).to_parquet("table.parquet")
    before = sorted(os.listdir("."))
    code, printed, error = score(*arguments.split())
    assert code == 2
    assert re.search(f"^lifeiqa score: .*{message}", error)
    assert printed == ""
    assert sorted(os.listdir(".")) == before
    assert Path("there.csv").read_text() == "mine"


def test_a_budget_of_memory(score):
    Image.effect_noise((2500, 2000), 50).convert("RGB").save("photos/a.webp", method=0)
    assert score("photos", "-o", "s.csv", "--memory", "100M")[0] == 3
    errors = pd.read_csv("s.csv").set_index("path").error.dropna()
    assert errors["photos/a.webp"].startswith("would take 140 MB of memory, of which 100 MB are")
    error = score("photos", "-o", "s.csv")[2]
    assert "was made with other options (memory 100000000); give --overwrite" in error


def test_an_engine_that_is_not_installed(score, monkeypatch):
    def missing(*arguments):
        raise ImportError("engine openvino needs pip install openvino")

    monkeypatch.setattr("lifeiqa_plugin.scoring.score.create_engine", missing)
    code, _, error = score("photos")
    assert code == 2
    assert error == "lifeiqa score: engine openvino needs pip install openvino"


@pytest.mark.parametrize(("has_vnni", "says"), [(False, True), (None, False), (True, False)])
def test_fast_says_where_it_gains_nothing(score, monkeypatch, has_vnni, says):
    monkeypatch.setattr("lifeiqa_plugin.runtimes.onnxruntime_engine.has_vnni", lambda: has_vnni)
    message = "--fast gains nothing on this CPU, which has no VNNI" if says else ""
    assert score("photos/0.png", "--fast")[2] == message
    assert score("photos/0.png")[2] == ""


def test_no_permission_to_write(score, monkeypatch):
    """Tests may run as root, who may write everywhere."""
    monkeypatch.setattr("os.access", lambda *arguments: False)
    code, _, error = score("photos", "-o", "closed/s.csv")
    assert code == 2
    assert error == "lifeiqa score: closed/s.csv: no permission to write in ."


@pytest.mark.parametrize("shards", [[], ["--shard-rows", "3"]])
@pytest.mark.parametrize("number", [0, 5])
def test_an_interrupted_run_goes_on_and_scores_nothing_twice(
    score, engine, stop_after, shards, number
):
    score("photos", "-o", "whole.parquet", *shards)
    engine.batches.clear()
    stop_after(number, KeyboardInterrupt())
    code, _, error = score("photos", "-o", "s.parquet", *shards)
    assert code == 130
    assert error.startswith(f"{number} rows are kept in s.parquet")
    assert not Path("s.parquet").is_file()
    stop_after(-1, KeyboardInterrupt())
    code, printed, _ = score("photos", "-o", "s.parquet", *shards)
    assert code == 0
    assert "10 images, 10 scored, 0 failed" in printed
    assert len(engine.batches) == 10
    pd.testing.assert_frame_equal(pd.read_parquet("s.parquet"), pd.read_parquet("whole.parquet"))


def test_a_finished_run_does_nothing(score, engine):
    Path("photos/1.png").write_bytes(b"")
    assert score("photos", "-o", "s.csv")[0] == 3
    engine.batches.clear()
    code, printed, _ = score("photos", "-o", "s.csv")
    assert code == 3
    assert printed.startswith("s.csv: finished before, 10 images, 1 failed; --overwrite scores")
    assert engine.batches == []
    assert score("photos", "-o", "s.csv", "--overwrite")[0] == 3
    assert len(engine.batches) == 9


@pytest.mark.parametrize("begun", [False, True])
def test_other_options_and_weights_are_refused(score, stop_after, monkeypatch, begun):
    """What a model is called says nothing: its bytes do."""
    stop_after(3 if begun else -1, KeyboardInterrupt())
    assert score("photos", "-o", "s.csv")[0] == (130 if begun else 0)
    others = {
        "--exact": "exact False",
        "--detail=off": "detail True",
        "--shard=0/2": "shard [0, 1]",
    }
    for option, differs in others.items():
        code, _, error = score("photos", "-o", "s.csv", option)
        assert code == 2
        what = "begun" if begun else "made"
        assert f"s.csv was {what} with other options ({differs}); give --overwrite" in error
    monkeypatch.setattr("lifeiqa_plugin.checkpoints.models.Model.sha256", "f00d")
    code, _, error = score("photos", "-o", "s.csv")
    assert code == 2
    assert re.search(r"with other options \(weights_sha256 '[0-9a-f]{64}'\); give", error)


@pytest.mark.parametrize(
    "out", [["s.csv"], ["s.jsonl"], ["s.parquet"], ["s.parquet", "--shard-rows", "4"]]
)
def test_other_thresholds_need_no_scoring(score, engine, out):
    assert score("photos", "-o", *out)[0] == 0
    before, asked = read(out[0]).drop(columns="verdict"), len(engine.batches)
    code, printed, _ = score("photos", "-o", *out, "--keep", "0.8", "--drop", "0.1")
    assert code == 0
    assert "finished before, 10 images, 0 failed; verdicts by the new thresholds" in printed
    assert len(engine.batches) == asked
    after = read(out[0])
    assert after["verdict"].tolist() == ["drop"] + ["check"] * 7 + ["keep"] * 2
    pd.testing.assert_frame_equal(after.drop(columns="verdict"), before)
    manifest = Path("s.parquet/_manifest.json") if "--shard-rows" in out else Path(f"{out[0]}.json")
    assert json.loads(manifest.read_text())["verdicts"] == {"keep": 2, "check": 7, "drop": 1}
    assert "thresholds;" not in score("photos", "-o", *out, "--keep", "0.8", "--drop", "0.1")[1]


def test_images_of_a_finished_result_are_sorted_too(score):
    assert score("photos", "-o", "s.csv")[0] == 0
    assert score("photos", "-o", "s.csv", "--copy-to", "sorted")[0] == 0
    assert len(list(Path("sorted").rglob("*.png"))) == 10


def test_shards(score):
    code, _, _ = score("photos", "-o", "s.parquet", "--shard-rows", "4")
    assert code == 0
    assert sorted(os.listdir("s.parquet")) == [
        "_manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet",
    ]  # fmt: skip
    sizes = [len(pd.read_parquet(f"s.parquet/part-0000{i}.parquet")) for i in range(3)]
    assert sizes == [4, 4, 2]
    assert len(pd.read_parquet("s.parquet")) == 10
    assert json.loads(Path("s.parquet/_manifest.json").read_text())["rows"] == 10


@pytest.mark.parametrize("how", ["--copy-to", "--link-to"])
def test_images_are_sorted_and_stay_where_they_are(score, how):
    Path("photos/4.png").write_bytes(b"")
    before = {path: path.stat().st_size for path in Path("photos").rglob("*.png")}
    assert score("photos", "-o", "s.csv", how, "sorted")[0] == 3
    placed = sorted(str(path) for path in Path("sorted").rglob("*.png"))
    assert placed == sorted(
        [f"sorted/drop/photos/{i}.png" for i in (0, 1, 2)]
        + [f"sorted/check/photos/{i}.png" for i in (3, 5)]
        + [f"sorted/keep/photos/{i}.png" for i in ("6", "7", "below/8", "below/9")]
    )
    assert Path(placed[0]).is_symlink() == (how == "--link-to")
    assert {path: path.stat().st_size for path in Path("photos").rglob("*.png")} == before
    Path("sorted/drop/photos/1.png").unlink()
    Path("sorted/drop/photos/1.png").write_text("another")
    assert score("photos", "-o", "s.csv", how, "sorted", "--overwrite")[0] == 3
    again = sorted(str(path) for path in Path("sorted").rglob("*.png"))
    assert again == sorted([*placed, "sorted/drop/photos/1-1.png"])
    assert Path("sorted/drop/photos/1.png").read_text() == "another"


@pytest.mark.slow
def test_sigkill_loses_nothing(tmp_path):
    """The real command, with processes that decode, killed after a few rows; the list has each image twice."""
    names = [f"{i // 2:02d}.png" for i in range(40)]
    for i, name in enumerate(names[::2]):
        Image.effect_noise((224, 224), 6 * i).save(tmp_path / name)
    (tmp_path / "list.txt").write_text("\n".join(names))
    command = "-m lifeiqa_plugin score list.txt -o s.csv --link-to sorted --workers 1"
    arguments = [sys.executable, *command.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    journal = tmp_path / "s.csv.partial"
    process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if journal.is_file() and journal.read_bytes().count(b"\n") > 3:
                break
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    kept = [json.loads(line)["path"] for line in journal.read_text().splitlines()[1:]]
    assert 2 < len(kept) < 40
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "images are scored already; going on" in done.stderr
    assert list(read(str(tmp_path / "s.csv"))["path"]) == names
    assert sorted(path.name for path in (tmp_path / "sorted").rglob("*.png")) == names[::2]
    assert not journal.exists()


def test_notes_skipped_files_and_small_images(score):
    """A row says what was assumed, a summary what was passed over, and an icon gets no verdict."""
    os.mkdir("card")
    Image.new("LA", (64, 80), (100, 128)).save("card/clear.png")
    Image.new("L", (32, 90), 200).save("card/icon.png")
    for name in ("a.mov", "b.mov", "c.xmp", ".hidden"):
        Path("card", name).touch()
    code, printed, _ = score("card", "-o", "s.jsonl")
    assert code == 0
    clear, icon = map(json.loads, Path("s.jsonl").read_text().splitlines())
    assert (clear["note"], clear["verdict"]) == ("transparency lies on white", "keep")
    assert (icon["note"], icon["verdict"]) == ("too small to judge", None)
    assert icon["score"] == pytest.approx(200 / 255, abs=0.01)
    assert "skipped 3 files: 2 .mov, 1 .xmp" in printed
    assert "verdicts: keep 1, check 0, drop 0, too small to judge 1" in printed
    assert json.loads(Path("s.jsonl.json").read_text())["skipped"] == {".mov": 2, ".xmp": 1}
