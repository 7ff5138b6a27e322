"""The page in a real headless Chromium: what a reader sees, without a network, on a phone too."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lifeiqa_plugin import cli

PROBE = """
addEventListener("load", () => {
  const all = (query, root) => [...(root || document).querySelectorAll(query)];
  const read = id => all(`#${id} tbody tr`).map(row => [...row.cells].map(cell => cell.textContent));
  const report = { accuracy: read("accuracy-scores"), cost: read("cost"), failures: read("failures") };
  report.headline = document.querySelector(".headline").textContent;
  report.empty = all("th").filter(cell => !cell.textContent.trim()).length;
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
  report.hints = all(".aside").map(hint => !hint.hidden);
  report.wide = all(".scroll").map(box => box.scrollWidth > box.clientWidth);
  report.columns = getComputedStyle(document.querySelector(".gallery")).gridTemplateColumns.split(" ").length;
  report.width = [document.documentElement.scrollWidth, document.documentElement.clientWidth];
  const loaded = performance.getEntriesByType("resource").map(entry => entry.name);
  report.requests = loaded.filter(name => !name.startsWith("data:"));
  document.title = JSON.stringify(report);
});
"""


@pytest.fixture
def page(command) -> Path:
    """Write the page of a small comparison, beside its tables."""
    speed = ["--cpu-only", "--sizes", "32x24", "--rounds", "2", "--batch", "1", "--no-memory"]
    assert command(*speed) == 0
    return Path("out").resolve() / "benchmark.html"


@pytest.mark.slow
def test_rendered_numbers(look, page):
    seen = look(page, PROBE)
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
    first, second = best.sort_values(ascending=False).index[:2]
    assert seen["headline"] == (
        f"{first} agrees best with people on scores: SRCC {best[first]:.3f}, then {second} with {best[second]:.3f}."
    )
    assert seen["empty"] == 0
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
    assert seen["columns"] == 8
    assert seen["hints"] == seen["wide"]
    phone = look(page, PROBE, 500)  # the narrowest window that Chromium opens
    assert phone["width"][0] <= phone["width"][1] <= 500
    assert phone["plots"] == scored
    assert phone["columns"] == 2
    assert phone["hints"] == phone["wide"]
    assert phone["hints"][0]


def test_page_asks_for_nothing(page):
    text = page.read_text()
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<script src|@import|url\(", text)
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert {image["thumbnail"][:23] for image in data["datasets"][0]["images"]} == {
        "data:image/jpeg;base64,"
    }


@pytest.fixture
def hostile(images, tmp_path, monkeypatch) -> Path:
    """Compare on a dataset whose names, groups and errors try to become markup; returns its page."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    names = ["<!--<script>.jpg", 'it\'s "quoted".jpg', "two\nlines.jpg", "图像 ü.jpg", "=1+2.jpg"]
    for i, name in enumerate(names):
        shutil.copy(images / f"{i:02d}.png", folder / name)
    shutil.copy(images / "05.png", tmp_path / "secret.png")
    names += ["../secret.png", "<b>missing</b>.jpg"]
    groups = ["<", "</script><b>", "<", "<", "<", "<", "<"]
    table = pd.DataFrame({"name": names, "mos": range(len(names)), "subset": groups})
    table.to_csv(folder / "scores.csv", index=False)
    monkeypatch.chdir(tmp_path)
    arguments = ["-m", "entropy", "-d", str(folder / "scores.csv"), "-o", "out", "--no-speed"]
    assert cli.main(["benchmark", "--samples", "0", *arguments]) == 0
    return tmp_path / "out" / "benchmark.html"


def test_hostile_names_are_shown_as_they_are(look, hostile):
    probe = """addEventListener("load", () => { document.title = JSON.stringify({
      tables: document.querySelectorAll("table").length,
      accuracy: [...document.querySelectorAll("#accuracy-scores td")].map(cell => cell.textContent),
      failures: [...document.querySelectorAll("#failures td")].map(cell => cell.textContent),
      bold: document.querySelectorAll("main b").length,
      notes: [...document.querySelectorAll("main > p")].map(node => node.textContent),
      names: data.datasets[0].images.map(image => [image.name, image.thumbnail !== ""]),
    }); });"""
    seen = look(hostile, probe)
    assert seen["tables"] == 3
    srcc = pd.read_csv(hostile.with_name("accuracy.csv")).loc[0, "srcc"]
    assert seen["accuracy"][:2] == ["entropy", f"{srcc:.3f}"]
    assert seen["failures"][2] == "<b>missing</b>.jpg"
    assert seen["bold"] == 1  # the plot's title
    assert "Images outside of the dataset's folder, not shown: 1" in seen["notes"]
    names = dict(seen["names"])
    assert names["<!--<script>.jpg"]
    assert names["two\nlines.jpg"]
    assert not names["../secret.png"]


def test_a_name_with_a_line_end_is_scored_once(hostile):
    kept = hostile.parent / "scores" / "entropy" / "scores.csv"
    before = kept.read_text()
    assert "two\\nlines.jpg,3" in before
    arguments = ["-m", "entropy", "-d", "hostile/scores.csv", "-o", "out", "--no-speed"]
    assert cli.main(["benchmark", "--samples", "0", *arguments]) == 0
    added = kept.read_text().removeprefix(before)
    assert added.count("\n") == 1
    assert added.startswith("<b>missing</b>.jpg,,")
    scores = pd.read_csv(hostile.parent / "scores.csv").set_index("name")
    assert scores.loc["two\nlines.jpg", "score"] > 3
