"""Journals: one process at a time, known by their descriptor, whole or not at all where they are replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lifeiqa_plugin.journal import Journal, open_journal, read_first

pytest.importorskip("fcntl")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "a.partial"


def test_records_come_back_and_a_broken_last_line_does_not(path):
    path.write_text('{"a": 1}\n{"b": "ø"}\n{"c"', encoding="utf-8")
    assert read_first(path) == {"a": 1}
    journal = Journal(path)
    journal.add({"d": None})
    assert list(journal) == [{"a": 1}, {"b": "ø"}, {"d": None}]
    journal.replace(record for record in journal if "b" in record)
    journal.add([3])
    assert list(journal) == [{"b": "ø"}, [3]]
    journal.close()
    assert path.read_text(encoding="utf-8") == '{"b": "ø"}\n[3]\n'
    assert os.listdir(path.parent) == [path.name]


def test_nothing_is_first_of_what_is_not_there_or_empty(path):
    assert read_first(path) is None
    path.write_text('{"no end": 1}')
    assert read_first(path) is None


def test_another_process_has_it(path):
    journal = Journal(path)
    with pytest.raises(OSError, match=r"a\.partial: another process is writing it$"):
        Journal(path)
    journal.replace([1])
    with pytest.raises(OSError, match=r"a\.partial: another process is writing it$"):
        open_journal(path, "header")
    journal.remove()
    assert not path.exists()
    Journal(path).close()


def test_a_change_by_something_else_is_noticed(path):
    journal = Journal(path)
    journal.add("one")
    with open(path, "a") as file:
        file.write("two\n")
    message = r"a\.partial: something else changed it meanwhile: 10 bytes instead of 6; all files"
    with pytest.raises(OSError, match=message):
        journal.add("three")
    with pytest.raises(OSError, match=message):
        list(journal)
    journal.close()
    assert path.read_text() == '"one"\ntwo\n'


def test_another_file_in_its_place_is_noticed(path):
    journal = Journal(path)
    journal.add("one")
    path.rename(path.with_name("elsewhere"))
    path.write_text("mine\n")
    with pytest.raises(OSError, match=r"a\.partial: another process is writing it$"):
        journal.add("two")
    journal.close()
    assert path.read_text() == "mine\n"


def test_a_replacement_that_fails_leaves_what_is_there(path):
    journal = Journal(path)
    journal.add("one")

    def fail():
        yield "two"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        journal.replace(fail())
    assert list(journal) == ["one"]
    journal.close()
    assert os.listdir(path.parent) == [path.name]


def test_a_damaged_line(path):
    path.write_text("1\n{\n3\n")
    journal = Journal(path)
    with pytest.raises(ValueError, match=r"a\.partial, line 2: damaged \(.+\); delete it"):
        list(journal)
    journal.close()


@pytest.mark.parametrize("before", ["", "head", "head\nrow\nbro"])
def test_lines_with_a_header(path, before):
    path.write_text(before)
    with open_journal(path, "head") as file:
        file.write("new\n")
    rows = "row\n" if "row" in before else ""
    assert path.read_text() == f"head\n{rows}new\n"
