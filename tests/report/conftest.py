"""A tab of a headless Chromium, driven over its DevTools protocol, and a report of generated photos in it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.report.collect import write_report
from lifeiqa_plugin.report.photos import Photo
from lifeiqa_plugin.scoring.rows import ScoredImage, Thresholds

KEYS = {
    "Enter": 13,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


class Tab:
    """The one tab of a Chromium that listens on a port."""

    def __init__(self, port: int) -> None:
        from urllib.request import urlopen

        from websocket import create_connection

        with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            (tab,) = [tab for tab in json.load(answer) if tab["type"] == "page"]
        self.socket = create_connection(
            tab["webSocketDebuggerUrl"], suppress_origin=True, timeout=120
        )
        self.count = 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            self._note(message)
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        if (
            message.get("method") == "Log.entryAdded"
            and message["params"]["entry"]["level"] == "error"
        ):
            self.errors.append(message["params"]["entry"]["text"])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.run(
            "new Promise(ready => document.readyState === 'complete' ? ready() : onload = ready)"
        )

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def run(self, script: str) -> Any:
        """Run JavaScript in the page, wait for it, and return its value."""
        result = self.call(
            "Runtime.evaluate",
            expression=script, returnByValue=True, awaitPromise=True, userGesture=True,
        )  # fmt: skip
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def becomes(self, script: str, wanted: Any) -> bool:
        """Wait for the value of ``script`` to be ``wanted``, up to a minute; False, and a line, if it never is.

        What a click or a key leads to may come in a task of its own, at no set time: a dialog's ``close``, new cards.
        """
        value = self.run(
            "new Promise(done => { const end = performance.now() + 60000; (function look() {"
            f"const value = JSON.stringify({script});"
            f"value === {compact(wanted)!r} || performance.now() > end ? done(value) : setTimeout(look, 20);"
            "})(); })"
        )
        if value != compact(wanted):
            print(f"{script} is {value}, not {compact(wanted)}")
        return value == compact(wanted)

    def press(self, key: str) -> None:
        code = KEYS.get(key, 0)
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code, **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def click(self, selector: str) -> None:
        """Click the middle of an element, as a hand would: whatever lies above it takes the click."""
        x, y = self.run(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            "node.scrollIntoView({ block: 'center' }); const r = node.getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


def compact(value: Any) -> str:
    """Write JSON as ``JSON.stringify`` does."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@contextmanager
def started(browser: str, folder: Path) -> Iterator[Tab]:
    """Run Chromium with its profile in ``folder`` until the block ends."""
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--remote-debugging-port=0", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--hide-scrollbars", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        for line in process.stderr:
            if "DevTools listening on" in line:
                port = int(line.split("127.0.0.1:")[1].split("/")[0])
                break
        else:
            raise RuntimeError("Chromium did not start")
        tab = Tab(port)
        try:
            yield tab
        finally:
            with suppress(OSError):
                tab.socket.close()
    finally:
        process.terminate()
        process.communicate(timeout=30)


def noise_photo(seed: int) -> Image.Image:
    """A coarse pattern that looks like no other seed's."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def network() -> LifeIQA:
    torch.manual_seed(0)
    return LifeIQA(
        "test_efficientnet", embed_dim=24, num_heads=2, num_queries=3, depth=2, num_experts=4,
        score_range=(0.0, 1.0), crop_size=64, working_size=110, whole_image=True,
        distortions=("blur", "noise", "dark"),
    ).eval()  # fmt: skip


@pytest.fixture(scope="session")
def report(network: LifeIQA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 130 photos, three of which are alike, with an image that could not be scored."""
    folder = tmp_path_factory.mktemp("report")
    rows = []
    for i in range(130):
        name = f"</script><b>{i}.jpg" if i == 7 else f"photo {i}.jpg"
        file = f"photos/{name.replace('/', '_')}"
        (folder / "photos").mkdir(exist_ok=True)
        seed = 50 if i in (50, 51, 52) else i
        noise_photo(seed).save(folder / file, quality=90 - i % 5)
        strengths = {
            "blur": 0.9 if i % 10 == 0 else 0.1,
            "noise": 0.6 if i % 26 == 0 else 0.0,
            "dark": 0.2,
        }
        rows.append(ScoredImage(file, 160, 120, (i + 1) / 140, 0.05 + 0.0001 * i, strengths))
    rows.append(ScoredImage("photos/broken.jpg", error="damaged image"))
    out = folder / "report.html"
    photos = [Photo(row, str(folder / row.name)) for row in rows]
    write_report(photos, out, Thresholds(), network, 3)
    return out


@pytest.fixture(scope="session")
def tab(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    pytest.importorskip("websocket")
    with started(browser, tmp_path_factory.mktemp("profile")) as tab:
        yield tab
