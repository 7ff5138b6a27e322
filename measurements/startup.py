"""Measure what the start-up hook adds to each start of Python.

Two environments are made that differ in the hook's three files only. Python is started in them in turn, so that
whatever else the machine does slows both alike; what the hook adds is the median over the pairs of their difference.

    python measurements/startup.py --runs 300
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOOK = ["_lifeiqa_autoload.py", "_lifeiqa_autoload.pth", "_lifeiqa_autoload.start"]


def make_environment(folder: Path, files: list[str]) -> Path:
    """Make a virtual environment with these files of the checkout in site-packages; return its Python."""
    venv.create(folder, symlinks=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    for name in files:
        shutil.copy(ROOT / name, site_packages)
    return folder / "bin" / "python"


def start(python: Path) -> float:
    """Start and end this Python; return the milliseconds that took."""
    begin = time.perf_counter()
    subprocess.run([python, "-I", "-c", ""], check=True)
    return 1000 * (time.perf_counter() - begin)


def describe(what: str, times: list[float]) -> str:
    """Return one line with the median and the quartiles of some milliseconds."""
    low, median, high = statistics.quantiles(times, n=4)
    return f"{what:<12} {median:7.2f} ms (quartiles {low:.2f} to {high:.2f})"


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=300, help="starts of each environment")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        bare = make_environment(Path(folder, "bare"), [])
        hooked = make_environment(Path(folder, "hooked"), HOOK)
        start(bare), start(hooked)  # compiles the hook
        pairs = [(start(bare), start(hooked)) for _ in range(runs)]
    without, with_hook = (list(times) for times in zip(*pairs, strict=True))
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {runs} starts of each, in turn"
    )
    print(describe("without hook", without))
    print(describe("with hook", with_hook))
    print(describe("added", [slow - fast for fast, slow in pairs]))


if __name__ == "__main__":
    main()
