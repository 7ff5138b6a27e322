"""Make the two figures of the README: an explanation, and a screenshot of the report page in headless Chromium.

    python tools/readme_figures.py

Writes docs/figures/explanation.png and docs/figures/report.png, 256 colours each, from examples/photos.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from lifeiqa_plugin.cli import main as lifeiqa
from lifeiqa_plugin.explanation.explain import explain
from lifeiqa_plugin.explanation.figure import draw

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def save_small(image: Image.Image, path: Path) -> None:
    """Write an image of at most 1280 pixels in 256 colours, dithered so that smooth maps have no steps."""
    image.thumbnail((1280, 1280), Image.Resampling.LANCZOS)
    image = image.convert("RGB")
    palette = image.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    image.quantize(palette=palette).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


def screenshot(photos: Path, browser: str) -> Image.Image:
    """Report on a folder and return how the page looks when it is opened."""
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "report.html", Path(folder) / "report.png"
        if lifeiqa(["report", str(photos), "-o", str(page), "--maps", "0"]):
            raise SystemExit("no report was written")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder}/profile", "--window-size=1280,1000",
            "--virtual-time-budget=4000", f"--screenshot={picture}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(picture) as image:
            return image.convert("RGB").crop(
                (0, 0, 1280, 860)
            )  # the page is less high than its window


def main() -> None:
    """Make both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, default=ROOT / "examples" / "photos")
    parser.add_argument("--photo", default="chelsea_2_blur.jpg", help="to explain, of --photos")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no Chromium on this machine (looked for {', '.join(BROWSERS)})")
    save_small(screenshot(args.photos, browser), args.out / "report.png")
    with Image.open(
        io.BytesIO(draw(explain(args.photos / args.photo, attribution_steps=0), "png"))
    ) as figure:
        save_small(figure, args.out / "explanation.png")


if __name__ == "__main__":
    main()
