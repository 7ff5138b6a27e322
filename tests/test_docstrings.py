"""Examples in the docstrings of the public names do what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import lifeiqa_plugin

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["lifeiqa_plugin", *sorted(set(lifeiqa_plugin._HOME.values()))])
def test_examples(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0
    assert found.attempted or name.endswith((".rows", ".lifeiqa"))


def test_importing_warns_of_nothing(run_python, tmp_path):
    """Of the package, of every public name, and of the start-up hook."""
    names = ", ".join(lifeiqa_plugin._HOME)
    code = f"import lifeiqa_plugin, _lifeiqa_autoload; from lifeiqa_plugin import {names}"
    done = run_python("-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
