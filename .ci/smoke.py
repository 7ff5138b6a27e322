"""Score the clean example photos, sharp and blurred, without a network: the sharp one must be the better of the two."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import pyiqa
from PIL import Image, ImageFilter


def refuse(self: socket.socket, address: Any) -> NoReturn:
    """Stand in for ``socket.connect``."""
    raise OSError(f"scoring must not need a network, but something connects to {address}")


def main() -> None:
    """Score and compare; exits with an error where the order is wrong."""
    socket.socket.connect = refuse
    metric = pyiqa.create_metric("lifeiqa", device="cpu")
    photos = sorted(Path(sys.argv[1]).glob("*_0_clean.*"))
    if not photos:
        sys.exit(f"no *_0_clean.* in {sys.argv[1]}")
    for photo in photos:
        sharp = Image.open(photo).convert("RGB")
        better, worse = (
            metric(sharp).item(),
            metric(sharp.filter(ImageFilter.GaussianBlur(5))).item(),
        )
        print(f"{photo.name}: {better:.4f}, blurred {worse:.4f}")
        if not better > worse:
            sys.exit(f"{photo.name}: the blurred photo must score lower than the sharp one")


if __name__ == "__main__":
    main()
