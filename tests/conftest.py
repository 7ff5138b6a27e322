"""For all tests: no network, one thread, the same random numbers, and a Python of their own for those that need one."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import Tab, started
from hypothesis import HealthCheck, settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
LOCAL = {"127.0.0.1", "::1", "localhost"}
OURS = ("LIFEIQA_", "PIP_", "PYTHON")  # what a developer may have set and a test must not inherit

for profile, count in (("quick", 50), ("thorough", 2000)):  # --hypothesis-profile=thorough
    settings.register_profile(
        profile,
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
settings.load_profile("quick")


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


@pytest.fixture(scope="session")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(BROWSERS)})")
    return found


@pytest.fixture(scope="session")
def tab(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    pytest.importorskip("websocket")
    with started(browser, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def look(browser: str, tmp_path: Path) -> Callable[..., dict]:
    """Open a page in Chromium, without a network, and return what a probe saw there.

    The probe is a script that puts JSON into ``document.title``; the page's policy is told to let it run.
    """

    def open_page(page: Path, probe: str, width: int = 1200) -> dict:
        text = page.read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
        text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
        probed = tmp_path / "probed.html"
        probed.write_text(f"{text}<script>{probe}</script>", encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags += ["--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
        flags += ["--virtual-time-budget=4000", "--dump-dom"]
        done = subprocess.run(
            [browser, *flags, probed.as_uri()],
            env=os.environ | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        title = re.search(r"<title>([{\[].*?)</title>", done.stdout, re.DOTALL)
        assert title, done.stderr[-2000:] + done.stdout[-500:]
        return json.loads(html.unescape(title[1]))

    return open_page
