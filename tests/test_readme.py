"""What the README tells to run does run, and prints what the README shows."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from pyiqa import pyiqa_cmd

from lifeiqa_plugin import cli
from lifeiqa_plugin.network.config import option_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUILD_OPTIONS = {"pretrained", "pretrained_model_path", "preset"}


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
    """Every line that begins with lifeiqa, in any block, has arguments that its command takes."""
    lines = re.findall(r"^lifeiqa (\w+)([^#\\\n]*(?:\\\n[^\n]*)?)", README, re.MULTILINE)
    assert {"score", "report", "explain", "export", "benchmark"} <= {name for name, _ in lines}
    for name, arguments in lines:
        parser, command = cli._build_parser(name)
        assert command is not None
        parser.parse_args([name, *shlex.split(arguments.replace("\\\n", " "))])


def test_pages_that_are_linked_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 15
    for page, link in links:
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_sections_that_are_linked_exist():
    """Anchors as GitHub makes them of the headings of a page."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, link, section)
        for page in pages
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
    table = re.findall(r"^\| (`.+?) \|", text.split("## When")[0], re.MULTILINE)
    named = [name for cell in table for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted({*option_names(), *BUILD_OPTIONS})
