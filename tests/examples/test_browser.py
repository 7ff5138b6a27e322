"""``examples/browser``: a page in a real headless Chromium gives Python's scores; the vectors for ports are current."""

from __future__ import annotations

import functools
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from chromium import Tab
from PIL import ExifTags, Image

import lifeiqa_plugin
from lifeiqa_plugin.network.detail import DetailRule

BROWSER = Path(__file__).parents[2] / "examples" / "browser"
PHOTOS = sorted((BROWSER.parent / "photos").glob("*_[02]_*.jpg"))
VECTORS = json.loads((BROWSER / "vectors.json").read_text("utf-8"))

pytest.importorskip("onnxruntime")


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, BROWSER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vectors_are_current():
    """Else run ``python examples/browser/vectors.py``."""
    made = load("vectors").make_vectors()
    assert made["weights_sha256"] == VECTORS["weights_sha256"]
    assert len(made["cases"]) == len(VECTORS["cases"]) == 5
    for now, kept in zip(made["cases"], VECTORS["cases"], strict=True):
        assert list(now["shape"]) == kept["shape"]
        np.testing.assert_allclose(now["tensor"], kept["tensor"], atol=2e-6)
        assert len(kept["tensor"]) > 20
        assert now["detail"] == pytest.approx(kept["detail"], abs=1e-4)
        assert now["score"] == pytest.approx(kept["score"], abs=1e-4)
        assert now["distortions"] == pytest.approx(kept["distortions"], abs=1e-3)


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The page as it is built, and photos."""
    build = load("build")
    if not all((build.VENDOR / name).is_file() for name in build.RUNTIME_FILES):
        pytest.skip("no onnxruntime-web here; python examples/browser/build.py FOLDER fetches it")
    folder = tmp_path_factory.mktemp("site")
    build.build(folder)
    for path in PHOTOS:
        (folder / path.name).write_bytes(path.read_bytes())
    see_through, turned = Image.open(PHOTOS[0]), Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    see_through.resize((1500, 1201)).save(folder / "turned.jpg", exif=turned)
    see_through.putalpha(Image.linear_gradient("L").resize(see_through.size))
    see_through.save(folder / "see_through.png")
    return folder


@pytest.fixture(scope="module")
def page(folder, tab) -> Iterator[Tab]:
    """The page behind a web server, ready to score."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tab.open(f"http://127.0.0.1:{server.server_port}/index.html")
    assert tab.becomes("document.getElementById('status').textContent", "Ready.")
    yield tab
    server.shutdown()
    server.server_close()


PATTERN = """
(async () => {
  const { load, resize, workingShape } = await import("./lifeiqa.js");
  const network = window.network ??= await load();
  const [height, width, step] = %s, data = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++)
    data[4 * (y * width + x) + c] = (3 * x * x + 5 * y * y + (c + 1) * x * y >> 6) & 255;
  const shape = workingShape(height, width, network.about);
  const tensor = resize({ data, height, width }, ...shape).filter((_, i) => i %% step === 0);
  return { shape: [3, ...shape], tensor: [...tensor], ...(await network.score({ data, height, width })) };
})()
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['height']}")
def test_the_browser_gives_the_vectors(page, case):
    found = page.run(PATTERN % [case["height"], case["width"], VECTORS["step"]])
    assert found["shape"] == case["shape"]
    np.testing.assert_allclose(found["tensor"], case["tensor"], atol=2e-6)
    for name in ("score", "std", "detail"):
        assert found.get(name) == pytest.approx(case[name], abs=1e-4), name
    assert found["distortions"] == pytest.approx(case["distortions"], abs=1e-3)


@pytest.mark.slow
def test_the_nearer_look(page):
    """With a rule of its own, whether or not the bundled network has one."""
    rule = {"offset": 0.3, "score": -0.05, "blur": 0.02, "noise": -0.01}
    scorer = lifeiqa_plugin.Scorer(engine="onnxruntime", device="cpu", exact=True)
    scorer.engine.detail = DetailRule.parse(rule)
    looks_nearer = lifeiqa_plugin.Scorer(engine=scorer.engine, exact=True)
    case = VECTORS["cases"][-1]
    size = case["height"], case["width"]
    expected = looks_nearer(load("vectors").pattern(*size))
    run = f"network.about.detail = {json.dumps(rule)}; return {{ shape"
    found = page.run(PATTERN.replace("return { shape", run) % [*size, VECTORS["step"]])
    page.run("window.network = undefined")
    assert found["detail"] == pytest.approx(expected.detail, abs=1e-4)
    assert found["score"] == pytest.approx(expected.score, abs=1e-4)
    looks_once = lifeiqa_plugin.Scorer(engine=scorer.engine, exact=True, detail=False)
    assert abs(expected.score - looks_once(load("vectors").pattern(*size)).score) > 0.01


DROP = """
(async () => {
  const files = new DataTransfer();
  for (const name of %s) files.items.add(new File([await (await fetch(name)).blob()], name));
  document.dispatchEvent(Object.assign(new Event("drop", { cancelable: true }), { dataTransfer: files }));
})()
"""

CARDS = "[...document.querySelectorAll('#gallery li')].map(li => [li.lastChild.textContent, +li.dataset.score])"


@pytest.mark.slow
def test_photos_that_are_dropped_are_sorted_by_pythons_scores(folder, page):
    """Within 1e-4; less close only where a canvas mixes what is transparent with white in 8 bits."""
    names = [path.name for path in PHOTOS] + ["see_through.png", "turned.jpg", "model.json"]
    assert len(names) == 13
    page.run(DROP % json.dumps(names))
    status = "document.getElementById('status').textContent"
    assert page.becomes(status, "12 photos, best first.")
    found = dict(page.run(CARDS))
    assert list(found.values()) == sorted(found.values(), reverse=True)
    scorer = lifeiqa_plugin.Scorer(engine="onnxruntime", device="cpu", exact=True)
    for name, score in found.items():
        tolerance = 5e-3 if name == "see_through.png" else 1e-4
        assert score == pytest.approx(scorer(folder / name).score, abs=tolerance), name
    errors = page.run("document.getElementById('errors').textContent")
    assert errors == "model.json: The source image could not be decoded."
    flaws = page.run("document.getElementById('gallery').lastChild.children[3].textContent")
    assert "blur" in flaws
    assert page.errors == []
