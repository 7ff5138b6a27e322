"""The hint at the end of an error about an unknown name."""

from __future__ import annotations

import pytest

from lifeiqa_plugin.nearest import did_you_mean, nearest

KNOWN = {"score": 1, "report": 2, "repeat": 3}


def test_nearest_names_come_first():
    assert nearest("repot", KNOWN, 3) == ["report", "repeat"]
    assert nearest("xyzzy", KNOWN) == nearest(None, KNOWN) == []


@pytest.mark.parametrize(
    ("name", "otherwise", "hint"),
    [
        ("scor", None, "did you mean 'score'?"),
        ("scor", "see --help", "did you mean 'score'?"),
        ("xyzzy", None, "known: score, report, repeat"),
        ("xyzzy", "see --help", "see --help"),
    ],
)
def test_hint(name, otherwise, hint):
    assert did_you_mean(name, iter(KNOWN), otherwise) == hint


def test_several_are_offered():
    assert did_you_mean("repot", KNOWN, count=3) == "did you mean 'report', 'repeat'?"
