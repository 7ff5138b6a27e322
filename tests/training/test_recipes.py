"""Option files by their name, and the start of one's own; tests/test_install.py does so from an installed package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lifeiqa_plugin import cli
from lifeiqa_plugin.training.checking import schema
from lifeiqa_plugin.training.options import read_options
from lifeiqa_plugin.training.recipes import find_options, recipes

FOLDER = Path(__file__).parents[2] / "options" / "train"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_option_file_is_a_recipe():
    assert recipes() == {path.stem: path for path in FOLDER.glob("*.yml")}
    assert find_options("quick") == FOLDER / "quick.yml"


def test_a_file_of_that_name_comes_first(tmp_path):
    (tmp_path / "quick").write_text("name: x\n")
    assert find_options("quick") == Path("quick")


@pytest.mark.parametrize("command", ["train -opt quick", "train -opt own/quick.yml"])
def test_a_recipe_is_read_as_its_file_is(command, capsys, tmp_path):
    """Both get as far as the csv that is not there."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "quick.yml").write_text((FOLDER / "quick.yml").read_text())
    assert cli.main(command.split()) == 1
    assert "meta_info_folder.csv: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "-opt quik",
            "no recipe is called 'quik'; did you mean 'quick'? There are biq2021, bundled, ",
        ),
        ("-opt zzz", "no recipe is called 'zzz'; There are biq2021, "),
        ("", "-opt is missing: a recipe such as quick, or an option file; --new FILE writes one"),
        (
            "--new there.yml",
            "there.yml: is there already and is left as it is; choose another name",
        ),
        (
            "--new x.yml --splits 2 --auto-resume",
            "trains nothing; leave out --auto-resume, --splits",
        ),
        ("--new x.yml -opt zzz", "no recipe is called 'zzz'"),
    ],
)
def test_errors_are_one_line(command, message, capsys, tmp_path):
    (tmp_path / "there.yml").write_text("mine")
    assert cli.main(["train", *command.split()]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.yml"]
    assert (tmp_path / "there.yml").read_text() == "mine"


@pytest.mark.parametrize("start", ["quick", "biq2021"])
def test_a_new_file_is_the_recipe_with_its_comments_and_a_schema(start, capsys, tmp_path):
    assert (
        cli.main(["train", "--new", "own/mine.yml", *(["-opt", start] if start != "quick" else [])])
        == 0
    )
    assert "wrote own/mine.yml" in capsys.readouterr().out
    first, *rest = (tmp_path / "own" / "mine.yml").read_text().splitlines()
    recipe = (FOLDER / f"{start}.yml").read_text().splitlines()
    assert [line for line in rest if "name: mine" not in line] == [
        line for line in recipe if f"name: {start}" not in line
    ]
    name = first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads((tmp_path / "own" / name).read_text()) == schema()
    expected = yaml.safe_load((FOLDER / f"{start}.yml").read_text()) | {"name": "mine"}
    assert yaml.safe_load((tmp_path / "own" / "mine.yml").read_text()) == expected
    assert read_options("own/mine.yml")["name"] == "mine"
