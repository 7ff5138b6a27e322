"""A page of hostile names in a real browser, its policy, and small copies of images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lifeiqa_plugin.page import embed, small_copy
from lifeiqa_plugin.page.document import to_json

HOSTILE = [
    "<!--<script>.jpg",
    "</script><script>document.title = 'stolen'</script>",
    "<img src=x onerror=\"document.title = 'stolen'\">",
    "'\"`${alert(1)}`&amp;&lt;",
    "two\nlines\r\u2028.jpg",
    '=HYPERLINK("x")',
    "Zürich 図 \U0001f4f7 \u202egpj.jpg",
    "{{data}} {{policy}}",
    "not utf-8 \udcff.jpg",
]
SHOWN = HOSTILE[:-1]  # the last stops --dump-dom
TEMPLATE = """<main id="main"></main>
<script>
const main = document.getElementById("main");
table(main, "names", data);
scatter(main, { title: data.rows[0][0], note: data.rows[1][0], points: [[1, 2], [3, 4]], curve: [],
  xLabel: data.rows[2][0], yLabel: "y", describe: i => ({ image: "", text: data.rows[i][0] }) });
</script>
"""
PROBE = """
const ran = [];
addEventListener("securitypolicyviolation", event => ran.push(event.violatedDirective));
addEventListener("load", () => {
  const late = document.createElement("script");
  late.textContent = "window.injected = true";
  document.body.append(late);
  const image = document.createElement("img");
  image.src = "https://example.org/x.png";
  document.body.append(image);
  setTimeout(() => {
    document.title = JSON.stringify({
      names: [...document.querySelectorAll("#names td")].map(cell => cell.textContent),
      title: document.querySelector("h1").textContent,
      plots: document.querySelectorAll(".plot svg .dots").length,
      scripts: document.scripts.length,
      injected: window.injected === true,
      refused: ran,
    });
  }, 100);
});
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    rows = [[name] for name in SHOWN]
    path = tmp_path / "page.html"
    path.write_text(embed(TEMPLATE, {"header": ["name"], "rows": rows}, "<b>&"), encoding="utf-8")
    return path


def test_hostile_names_are_text(look, page):
    seen = look(page, PROBE)
    assert seen["title"] == "<b>&"
    assert seen["names"] == SHOWN
    assert seen["plots"] == 1
    assert seen["scripts"] == 5  # data, charts, template, the probe and what the probe tried to add
    assert not seen["injected"]
    assert {rule.split("-")[0] for rule in seen["refused"]} == {"script", "img"}


def test_json_cannot_leave_its_element():
    text = to_json({"a": HOSTILE, "b": [np.float64("nan"), np.int64(3), float("inf")]})
    assert "<" not in text
    assert text.isascii()
    assert json.loads(text) == {"a": HOSTILE, "b": [None, 3, None]}


def test_a_page_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("</script>") == 3
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<script src|@import|url\(", text)


def test_small_copies(tmp_path):
    Image.new("RGB", (64, 32), (200, 0, 0)).save(tmp_path / "a.png")
    copy = small_copy(tmp_path / "a.png", 16)
    assert copy.startswith("data:image/jpeg;base64,")
    assert copy == small_copy(Image.new("RGB", (64, 32), (200, 0, 0)), 16)
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert small_copy(str(tmp_path / "bad.png"), 16) == ""
    assert small_copy(str(tmp_path / "missing.png"), 16) == ""
