"""README and model card quote docs/results.csv, and what they quote is of the weights that ship."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUNDLED = {
    hashlib.sha256(path.read_bytes()).hexdigest()
    for path in (ROOT / "lifeiqa_plugin" / "checkpoints").glob("*.safetensors")
}


@pytest.fixture
def quoting(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("quote_results")


def test_every_row_says_what_command_and_commit(quoting):
    for name, row in quoting.read_results().items():
        assert re.fullmatch(r"[a-z]\w+", name)
        assert all(row[column].strip() for column in ("what", "value", "command")), name
        assert row["command"].startswith("published: ") or re.fullmatch(
            r"[0-9a-f]{7,40}(, [0-9a-f]{7,40})*", row["commit"]
        ), name
        assert re.fullmatch(r"|[0-9a-f]{64}", row["weights_sha256"]), name


def test_rows_of_other_weights_are_called_earlier(quoting):
    assert BUNDLED
    for name, row in quoting.read_results().items():
        assert name.startswith("earlier_") == (row["weights_sha256"] not in {"", *BUNDLED}), name


@pytest.mark.parametrize("page", ["README.md", "docs/model_card.md"])
def test_pages_quote_what_was_measured(quoting, page):
    text, results = (ROOT / page).read_text(encoding="utf-8"), quoting.read_results()
    quoted = dict(quoting.QUOTE.findall(text))
    assert len(quoted) >= 15
    assert quoted == {name: results[name]["value"] for name in quoted}
    assert text.count("<!--/-->") == len(quoting.QUOTE.findall(text))
    if page == "README.md":
        assert [name for name in quoted if name.startswith("earlier_")] == []


def test_quotes_are_rewritten_and_checked(quoting, monkeypatch, tmp_path, capsys):
    page, results = tmp_path / "page.md", tmp_path / "results.csv"
    results.write_text("id,value\na,.5\nb,7 s\n")
    page.write_text("It is <!--a-->.4<!--/--> in <!--b-->7 s<!--/-->.\n")
    monkeypatch.setattr(quoting, "RESULTS", results)
    monkeypatch.setattr(quoting, "PAGES", [page])
    monkeypatch.setattr("sys.argv", ["quote_results.py", "--check"])
    with pytest.raises(SystemExit, match="1"):
        quoting.main()
    assert capsys.readouterr().out == "page.md: a is .4, measured .5\n"
    assert "<!--a-->.4<" in page.read_text()
    monkeypatch.setattr("sys.argv", ["quote_results.py"])
    quoting.main()
    assert page.read_text() == "It is <!--a-->.5<!--/--> in <!--b-->7 s<!--/-->.\n"
    page.write_text("<!--c-->1<!--/-->")
    with pytest.raises(SystemExit, match=r"page\.md quotes c, which results\.csv lacks"):
        quoting.main()
    results.write_text("id,value\na,1\na,2\n")
    with pytest.raises(ValueError, match=r"results\.csv: two rows with the id 'a'"):
        quoting.main()
