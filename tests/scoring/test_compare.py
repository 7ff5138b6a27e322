"""``lifeiqa compare``: pairs by name, worst first, and never of what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lifeiqa_plugin import cli


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Write scores as jsonl, by name, and compare them; returns exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(old: dict, new: dict, *arguments: str) -> tuple[int, str, str]:
        for name, scores in {"old": old, "new": new}.items():
            rows = [json.dumps({"path": path, "score": value}) for path, value in scores.items()]
            Path(f"{name}.jsonl").write_text("\n".join(rows))
        code = cli.main(["compare", "old.jsonl", "new.jsonl", *arguments])
        return code, *capsys.readouterr()

    return run


OLD = {"a.jpg": 0.5, "b.jpg": 0.75, "c.jpg": 0.25}
NEW = {"a.jpg": 0.51, "b.jpg": 0.5, "c.jpg": 0.25}
TABLE = """\
 change    old    new  image
-0.2500 0.7500 0.5000  b.jpg
+0.0000 0.2500 0.2500  c.jpg
+0.0100 0.5000 0.5100  a.jpg
3 pairs: mean change -0.0800 (95 %: -0.2500 to +0.0100)
"""
NO_MANIFEST = "old.jsonl has no manifest that says which weights scored it\n"


def test_worst_first_and_the_mean(compare):
    assert compare(OLD, NEW) == (0, TABLE, NO_MANIFEST)
    printed = compare(OLD, NEW, "--lines", "1")[1]
    assert printed.splitlines() == [TABLE.splitlines()[i] for i in (0, 1, 4)]


@pytest.mark.parametrize(("limit", "status"), [("-0.07", 4), ("-0.09", 0)])
def test_a_mean_that_is_too_low_is_an_exit_status(compare, limit, status):
    code, printed, error = compare(OLD, NEW, "--fail-below", limit)
    assert (code, printed) == (status, TABLE)
    says = f"mean change -0.0800 is below {limit}\n" if status else ""
    assert error == NO_MANIFEST + says


def test_what_has_no_pair_or_no_score_is_said(compare):
    old, new = (
        OLD | {"d.jpg": 0.1, "e.jpg": None},
        NEW | {"e.jpg": 0.1, "f.jpg": 0.2, "c.jpg": None},
    )
    code, printed, error = compare(old, new)
    assert code == 3
    assert "2 pairs: mean change -0.1200" in printed
    assert error == NO_MANIFEST + "".join(
        f"lifeiqa compare: 1 {what}\n"
        for what in (
            "not in new.jsonl, the first is 'd.jpg'",
            "not in old.jsonl, the first is 'f.jpg'",
            "without a score in old.jsonl, the first is 'e.jpg'",
            "without a score in new.jsonl, the first is 'c.jpg'",
        )
    )


@pytest.mark.parametrize(
    "new",
    [
        {f"new/{name}": value for name, value in NEW.items()},
        {f"/x/new/{name}"[:-3] + "webp": value for name, value in NEW.items()},
    ],
    ids=["other folder", "other ending"],
)
def test_pairs_of_other_folders_and_endings(compare, new):
    code, printed, _ = compare({f"old/{name}": value for name, value in OLD.items()}, new)
    assert code == 0
    by_stem = {Path(name).stem: name for name in new}
    assert [line.split()[-1] for line in printed.splitlines()[1:4]] == [by_stem[x] for x in "bca"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            {"a/1.jpg": 0.5, "a/1.png": 0.5},
            {"b/1.webp": 0.5},
            "'a/1.jpg' and 'a/1.png' differ only in their endings",
        ),
        ({"a.jpg": 0.5}, {"b.jpg": 0.5}, "no image has a score in both; 1 not in new.jsonl, the first is 'a.jpg'"),
        ({"a.jpg": None}, {"a.jpg": 0.5}, "no image has a score in both; 1 without a score in old.jsonl"),
        ({}, {}, "no image has a score in both; no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(compare, old, new, message):
    code, printed, error = compare(old, new)
    assert (code, printed) == (1, "")
    assert error.startswith(f"{NO_MANIFEST}lifeiqa compare: {message}")


def test_a_name_twice_is_refused(compare, capsys):
    compare(OLD, NEW)
    Path("twice.csv").write_text("path,score\na.jpg,0.5\na.jpg,0.6\n")
    assert cli.main(["compare", "old.jsonl", "twice.csv"]) == 1
    assert capsys.readouterr().err.endswith(
        "twice.csv: 'a.jpg' is there twice, so it has no one pair\n"
    )


def test_results_of_the_command(score, compare, photos, capsys):
    """Of other folders and formats; those of another reading are refused."""
    for path in photos.glob("*.png"):
        darker = Image.open(path).point(lambda level: level // 2)
        Path("darker").mkdir(exist_ok=True)
        darker.save(f"darker/{path.stem}.bmp")
    for folder, out in (("photos/*.png", "old.parquet"), ("darker", "new.csv")):
        assert score(folder, "-o", out)[0] == 0
    assert cli.main(["compare", "old.parquet", "new.csv", "--fail-below", "-0.5"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].endswith("darker/7.bmp")
    assert err == ""
    assert score("darker", "-o", "exact.csv", "--exact")[0] == 0
    assert cli.main(["compare", "old.parquet", "exact.csv"]) == 1
    assert capsys.readouterr().err == (
        "lifeiqa compare: old.parquet and exact.csv were scored with another exact (False, True), "
        "so a change may be due to that; score both in the same way\n"
    )


def test_a_file_that_is_not_there_is_named(tmp_path, capsys):
    assert cli.main(["compare", str(tmp_path / "old.csv"), str(tmp_path / "new.csv")]) == 1
    error = capsys.readouterr().err
    assert error.endswith("old.csv: no such file; expected what 'lifeiqa score -o' wrote\n")
