"""How an image is to be turned before it is looked at."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from PIL import ExifTags, Image

XMP = ("xmp", "XML:com.adobe.xmp")

TRANSPOSED = 5
"""EXIF orientations from here on exchange height and width."""


def orientation_of(image: Image.Image, default: int = 1) -> int:
    """Return the EXIF orientation, 1 to 8; ``default`` where there is none, or none that can be read.

    One that stands in XMP only was left behind when EXIF was taken out, and turns the image nowhere else.
    """
    content = image.info.get("exif")
    hidden = {key: image.info.pop(key) for key in XMP if key in image.info}
    try:
        exif = image.getexif()
        if isinstance(content, bytes):  # what Pillow has read of it may be mixed with XMP
            exif = Image.Exif()
            exif.load(content)
        value = exif.get(ExifTags.Base.Orientation, default)
    except Exception:  # damaged EXIF data do not make the image unreadable
        return default
    finally:
        image.info.update(hidden)
    return value if value in range(1, 9) else default


def orient(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror (H, W, 3) as an EXIF orientation says."""
    if orientation >= TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
