"""Measure the peak resident memory of scoring one huge image, as a tensor and from a JPEG file as the CLI reads it.

    python measurements/memory.py --megapixels 100

Each case is a process of its own. "small tensor" is what Python, torch, pyiqa and the network need by themselves,
"JPEG file, not scored" what pyiqa's reader of files needs before the network sees anything.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from measuring import add_metric_arguments, conditions, create_lifeiqa, markdown_table
from PIL import Image
from pyiqa.utils.img_util import imread2tensor

SMALL = 224
CASES = ("small tensor", "tensor", "JPEG file, not scored", "JPEG file")
DRAW = "draw"


def gibibytes(maxrss: int) -> float:
    """Convert ``ru_maxrss``, which Linux gives in KiB and macOS in bytes."""
    return maxrss / (1024**3 if sys.platform == "darwin" else 1024**2)


def draw(path: Path, side: int) -> None:
    """Write a square JPEG of smooth random colours."""
    small = torch.randint(
        256, (32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    Image.fromarray(small.numpy()).resize((side, side), Image.Resampling.BILINEAR).save(
        path, quality=90
    )


def measure(case: str, path: Path, side: int, args: argparse.Namespace) -> dict[str, float]:
    """Score one image in this process; return the seconds it took and the process's peak in GiB."""
    warnings.simplefilter(
        "ignore", Image.DecompressionBombWarning
    )  # Pillow's doubts about 90 megapixels and more
    metric = create_lifeiqa(args)
    side = SMALL if case == "small tensor" else side
    image = str(path) if case.startswith("JPEG") else torch.rand(1, 3, side, side)
    start = time.perf_counter()
    (imread2tensor if case.endswith("not scored") else metric)(image)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "peak": gibibytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
    }


def in_process(case: str, path: Path) -> str:
    """Run this script again for one case, with the same command line; return what it prints.

    Drawing is such a case too: a process starts with the peak of the one that started it, which must stay small.
    """
    command = [sys.executable, __file__, *sys.argv[1:], "--case", case, "--path", str(path)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--case", choices=(DRAW, *CASES), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    add_metric_arguments(parser)
    args = parser.parse_args()
    side = round(math.sqrt(args.megapixels * 1e6))
    if args.case == DRAW:
        draw(args.path, side)
    elif args.case is not None:
        print(json.dumps(measure(args.case, args.path, side, args)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "huge.jpg")
            in_process(DRAW, path)
            results = {case: json.loads(in_process(case, path)) for case in CASES}
        rows = [[case, f"{r['peak']:.2f}", f"{r['seconds']:.2f}"] for case, r in results.items()]
        print(f"{conditions()}; {side}x{side} pixels\n")
        print(markdown_table(["input", "peak resident memory, GiB", "seconds"], rows))


if __name__ == "__main__":
    main()
