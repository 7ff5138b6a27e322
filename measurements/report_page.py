"""Measure how soon a page of ``lifeiqa report`` shows something and how long it takes to sort, in headless Chromium.

    lifeiqa report FOLDER -o report.html
    python measurements/report_page.py report.html

Opens a copy of the page that may report to this process, which the page itself may not, in a fresh profile each round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from measuring import conditions

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REPORTER = """<script>
addEventListener("load", () => setTimeout(() => {
  const found = { "first paint": performance.getEntriesByName("first-contentful-paint")[0].startTime };
  for (const option of byId("sort").options) {
    const start = performance.now();
    byId("sort").value = option.value;
    byId("sort").dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    found[`sort, ${option.text}`] = performance.now() - start;
  }
  fetch("http://127.0.0.1:PORT", { method: "POST", mode: "no-cors", body: JSON.stringify(found) });
}, 1000));
</script>"""


class Listener(BaseHTTPRequestHandler):
    """Takes in what one page reports."""

    found: dict[str, float] | None = None

    def do_POST(self) -> None:
        """Keep the milliseconds of each thing."""
        length = int(self.headers["Content-Length"])
        Listener.found = json.loads(self.rfile.read(length))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def open_page(page: str, browser: str, timeout: float) -> dict[str, float]:
    """Open a page in a browser of its own and return the milliseconds it reports.

    Raises:
        SystemExit: it reported nothing in time.
    """
    Listener.found = None
    with tempfile.TemporaryDirectory() as folder, HTTPServer(("127.0.0.1", 0), Listener) as server:
        server.timeout = timeout
        copy = Path(folder) / "report.html"
        without_policy = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
        reporter = REPORTER.replace("PORT", str(server.server_port))
        copy.write_text(without_policy.replace("</body>", reporter + "</body>"), encoding="utf-8")
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,860",
            "--disable-dev-shm-usage", "--disable-web-security", "--no-first-run",
            f"--user-data-dir={folder}/profile", "--remote-debugging-port=0", copy.as_uri(),
        ]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            server.handle_request()
        finally:
            process.terminate()
            process.wait(30)
    if Listener.found is None:
        raise SystemExit(f"the page reported nothing within {timeout} s")
    return Listener.found


def main() -> None:
    """Print the size and the median times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", type=Path, help="what lifeiqa report wrote")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds a round (default 120)")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no Chromium on this machine (looked for {', '.join(BROWSERS)})")
    page = args.page.read_text(encoding="utf-8")
    rounds = [open_page(page, browser, args.timeout) for _ in range(args.rounds)]
    print(f"{conditions()}; load {os.getloadavg()[0]:.1f}")
    print(f"{args.page.name}: {args.page.stat().st_size / 1e6:.1f} MB, {args.rounds} rounds")
    for what in rounds[0]:
        seconds = [found[what] / 1000 for found in rounds]
        print(f"{what}: {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
