"""Write ``vectors.json``, with which a port to another language is tested: what goes in, and what must come out.

    python examples/browser/vectors.py

Color ``c`` (0, 1, 2) of the pixel at column ``x`` and row ``y`` of an input is ``(3 x x + 5 y y + (c + 1) x y) >> 6``,
of which the lowest 8 bits count. ``tensor`` holds every ``step``-th number of the planes at the working size, in the
order red, green, blue, each row by row.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

import lifeiqa_plugin
from lifeiqa_plugin.images.reading import decode_resized

PATH = Path(__file__).with_name("vectors.json")

SIZES = ((300, 500), (100, 151), (901, 700), (60, 1000), (1250, 1901))
"""Height and width: of an image that fits, a small, a large, a very long one, and one that gets a nearer look."""

STEP = 9973


def pattern(height: int, width: int) -> np.ndarray:
    """Return the input of a size, (height, width, 3) in 8 bits."""
    y, x, c = np.ogrid[:height, :width, :3]
    return ((3 * x * x + 5 * y * y + (c + 1) * x * y >> 6) & 255).astype(np.uint8)


def make_vectors() -> dict[str, Any]:
    """Return the vectors of the default network."""
    scorer = lifeiqa_plugin.Scorer(engine="onnxruntime", device="cpu", exact=True)
    cases = []
    for height, width in SIZES:
        image = pattern(height, width)
        planes = decode_resized(image, scorer.engine.working_shape).pixels
        scored = scorer(image)
        cases.append(
            {
                "height": height,
                "width": width,
                "shape": planes.shape,
                "tensor": [round(float(value), 6) for value in planes.ravel()[::STEP]],
                "score": round(scored.score, 6),
                "detail": None if math.isnan(scored.detail) else round(scored.detail, 6),
                "std": round(scored.std, 6),
                "distortions": {name: round(v, 6) for name, v in scored.distortions.items()},
            }
        )
    return {"weights_sha256": scorer.engine.metadata.weights_sha256, "step": STEP, "cases": cases}


if __name__ == "__main__":
    PATH.write_text(json.dumps(make_vectors(), indent=1) + "\n", encoding="utf-8")
