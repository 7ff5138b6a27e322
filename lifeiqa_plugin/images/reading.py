"""From a file to a tensor, by one set of decode rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lifeiqa_plugin.host import whole_files_only


def open_image(path: str | Path) -> Image.Image:
    """Open a file as an image of 8 bits per channel; its pixels are not decoded yet.

    Raises:
        OSError: missing, no permission, or not an image.
        ValueError: more than 8 bits per channel, which converting to RGB would clip without a word.
    """
    try:
        image = Image.open(path)
    except FileNotFoundError as error:
        raise OSError(f"{path}: no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: cannot be read as an image ({error})") from error
    if image.mode.startswith(("I", "F")):
        image.close()
        raise ValueError(
            f"{path}: has mode {image.mode}, expected 8 bits per channel; convert the file first"
        )
    return image


def read_image(path: str | Path) -> Tensor:
    """Decode a file to (3, H, W) float32 in [0, 1]; EXIF orientation is ignored, as in pyiqa.

    Raises:
        OSError, ValueError: as :func:`open_image`, also for a file whose end is missing.
    """
    with open_image(path) as image, whole_files_only():
        try:
            pixels = np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise OSError(
                f"{path}: damaged image ({error}); replace the file or remove its row"
            ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)


def find_images(folder: str | Path) -> list[str]:
    """Return the files in and below a folder whose names end as those of images do, sorted.

    Raises:
        ValueError: there is none, or no such folder.
    """
    known = Image.registered_extensions()
    found = sorted(
        str(path) for path in Path(folder).expanduser().rglob("*") if path.suffix.lower() in known
    )
    if not found:
        raise ValueError(
            f"{folder}: no images in it; expected a folder of {', '.join(sorted(known)[:3])} ... files"
        )
    return found
