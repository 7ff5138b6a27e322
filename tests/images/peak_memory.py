"""The memory that kinds of images take, stated and measured, in a table as in docs/decoding.md; for Linux.

Each is written and read in processes of their own, which begin as copies of this one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from image_files import encode, write_png16

from lifeiqa_plugin.images.color import ADOBE_RGB, Signal, make_profile
from lifeiqa_plugin.images.memory import bytes_needed
from lifeiqa_plugin.images.opening import open_image
from lifeiqa_plugin.images.reading import decode_resized
from lifeiqa_plugin.pyiqa_compat import add_codec

WIDTH, HEIGHT = 2400, 1600


def picture(mode: str) -> Image.Image:
    """Return waves, which files hold in little space."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    bands = [((x * (i + 1) + y) // 8 % 250).astype(np.uint8) for i in range(len(mode))]
    merged = Image.merge("RGBA"[: len(bands)], [Image.fromarray(band) for band in bands])
    return merged if mode != "CMYK" else Image.frombytes("CMYK", merged.size, merged.tobytes())


def deep(channels: int) -> bytes:
    """Write a PNG of 16 bits to a color."""
    image = picture("RGBA"[:channels]) if channels > 1 else picture("RGB").convert("L")
    return write_png16(np.asarray(image).reshape(HEIGHT, WIDTH, channels).astype(np.uint16) * 257)


def write(kind: str, mode: str = "RGB", **options: object) -> Callable[[], bytes]:
    """Return what writes a file."""
    if mode in ("L", "P"):
        return lambda: encode(picture("RGB").convert(mode), kind, **options)
    return lambda: encode(picture(mode), kind, **options)


KINDS: dict[str, Callable[[], bytes]] = {
    "JPEG": write("JPEG"),
    "JPEG, gray": write("JPEG", "L"),
    "JPEG, a profile": write("JPEG", icc_profile=make_profile(Signal(ADOBE_RGB, 2.2, ""), "RGB")),
    "JPEG, progressive, halved colors": write("JPEG", progressive=True),
    "JPEG, progressive, full colors": write("JPEG", progressive=True, subsampling=0),
    "JPEG, progressive, CMYK": write("JPEG", "CMYK", progressive=True),
    "PNG": write("PNG", compress_level=1),
    "PNG, gray": write("PNG", "L", compress_level=1),
    "PNG, palette": write("PNG", "P", compress_level=1),
    "PNG, transparency": write("PNG", "RGBA", compress_level=1),
    "PNG, palette with transparency": write("PNG", "P", compress_level=1, transparency=9),
    "PNG, 16 bits, gray": lambda: deep(1),
    "PNG, 16 bits, color": lambda: deep(3),
    "PNG, 16 bits, transparency": lambda: deep(4),
    "GIF": write("GIF", "P"),
    "TIFF": write("TIFF", compression="tiff_lzw"),
    "BMP": write("BMP"),
    "WebP": write("WEBP", method=0),
    "WebP, transparency": write("WEBP", "RGBA", method=0),
    "AVIF": write("AVIF", speed=10),
    "AVIF, transparency": write("AVIF", "RGBA", speed=10),
    "HEIF": write("HEIF"),
    "JPEG XL": write("JXL", effort=1),
    "JPEG 2000": write("JPEG2000"),
    "JPEG 2000, transparency": write("JPEG2000", "RGBA"),
}


def peak() -> int:
    """Return the most bytes that this process has taken."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def apart(call: Callable[[], object]) -> object:
    """Return what a call returns in a process that begins as this one; None if it fails."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            os.write(writing, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        answer = file.read()
    os.wait()
    return json.loads(answer) if answer else None


def measure(path: str, at_least: int | None) -> tuple[int, int]:
    """Return the bytes that an image takes, stated and measured."""
    with open_image(path) as opened:
        size = opened.image.size
        if at_least is not None:
            opened.image.draft(None, (at_least, at_least))
        stated = bytes_needed(opened.image, size)
    before = peak()
    decode_resized(path, lambda height, width: (384, 576), at_least=at_least)
    return stated, peak() - before


def results() -> Iterator[tuple[str, int, int]]:
    """Yield kind, bytes stated and bytes measured."""
    Image.init()
    for start in (b"\xff\x0a", b""):
        add_codec(start, start == b"")
    decode_resized(encode(Image.new("RGB", (600, 600))), lambda height, width: (384, 384))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/image"
        for kind, make in KINDS.items():
            if apart(lambda make=make: Path(path).write_bytes(make())) is None:
                continue  # no such codec here
            for at_least in (None, 518) if kind.startswith("JPEG, prog") else (None,):
                name = kind if at_least is None else f"{kind}, shrunk by 2"
                yield name, *apart(lambda at_least=at_least: measure(path, at_least))


if __name__ == "__main__":
    for name, stated, measured in results():
        mega = WIDTH * HEIGHT
        print(f"| {name} | {stated / mega:.1f} | {measured / mega:.1f} |", flush=True)
