"""Score images with nothing but ONNX Runtime, Pillow and NumPy; a pattern for other languages.

The file, which `lifeiqa export --format onnx -o lifeiqa.onnx` writes, takes images (B, 3, H, W) in [0, 1] at their
working size and holds all the rest. `lifeiqa score` does more: orientation, ICC profiles, bad files, and antialiased
bicubic resizing in float32; Pillow's rounds to 8 bits, which can move the score of a large photo by hundredths.

    python examples/score_with_onnxruntime.py lifeiqa.onnx photo.jpg ...
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def working_shape(height: int, width: int, least: int, most: int) -> tuple[int, int]:
    """Bring the shorter side into least .. most, the longer one in proportion, at most 8:1."""
    short, long = min(height, width), max(height, width)
    new_short = min(max(short, least), most)
    new_long = min(max(round(long * new_short / short), new_short), 8 * new_short)
    return (new_short, new_long) if height <= width else (new_long, new_short)


def main() -> None:
    """Print score, standard deviation and name of each image."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["lifeiqa"])
    for name in sys.argv[2:]:
        image = Image.open(name).convert("RGB")
        sides = about["crop_size"], about["working_size"]
        height, width = working_shape(image.height, image.width, *sides)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        batch = (pixels / 255).transpose(2, 0, 1)[None]
        score, std = session.run(["score", "std"], {"images": batch})
        print(f"{score[0]:.4f}  +- {std[0]:.4f}  {name}")


if __name__ == "__main__":
    main()
