"""Results that are there already: added to, tried again, refused; and what is done where files or machines fail."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from lifeiqa_plugin.scoring import tasks
from lifeiqa_plugin.scoring.output import Output


def paths(out: str) -> list[str]:
    table = pd.read_csv(out) if out.endswith(".csv") else pd.read_parquet(out)
    return table["path"].tolist()


@pytest.mark.parametrize("how", ["--copy-to", "--link-to"])
def test_duplicates_are_placed_once(score, how):
    Path("list.txt").write_text("photos/1.png\nphotos/1.png\nphotos/2.png\nphotos/1.png\n")
    assert score("list.txt", "-o", "s.csv", how, "sorted")[0] == 0
    placed = sorted(str(path) for path in Path("sorted").rglob("*.png"))
    assert placed == ["sorted/drop/photos/1.png", "sorted/drop/photos/2.png"]
    assert len(paths("s.csv")) == 4


@pytest.mark.parametrize("out", [["s.csv"], ["s.parquet"], ["s.parquet", "--shard-rows", "3"]])
def test_a_folder_that_grows(score, engine, out):
    """New and changed files get rows, files that are gone keep theirs."""
    assert score("photos", "-o", *out)[0] == 0
    Image.new("L", (64, 64), 51).save("photos/new.png")
    Image.new("L", (64, 64), 204).save("photos/1.png")
    Path("photos/2.png").unlink()
    before = Path(out[0]).stat().st_mtime_ns
    code, printed, error = score("photos", "-o", *out)
    assert (code, printed) == (2, "")
    assert error == (
        f"lifeiqa score: {out[0]} is finished, with 10 rows, and its inputs have changed since; "
        "--append scores what is new, --overwrite begins again"
    )
    assert Path(out[0]).stat().st_mtime_ns == before
    engine.batches.clear()
    code, printed, _ = score("photos", "-o", *out, "--append")
    assert code == 0
    assert len(engine.batches) == 2
    assert "11 images, 11 scored, 0 failed" in printed
    table = pd.read_csv("s.csv") if out[0] == "s.csv" else pd.read_parquet(out[0])
    kept = [f"photos/{i}.png" for i in (0, 2, 3, 4, 5, 6, 7, "below/8", "below/9")]
    assert table["path"].tolist() == [*kept, "photos/1.png", "photos/new.png"]
    assert table["score"].tolist()[-2:] == pytest.approx([0.8, 0.2], abs=0.01)
    engine.batches.clear()
    assert score("photos", "-o", *out)[1].startswith(f"{out[0]}: finished before, 11 images")
    assert score("photos", "-o", *out, "--append")[0] == 0
    assert engine.batches == []


def test_other_inputs(score, stop_after):
    assert score("photos/below", "-o", "s.csv")[0] == 0
    code, _, error = score("photos/1.png", "photos/2.png", "-o", "s.csv")
    assert code == 2
    assert error == (
        "lifeiqa score: s.csv was made of other inputs (photos/below); "
        "--append adds these, --overwrite begins again"
    )
    stop_after(1, KeyboardInterrupt())
    assert score("photos/1.png", "photos/2.png", "-o", "s.csv", "--append")[0] == 130
    assert paths("s.csv") == ["photos/below/8.png", "photos/below/9.png"]  # as long as it is open
    stop_after(-1, KeyboardInterrupt())
    assert score("photos/1.png", "photos/2.png", "-o", "s.csv", "--append")[0] == 0
    assert paths("s.csv")[2:] == ["photos/1.png", "photos/2.png"]
    assert json.loads(Path("s.csv.json").read_text())["inputs"] == [
        "photos/below", "photos/1.png", "photos/2.png",
    ]  # fmt: skip


def test_standard_input_is_compared_too(score, engine, monkeypatch):
    def give(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    give(b"photos/1.png\nphotos/2.png\n")
    assert score("-", "-o", "s.csv")[0] == 0
    give(b"photos/1.png\nphotos/2.png\n")
    assert score("-", "-o", "s.csv")[1].startswith("s.csv: finished before, 2 images")
    give(b"photos/1.png\nphotos/2.png\nphotos/3.png\n")
    code, _, error = score("-", "-o", "s.csv")
    assert code == 2
    assert "its inputs have changed since" in error
    give(b"photos/1.png\nphotos/2.png\nphotos/3.png\n")
    engine.batches.clear()
    assert score("-", "-o", "s.csv", "--append")[0] == 0
    assert len(engine.batches) == 1


@pytest.mark.parametrize("out", [["s.csv"], ["s.parquet", "--shard-rows", "3"]])
def test_failed_images_are_tried_again(score, engine, out):
    whole = Path("photos/1.png").read_bytes()
    Path("photos/1.png").write_bytes(b"")
    Path("photos/4.png").write_bytes(b"")
    assert score("photos", "-o", *out)[0] == 3
    Path("photos/1.png").write_bytes(whole)
    assert score("photos", "-o", *out, "--retry-failed")[0] == 2  # that file has changed
    engine.batches.clear()
    code, printed, _ = score("photos", "-o", *out, "--retry-failed", "--append")
    assert code == 3
    assert "10 images, 9 scored, 1 failed" in printed
    assert len(engine.batches) == 1
    assert sorted(paths(out[0])) == sorted(
        [f"photos/{i}.png" for i in (0, 1, 2, 3, 4, 5, 6, 7, "below/8", "below/9")]
    )


def test_what_the_disk_failed_to_give_is_tried_again(score, engine, monkeypatch):
    """An error of the machine is told from a bad image, and the file need not have changed."""
    stat = os.stat

    def fail(path, *arguments, **options):
        if path == "photos/3.png":
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("lifeiqa_plugin.images.refusals.os.stat", fail)
        assert score("photos", "-o", "s.csv")[0] == 3
    error = pd.read_csv("s.csv")["error"][3]
    assert error == f"the disk or the network failed ([Errno {errno.ESTALE}] Stale file handle)"
    code, printed, _ = score("photos", "-o", "s.csv", "--append", "--retry-failed")
    assert code == 0
    assert "10 images, 10 scored, 0 failed" in printed
    engine.batches.clear()
    assert score("photos", "-o", "s.csv", "--retry-failed")[0] == 0
    assert engine.batches == []


def test_overwrite_waits_for_the_lock(score, at_image):
    """A second run may not delete what the first one writes, whatever it is told."""
    second = []
    at_image(0, lambda: second.extend(score("photos", "-o", "s.csv", "--overwrite")))
    assert score("photos", "-o", "s.csv")[0] == 0
    assert second[0] == 1
    assert second[2].endswith("lifeiqa score: s.csv.partial: another process is writing it")
    assert len(paths("s.csv")) == 10


def test_rows_are_counted_before_they_are_put_in_place(score, monkeypatch):
    add = Output.add

    def lose(self, row):
        add(self, row)
        self.rows += 1

    monkeypatch.setattr(Output, "add", lose)
    code, _, error = score("photos", "-o", "s.csv")
    assert code == 1
    assert (
        "s.csv: 10 rows instead of 20, so something else changed the files; all are left" in error
    )
    assert not Path("s.csv").exists()
    assert Path("s.csv.partial").exists()


def test_a_shard_that_is_removed_meanwhile_is_noticed(score, at_image):
    at_image(7, Path("s.parquet/part-00000.parquet").unlink)
    code, _, error = score("photos", "-o", "s.parquet", "--shard-rows", "3")
    assert code == 1
    assert "s.parquet: 7 rows instead of 10" in error
    assert score("photos", "-o", "s.parquet", "--shard-rows", "3")[0] == 0
    assert len(paths("s.parquet")) == 10


def test_a_folder_that_is_removed_meanwhile_is_noticed(score, engine, at_image):
    at_image(3, lambda: shutil.rmtree("out"))
    code, _, error = score("photos", "-o", "out/s.csv")
    assert code == 1
    assert "No such file or directory: 'out/s.csv.partial.part'" in error
    assert len(engine.batches) == 4


@pytest.mark.parametrize(("ending", "what"), [("partial", "begun"), ("json", "made")])
def test_a_result_of_version_0_1(score, ending, what):
    Path(f"s.csv.{ending}").write_text('{"options": {"version": "0.1.0"}, "shards": 0}\n')
    code, _, error = score("photos", "-o", "s.csv")
    assert code == 2
    assert error.startswith(f"lifeiqa score: s.csv was {what} by version 0.1, which did not note")
    assert error.endswith("give --overwrite, or another name with -o")
    assert score("photos", "-o", "s.csv", "--overwrite")[0] == 0
    assert len(paths("s.csv")) == 10


def test_a_damaged_journal(score, stop_after):
    stop_after(5, KeyboardInterrupt())
    score("photos", "-o", "s.csv")
    stop_after(-1, KeyboardInterrupt())
    lines = Path("s.csv.partial").read_text().splitlines(keepends=True)
    Path("s.csv.partial").write_text("".join([*lines[:2], "{\n", *lines[3:]]))
    code, _, error = score("photos", "-o", "s.csv")
    assert code == 1
    assert "s.csv.partial, line 3: damaged (" in error
    assert score("photos", "-o", "s.csv", "--overwrite")[0] == 0


def test_a_name_that_is_too_long_to_copy(score, capsys):
    name = "n" * 251 + ".png"
    Path("photos/1.png").rename(f"photos/{name}")
    assert score("photos", "-o", "s.csv", "--copy-to", "sorted")[0] == 0
    assert Path(f"sorted/drop/photos/{name}").is_file()
    Path(f"sorted/drop/photos/{name}").write_text("another of that name")
    code, _, _ = score("photos", "-o", "s.csv", "--copy-to", "sorted", "--overwrite")
    assert code == 0
    assert len(paths("s.csv")) == 10


def test_names_that_a_log_cannot_show(score, monkeypatch):
    Path("photos/1.png").rename("photos/ø.png")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert score("photos/ø.png")[0] == 0
    sys.stdout.flush()
    assert written.getvalue().startswith(b"0.1020\tphotos/\\xf8.png\t")


def test_a_log_gets_a_line_a_minute(score, monkeypatch, capsys):
    import tqdm

    made = []
    plain = tqdm.tqdm

    def remember(*arguments, **options):
        made.append(options)
        return plain(*arguments, **options)

    monkeypatch.setattr(tqdm, "tqdm", remember)
    assert score("photos", "-o", "s.csv")[0] == 0
    assert made[0]["mininterval"] == made[0]["maxinterval"] == tasks.LOG_EVERY == 60
