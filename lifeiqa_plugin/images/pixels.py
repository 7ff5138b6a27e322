"""From a Pillow image or an array to sRGB pixels: depth, palette, colour profile, transparency, orientation."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from lifeiqa_plugin.images.resizing import Pixels

Array = NDArray[Any]

Reopen = Callable[[], AbstractContextManager[Image.Image]]

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space of a profile -> the mode of the pixels that it describes."""

TRANSPOSED = 5
"""EXIF orientations from here on exchange height and width."""

WHITE = {"I;12": 4095}
"""Largest value of a raw mode of gray pixels, where it is not that of 16 bits."""


def to_srgb(image: Image.Image, reopen: Reopen | None = None) -> Pixels:
    """Return the pixels of an image, as they are stored, not as they are to be turned.

    Args:
        image: open; its pixels are loaded.
        reopen: opens it once more, to get at the lower halves of 16-bit colours; None to do without.

    Returns:
        8 bits as an image of mode RGB, the same one if it is that already; (H, W, 3) float32 in [0, 1] if there are
        more to a colour, or transparent places.

    Raises:
        ValueError: values without a known white, or outside [0, 1].
        Exception: whatever Pillow raises for a file that is damaged.
    """
    raw_mode = _raw_mode(image)
    is_inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
    image.load()
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        gray = _deep_gray(image, raw_mode)
        if is_inverted:
            gray = 1 - gray
        transform = _transform(profile, "L") if profile else None
        if transform is None:
            return np.repeat(gray[..., None], 3, axis=2)
        image = Image.fromarray((gray * 255).round().astype(np.uint8))
        return transform.apply(image)
    has_alpha = image.has_transparency_data
    mode = _plain_mode(image)
    transform = _transform(profile, mode) if profile else None
    colours: Pixels
    if ";16" in raw_mode and mode == "RGB" and transform is None and reopen is not None:
        colours, alpha = _deep_colours(image, raw_mode, reopen)
    else:
        colours, alpha = _colours(image, mode, has_alpha, transform)
    return colours if alpha is None else _on_white(np.asarray(colours), alpha)


def _raw_mode(image: Image.Image) -> str:
    """Return how the file stores its pixels; empty if they are loaded already."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0].args
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw_mode if isinstance(raw_mode, str) else ""


def _plain_mode(image: Image.Image) -> str:
    """Return the mode without transparency or palette that holds all colours of an image."""
    if image.mode in ("1", "L", "LA", "La"):
        return "L"
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _deep_gray(image: Image.Image, raw_mode: str) -> Array:
    """Return pixels of mode I;16, I or F as (H, W) in [0, 1]."""
    values = np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"float pixels must lie in [0, 1], got {low:.4g} to {high:.4g}")
        return values.astype(np.float32)
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # these have 16 bits
        raise ValueError("pixels are 32-bit integers, whose white is not known")
    return values.astype(np.float32) / WHITE.get(raw_mode, 65535)


def _deep_colours(image: Image.Image, raw_mode: str, reopen: Reopen) -> tuple[Array, Array | None]:
    """Return 16-bit colours and their alpha; Pillow keeps the upper byte of each.

    The lower bytes are what a second reading gives that takes the file for one of the other byte order.
    """
    order = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    other = raw_mode[:-1] + order[raw_mode[-1]]
    with reopen() as again:
        tile = again.tile[0]  # type: ignore[attr-defined]
        rest = tile.args[1:] if isinstance(tile.args, tuple) else None
        again.tile = [tile._replace(args=other if rest is None else (other, *rest))]  # type: ignore[attr-defined]
        again.load()
        low = np.asarray(again)
    values = (np.asarray(image).astype(np.float32) * 256 + low) / 65535
    return values[..., :3], values[..., 3] if values.shape[2] == 4 else None


def _colours(
    image: Image.Image, mode: str, has_alpha: bool, transform: ImageCms.ImageCmsTransform | None
) -> tuple[Image.Image, Array | None]:
    alpha = None
    if has_alpha:
        image = image.convert("RGBA")
        levels = np.asarray(image.getchannel("A"))
        alpha = None if (levels == 255).all() else levels.astype(np.float32) / 255
    if transform is not None:
        return transform.apply(image.convert(mode)), alpha
    return image if image.mode == "RGB" else image.convert("RGB"), alpha  # which would copy it


def _on_white(colours: Array, alpha: Array) -> Array:
    if colours.dtype == np.uint8:
        colours = colours.astype(np.float32) / 255
    mixed: Array = 1 - alpha[..., None] * (1 - colours)
    return mixed


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what turns pixels of a mode and profile into sRGB.

    None if there is nothing to turn: the profile cannot be read or is of another colour space, as in every browser,
    or it changes no colour by more than one of 255 levels, so that pixels of sRGB files stay untouched.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if SPACES.get(source.profile.xcolor_space) != mode:
            return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):
        return None
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(9, -1, 3)
    probe = Image.fromarray(np.ascontiguousarray(grid[..., 0] if mode == "L" else grid))
    before = np.asarray(probe.convert("RGB")).astype(int)
    change = np.abs(np.asarray(transform.apply(probe)).astype(int) - before)
    return None if change.max() <= 1 else transform


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data do not make the image unreadable
        return 1
    return value if value in range(1, 9) else 1


def orient(pixels: Array, orientation: int) -> Array:
    """Turn and mirror (H, W, 3) as an EXIF orientation says."""
    if orientation >= TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def from_array(array: Any) -> Array:
    """Return an array (H, W), (H, W, 1, 3 or 4) or a tensor (1 or 3, H, W) as (H, W, 3).

    Raises:
        ValueError: another shape or type, an empty side, or floating-point values outside [0, 1].
    """
    values, last = array, "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if hasattr(array, "cpu"):
        values, last = array.detach().float().cpu().numpy(), "(1, H, W) or (3, H, W)"
        if array.dtype.is_floating_point is False:
            values = array.cpu().numpy()
        if values.ndim == 4 and len(values) == 1:
            values = values[0]
        values = values.transpose(1, 2, 0) if values.ndim == 3 else values[None, None, None]
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or values.size == 0:
        raise ValueError(f"expected {last} with no empty side, got {tuple(array.shape)}")
    if values.dtype == np.uint16:
        values = values.astype(np.float32) / 65535
    elif np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"float pixels must lie in [0, 1], got {low:.4g} to {high:.4g}")
        values = values.astype(np.float32)
    elif values.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, uint16 or floating point, got {values.dtype}")
    if values.shape[2] == 4:
        alpha = values[..., 3].astype(np.float32)
        if values.dtype == np.uint8:
            alpha /= 255
        return _on_white(values[..., :3], alpha)
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Round float pixels in [0, 1] to 8 bits; those that have 8 bits already are returned as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    rounded: NDArray[np.uint8] = (pixels * 255).round().astype(np.uint8)
    return rounded
