"""A tab of a headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
