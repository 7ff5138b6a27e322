"""The page in a real headless Chromium: what a reader sees, without a network, on a phone too."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from lifeiqa_plugin import cli
from lifeiqa_plugin.benchmark.page import small_copy

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
PROBE = """<script>
addEventListener("load", () => {
  const all = (query, root) => [...(root || document).querySelectorAll(query)];
  const read = id => all(`#${id} tbody tr`).map(row => [...row.cells].map(cell => cell.textContent));
  const report = { accuracy: read("accuracy-scores"), cost: read("cost"), failures: read("failures") };
  report.heads = all("#accuracy-scores th").map(cell => cell.textContent);
  all("#accuracy-scores th button")[1].click();
  report.descending = read("accuracy-scores").map(row => row[0]);
  all("#accuracy-scores th button")[1].click();
  report.ascending = read("accuracy-scores").map(row => row[0]);
  report.sorted = all("#accuracy-scores th")[1].getAttribute("aria-sort");
  report.marks = all("#cost-scores circle.mark").length;
  report.hollow = all("#cost-scores .hollow").length;
  report.plots = all(".plot b").map(node => node.textContent);
  report.dots = all(".plot .dots").map(node => node.getAttribute("d").split("M").length - 1);
  report.curves = all(".plot .curve").length;
  report.gallery = all(".gallery img").map(image => image.naturalWidth);
  const svg = document.querySelector(".plot svg"), edge = svg.getBoundingClientRect(), box = svg.viewBox.baseVal;
  const [, x, y] = svg.querySelector(".dots").getAttribute("d").match(/M([\\d.]+) ([\\d.]+)/).map(Number);
  const at = { clientX: edge.left + x * edge.width / box.width, clientY: edge.top + y * edge.height / box.height };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
  const tip = document.getElementById("tip");
  report.tip = [tip.style.visibility, tip.textContent, all("img", tip).length];
  report.width = [document.documentElement.scrollWidth, document.documentElement.clientWidth];
  const loaded = performance.getEntriesByType("resource").map(entry => entry.name);
  report.requests = loaded.filter(name => !name.startsWith("data:"));
  document.title = JSON.stringify(report);
});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(BROWSERS)})")
    return found


@pytest.fixture
def page(metric_file, images, tmp_path, monkeypatch) -> Path:
    """Write the page of a small comparison, beside its tables."""
    monkeypatch.chdir(tmp_path)
    arguments = [
        "--metric_opt",
        str(metric_file),
        "-d",
        str(images / "scores.csv"),
        "-o",
        str(tmp_path),
    ]
    speed = ["--cpu-only", "--sizes", "32x24", "--rounds", "2", "--batch", "1", "--no-memory"]
    assert cli.main(["benchmark", "--device", "cpu", "--samples", "8", *arguments, *speed]) == 0
    return tmp_path / "benchmark.html"


def look(browser: str, page: Path, width: int) -> dict:
    """Open the page in a frame of this width, use it, and return what was there."""
    probed = page.read_text().replace("</body>", PROBE + "</body>")
    assert PROBE in probed
    inner = page.with_name("probed.html")
    inner.write_text(probed)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}"]
    flags += [f"--window-size={width},900", "--virtual-time-budget=4000", "--dump-dom"]
    environ = os.environ | {"HOME": str(page.parent)}
    done = subprocess.run(
        [browser, *flags, inner.as_uri()], capture_output=True, text=True, timeout=120, env=environ
    )
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout, re.DOTALL)
    assert title, done.stderr[-2000:] + done.stdout[-500:]
    return json.loads(html.unescape(title[1]))


@pytest.mark.slow
def test_rendered_numbers(browser, page):
    seen = look(browser, page, 1200)
    table = pd.read_csv(page.with_name("accuracy.csv")).set_index("metric")
    assert [row[0] for row in seen["accuracy"]] == list(table.index)
    for row in seen["accuracy"]:
        line = table.loc[row[0]]
        cells = dict(zip((head.strip() for head in seen["heads"]), row, strict=True))
        names = {
            "SRCC": "srcc",
            "PLCC": "plcc",
            "PLCC (logistic-5)": "plcc_logistic5",
            "RMSE": "rmse_logistic4",
        }
        for head, name in names.items():
            low, high = (f"{line[name + end]:.3f}" for end in ("_low", "_high"))
            assert cells[head] == (
                "" if pd.isna(line[name]) else f"{line[name]:.3f} ({low} to {high})"
            )
        assert cells["n"] == str(line["n"])
    costs = pd.read_csv(page.with_name("efficiency.csv")).set_index("metric")
    assert [row[0] for row in seen["cost"]] == list(table.index)
    seconds = [float((row[2].split() or ["nan"])[0]) for row in seen["cost"]]
    assert seconds == pytest.approx(list(costs.loc[table.index, "seconds"]), rel=5e-3, nan_ok=True)
    assert [row[1] for row in seen["failures"]] == ["dark"] * 5
    # sorting: by value, empty cells last whichever way
    best = table["srcc"].dropna()
    assert [best[name] for name in seen["descending"][:-2]] == sorted(best, reverse=True)
    assert [best[name] for name in seen["ascending"][:-2]] == sorted(best)
    assert seen["sorted"] == "ascending"
    # charts
    scored = list(best.index)
    assert (seen["marks"], seen["hollow"]) == (len(scored), 1)
    assert seen["plots"] == scored
    assert seen["dots"] == [table.loc[name, "n"] for name in scored]
    assert seen["curves"] == len(scored)
    assert len(seen["gallery"]) == 8 * len(scored)
    assert min(seen["gallery"]) > 0
    assert seen["tip"][0] == "visible"
    assert re.match(r"00\.png: people 0\.\d+, right 0\.\d+", seen["tip"][1])
    assert seen["tip"][2] == 1
    assert seen["requests"] == []
    # on a phone tables scroll, and the page does not
    phone = look(browser, page, 500)  # the narrowest window that Chromium opens
    assert phone["width"][0] <= phone["width"][1] <= 500
    assert phone["plots"] == scored


def test_page_asks_for_nothing(page):
    text = page.read_text()
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<script src|@import|url\(", text)
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert {image["thumbnail"][:23] for image in data["sets"][0]["images"]} == {
        "data:image/jpeg;base64,"
    }


def test_text_of_names_cannot_end_the_script(metric_file, images, tmp_path, monkeypatch):
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(3):
        shutil.copy(images / f"{i:02d}.png", folder / f"{i}.png")
    (folder / "scores.csv").write_text(
        "name,mos,subset\n0.png,1,<\n1.png,2,</script><b>\n2.png,3,<\n"
    )
    arguments = [
        "-m",
        "entropy",
        "-d",
        str(folder / "scores.csv"),
        "-o",
        str(tmp_path / "out"),
        "--no-speed",
    ]
    assert cli.main(["benchmark", "--samples", "3", "--by", "subset", *arguments]) == 0
    assert (tmp_path / "out" / "benchmark.html").read_text().count("</script>") == 2


def test_small_copies(images, tmp_path):
    assert small_copy(str(images / "00.png"), 16).startswith("data:image/jpeg;base64,")
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert small_copy(str(tmp_path / "bad.png"), 16) == ""
