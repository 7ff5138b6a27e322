"""The allocator's settings: what they do, where they are left alone, and that only commands ask for them."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from lifeiqa_plugin import cli

ROOT = str(Path(__file__).parents[1])
FAULTS = """
import resource
import numpy as np
from lifeiqa_plugin.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**23)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default = faults()
print(keep_freed_memory())
faults()
print(default, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_freed_memory_is_used_again(run_python, tmp_path):
    done = run_python("-c", FAULTS, cwd=tmp_path, PYTHONPATH=ROOT)
    took, counts = done.stdout.splitlines()
    default, kept = map(int, counts.split())
    assert took == "True"
    assert kept < default / 10


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_settings_of_the_environment_stand(monkeypatch, name):
    from lifeiqa_plugin.allocator import keep_freed_memory

    monkeypatch.setenv(name, "1")
    assert keep_freed_memory() is False


def test_other_systems_are_left_alone(monkeypatch):
    from lifeiqa_plugin.allocator import keep_freed_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


@pytest.mark.parametrize(
    "command", [f"train -opt {ROOT}/options/train/quick.yml", "evaluate empty nowhere"]
)
def test_commands_ask_for_it(monkeypatch, capsys, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "nowhere").mkdir()
    asked = []
    monkeypatch.setattr("lifeiqa_plugin.allocator.keep_freed_memory", lambda: asked.append(True))
    assert cli.main(command.split()) in (1, 2)
    assert asked == [True]


@pytest.mark.slow
def test_the_library_does_not(run_python, tmp_path):
    code = "import sys, lifeiqa_plugin.training.launch\nprint('lifeiqa_plugin.allocator' in sys.modules)"
    assert run_python("-c", code, cwd=tmp_path, PYTHONPATH=ROOT).stdout == "False\n"
