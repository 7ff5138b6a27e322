"""A small run of measurements/reliability.py, and that it would notice."""

from __future__ import annotations

import math
import re


def test_nothing_but_scores_and_clear_errors(run_main, tmp_path):
    out = tmp_path / "reliability.md"
    printed = run_main("reliability", "--fuzz", 12, "--faults", "download", "--out", out)
    page = out.read_text()
    assert re.search(r"^\d{2,} inputs, 2 faults, 0 defects", printed, re.MULTILINE), page
    for heading in ("Image files", "Tensors", "Checkpoints", "Command lines"):
        assert f"### {heading}" in page
    for kind in ("image files", "option values", "csvs", "checkpoints"):
        assert re.search(rf"^\| {kind} +\| 12 ", page, re.MULTILINE)
    assert page.count("download: ") == 2


def test_defects_are_noticed(load, monkeypatch):
    outcomes = load("outcomes")

    def fail(error: Exception) -> None:
        raise error

    def hang() -> None:
        while True:
            pass

    monkeypatch.setattr(outcomes, "LONGEST", 1)
    assert outcomes.judge(lambda: 0.5) == ("score", "scored 0.500")
    assert outcomes.judge(lambda: None).kind == "accepted"
    assert outcomes.judge(lambda: math.nan).kind == "not finite"
    assert outcomes.judge(lambda: fail(ValueError("x is 3"))) == ("error", "ValueError: x is 3")
    assert outcomes.judge(lambda: fail(ValueError(""))).kind == "not one line"
    assert outcomes.judge(lambda: fail(KeyError("x"))).kind == "traceback"
    assert outcomes.judge(hang).kind == "hang"
    monkeypatch.setattr(outcomes.cli, "main", lambda _: fail(KeyError("x")))
    assert outcomes.judge_command("score").kind == "traceback"
    monkeypatch.setattr(outcomes.cli, "main", lambda _: 1)
    assert outcomes.judge_command("score").kind == "not one line"
