"""What the README tells to run does run, and prints what the README shows."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
from pyiqa import pyiqa_cmd

from lifeiqa_plugin import cli
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.network.config import option_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_first_command_scores_the_sample_photos(monkeypatch, capsys):
    command = blocks("bash")[0].split("&&")[-1]
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/pyiqa"
    shown = dict(re.findall(r"'(examples/photos/\S+)': ([\d.]+)", README))
    assert len(shown) >= 3
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    pyiqa_cmd.main()
    printed = dict(re.findall(r"'(examples/photos/\S+)': ([\d.]+)", capsys.readouterr().out))
    assert len(printed) == 20
    for name, score in shown.items():
        assert float(printed[name]) == pytest.approx(float(score), abs=2e-3), name


def test_second_command_runs_the_tests():
    assert blocks("bash")[1].rstrip().endswith("-e '.[test]' && .venv-test/bin/pytest")


def test_python_lines(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert blocks("python")
    for block in blocks("python"):
        exec(block, {})
    score, score_range = capsys.readouterr().out.splitlines()[-2:]
    assert 0.5 < float(score) <= 1
    assert score_range == "0, 1 False"


def test_commands_are_known():
    """Every line of a block that begins with lifeiqa, on any page, has arguments that its command takes."""
    lines = [line for page in PAGES for line in commands_of(page.read_text(encoding="utf-8"))]
    assert len(lines) > 30
    assert {name for name, _ in lines} == set(cli.COMMANDS)
    for name, arguments in lines:
        parser, command = cli._build_parser(name)
        assert command is not None
        words = shlex.split(arguments.replace("\\\n", " "))
        parser.parse_args([name, *map(cli._with_hyphens, words)])


def commands_of(page: str) -> list[tuple[str, str]]:
    code = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    shell = "\n".join(block for language, block in code if language in ("", "bash"))
    return re.findall(
        r"^ {0,3}lifeiqa ([a-z]+)(?=\s)([^#\\\n]*(?:\\\n[^\n]*)?)", shell, re.MULTILINE
    )


def test_python_blocks_are_python():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            compile(block, page.name, "exec")


def test_pages_that_are_linked_exist():
    links = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 15
    for page, link in links:
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_sections_that_are_linked_exist():
    """Anchors as GitHub makes them of the headings of a page."""
    links = [
        (page, link, section)
        for page in PAGES
        for link, section in re.findall(
            r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")
        )
    ]
    assert len(links) > 15
    for page, link, section in links:
        target = page.parent / link if link else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
        assert section in anchors, f"{page.name} links to {link}#{section}"


def test_readers_questions_are_answered():
    notes = ROOT / "docs" / "research_notes.md"
    answers = re.findall(
        r"^\d+\. .+\? \[.+?\]\(([^)#]+)[^)]*\): \"(.+)\"$", notes.read_text("utf-8"), re.MULTILINE
    )
    assert len(answers) == 10
    for page, sentence in answers:
        text = (notes.parent / page).read_text(encoding="utf-8")
        assert sentence in " ".join(text.split()), f"{page} does not say {sentence}"


def test_options_are_those_of_the_network():
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    of_build = set(inspect.signature(build_lifeiqa).parameters) - {"options"}
    assert sorted(named) == sorted({*option_names(), *of_build})
