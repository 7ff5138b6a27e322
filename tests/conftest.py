"""For all tests: no network, one thread, the same random numbers, and a Python of their own for those that need one."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LOCAL = {"127.0.0.1", "::1", "localhost"}
OURS = ("LIFEIQA_", "PIP_", "PYTHON")  # what a developer may have set and a test must not inherit


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: tuple) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise OSError(f"tests must pass without a network, but something connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing by more; processes that tests start read the number from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch else None
        if torch:
            torch.set_num_threads(1)
        yield
        if torch:
            torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess]:
    """Run ``python *arguments`` away from the checkout; ``environ`` is added to a clean environment."""

    def run(
        *arguments: str | Path, cwd: Path, python: str | Path = sys.executable, **environ: str
    ) -> subprocess.CompletedProcess:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        command = [str(part) for part in (python, *arguments)]
        return subprocess.run(
            command, cwd=cwd, env=inherited | environ, capture_output=True, text=True, timeout=300
        )

    return run
