"""The tables of README and docs show docs/results.csv, and what they show is of the weights that ship."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHIPPED = {
    hashlib.sha256(path.read_bytes()).hexdigest()
    for path in (ROOT / "lifeiqa_plugin" / "checkpoints").glob("*.safetensors")
}


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("tables")


def test_every_row_says_what_command_commit_and_date(tables):
    for name, row in tables.read_results().items():
        assert re.fullmatch(r"[a-z]\w+", name)
        assert all(row[column].strip() for column in ("what", "value", "command")), name
        if not row["command"].startswith("published: "):
            assert re.fullmatch(r"[0-9a-f]{7,40}(, [0-9a-f]{7,40})*", row["commit"]), name
            assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["date"]), name


def test_rows_are_of_the_weights_that_ship(tables):
    """New weights: `python tools/measure.py`, then delete what is left of the old ones."""
    assert SHIPPED
    of_others = [
        name
        for name, row in tables.read_results().items()
        if row["weights_sha256"] not in {"", *SHIPPED}
    ]
    assert not of_others


def test_every_table_is_shown_once(tables):
    shown = {
        page.name: re.findall(r'tables.show\("(.+?)"\)', page.read_text("utf-8")) for page in PAGES
    }
    names = [name for page in shown.values() for name in page]
    assert sorted(names) == sorted(tables.read_templates())
    assert len(names) > 10
    assert len(shown["README.md"]) == 2


def test_pages_show_what_was_measured(run_python, tmp_path):
    """``cog --check``: and that it would notice."""
    check = ["-m", "cogapp", "--check", "-I", ROOT / "tools"]
    done = run_python(*check, *PAGES, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    stale = tmp_path / "README.md"
    stale.write_text(PAGES[0].read_text("utf-8").replace("| 0.058 s |", "| 0.057 s |"), "utf-8")
    done = run_python(*check, stale, cwd=tmp_path)
    assert done.returncode == 5, done.stdout + done.stderr


def test_what_is_not_there_is_named(tables, monkeypatch, tmp_path):
    results, templates = tmp_path / "results.csv", tmp_path / "tables.md"
    results.write_text("id,value,date,weights_sha256\na,.5 (.4 - .6),today,0123456789\n")
    templates.write_text(
        "# T\n\n## one\n\n| x |\n|---|\n| {a} of {b} |\n\n## two\n\n"
        "| {a}, {a:short}, {a:date}, {a:weights_sha256} |\n"
    )
    monkeypatch.setattr(tables, "RESULTS", results)
    monkeypatch.setattr(tables, "TEMPLATES", templates)
    assert tables.render("two") == "| .5 (.4 - .6), .5, today, 01234567 |"
    with pytest.raises(ValueError, match=r"table 'one' shows 'b', which results\.csv lacks"):
        tables.render("one")
    with pytest.raises(ValueError, match=r"tables\.md has no table 'three', only one, two"):
        tables.render("three")
    results.write_text("id,value\na,1\na,2\n")
    with pytest.raises(ValueError, match=r"results\.csv: two rows with the id 'a'"):
        tables.render("two")
