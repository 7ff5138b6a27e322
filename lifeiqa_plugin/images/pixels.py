"""From a Pillow image or an array to sRGB pixels: depth, palette, color profile, transparency, orientation."""

from __future__ import annotations

import functools
import io
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from lifeiqa_plugin.images.boxes import Crop
from lifeiqa_plugin.images.color import Signal, hdr_to_srgb, make_profile
from lifeiqa_plugin.images.jpeg_loading import load_jpeg
from lifeiqa_plugin.images.kinds import UnsupportedError
from lifeiqa_plugin.images.resizing import Pixels, shape_of
from lifeiqa_plugin.images.signals import NOTHING, Signaled
from lifeiqa_plugin.images.whole import missing_rows, note_or_refuse

Array = NDArray[Any]

Reopen = Callable[[], AbstractContextManager[Image.Image]]

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space of a profile -> the mode of the pixels that it describes."""

XMP = ("xmp", "XML:com.adobe.xmp")

JPEGS = ("JPEG", "MPO")

TRANSPOSED = 5
"""EXIF orientations from here on exchange height and width."""

WHITE = {"I;12": 4095}
"""Largest value of a raw mode of gray pixels, where it is not that of 16 bits."""

DEEP = re.compile(r"(RGB|RGBA|RGBX|RGBa);16([LBN])")
"""Raw modes of which Pillow keeps the upper bytes, and whose other byte order it reads too."""

ALPHA_MAY_BE_ZERO = ("BMP", "DIB", "TGA")
"""Formats in which an alpha of 0 everywhere means that nobody wrote any, as browsers see it."""


class Converted(NamedTuple):
    """Pixels in sRGB, and what was assumed or left out on the way."""

    pixels: Pixels
    notes: tuple[str, ...] = ()


def to_srgb(
    image: Image.Image, reopen: Reopen | None = None, signaled: Signaled = NOTHING
) -> Converted:
    """Return the pixels of an image, as they are stored, not as they are to be turned.

    Args:
        image: open; its pixels are loaded.
        reopen: opens it once more, to get at the lower halves of 16-bit colors; None to do without.
        signaled: what its file says of its colors outside of its profile.

    Returns:
        8 bits as an image of mode RGB, the same one if it is that already; (H, W, 3) float32 in [0, 1] if there are
        more to a color, or transparent places.

    Raises:
        UnsupportedError: values without a known white, or outside [0, 1]; a JPEG of a kind that is not read.
        ValueError: more than 1 % of the image is missing.
        Exception: whatever Pillow raises for a file that is damaged.
    """
    raw_mode = _raw_mode(image)
    is_inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
    first_frame = _first_frame(image)
    notes = list(_load(image, reopen))
    mode = _plain_mode(image)
    transform, hdr = _conversion(image, signaled, mode, notes)
    alpha: Array | None = None
    colors: Pixels
    if image.mode.startswith(("I", "F")):
        colors = _deep_gray(image, raw_mode)
        colors = np.repeat((1 - colors if is_inverted else colors)[..., None], 3, axis=2)
        if transform is not None:
            colors = transform.apply(Image.fromarray(as_bytes(colors[..., 0])))
    elif mode == "RGB" and DEEP.fullmatch(raw_mode) and transform is None and reopen is not None:
        colors, alpha = _deep_colors(image, raw_mode, reopen)
    elif raw_mode == "LA;16B" and transform is None and reopen is not None:
        colors, alpha = _deep_gray_alpha(reopen)
    else:
        colors, alpha = _colors(image, mode, transform)
    if first_frame is not None:
        alpha = _outside_is_clear(alpha, first_frame, shape_of(colors))
    if hdr is not None:
        colors = hdr_to_srgb(colors, hdr)
    if alpha is not None and alpha.min() < 1:
        colors = _on_white(np.asarray(colors), alpha)
        notes.append("transparency lies on white")
    return Converted(_cropped(colors, signaled.crop, notes), tuple(notes))


def _first_frame(image: Any) -> tuple[int, int, int, int] | None:
    """Return which part of a GIF its first frame covers, if that is not all."""
    if image.format != "GIF" or not image.tile:
        return None
    box: tuple[int, int, int, int] = image.tile[0].extents
    return None if box == (0, 0, *image.size) else box


def _outside_is_clear(
    alpha: Array | None, box: tuple[int, int, int, int], shape: tuple[int, int]
) -> Array:
    """Return alpha that is 0 outside of a box, which a decoder has filled with some color of the palette."""
    left, top, right, bottom = box
    inside = np.zeros(shape, np.float32)
    inside[top:bottom, left:right] = 1 if alpha is None else alpha[top:bottom, left:right]
    return inside


def _load(image: Any, reopen: Reopen | None) -> tuple[str, ...]:
    """Load the pixels, and note what is missing of them."""
    if image.format in JPEGS and image.tile:
        return load_jpeg(image)
    image.load()
    if image.format != "PNG" or reopen is None:
        return ()
    with reopen() as again:
        return note_or_refuse(missing_rows(image, again))


def _conversion(
    image: Image.Image, signaled: Signaled, mode: str, notes: list[str]
) -> tuple[ImageCms.ImageCmsTransform | None, Signal | None]:
    """Return what turns the colors of an image into sRGB: a profile, or a signal of high dynamic range."""
    profile = signaled.profile or image.info.get("icc_profile")
    signal = signaled.signal if signaled.overrules_profile or not profile else None
    if signaled.note:
        notes.append(signaled.note)
    if signal is not None:
        notes.append(f"{signal.name} converted to sRGB")
        if signal.is_hdr:
            return None, signal
        if mode != "CMYK":
            return _transform(make_profile(signal, mode), mode).transform, None
    if not profile:
        if mode == "CMYK":
            notes.append("CMYK without a profile")
        return None, None
    found = _transform(profile, mode)
    if found.problem:
        notes.append(found.problem)
    return found.transform, None


def _raw_mode(image: Image.Image) -> str:
    """Return how the file stores its pixels; empty if they are loaded already."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0].args
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw_mode if isinstance(raw_mode, str) else ""


def _plain_mode(image: Image.Image) -> str:
    """Return the mode without transparency or palette that holds all colors of an image."""
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith(("I", "F")):
        return "L"
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _deep_gray(image: Image.Image, raw_mode: str) -> Array:
    """Return pixels of mode I;16, I or F as (H, W) in [0, 1]."""
    values = np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise UnsupportedError(f"float pixels must lie in [0, 1], got {low:.4g} to {high:.4g}")
        return values.astype(np.float32)
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # these have 16 bits
        what = "signed" if raw_mode in ("I;16S", "I;16BS") else "32-bit integers"
        raise UnsupportedError(f"pixels are {what}, whose white is not known")
    return values.astype(np.float32) / WHITE.get(raw_mode, 65535)


def _read_as(reopen: Reopen, raw_mode: str, mode: str | None = None) -> Array:
    """Read the pixels of a file once more, as if they were stored in another way."""
    with reopen() as again:
        again.tile = [  # type: ignore[attr-defined]
            tile._replace(
                args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode
            )
            for tile in again.tile  # type: ignore[attr-defined]
        ]
        if mode is not None:
            again._mode = mode
        again.load()
        return np.asarray(again)


def _deep_colors(image: Image.Image, raw_mode: str, reopen: Reopen) -> tuple[Array, Array | None]:
    """Return 16-bit colors and their alpha; Pillow keeps the upper byte of each.

    The lower bytes are what a second reading gives that takes the file for one of the other byte order.
    """
    name, order = raw_mode.split(";16")
    order = sys.byteorder[0].upper() if order == "N" else order
    other = "B" if order == "L" else "L"
    is_premultiplied = name == "RGBa"
    name = "RGBA" if is_premultiplied else name
    high = _read_as(reopen, f"{name};16{order}") if is_premultiplied else np.asarray(image)
    values = (high.astype(np.float32) * 256 + _read_as(reopen, f"{name};16{other}")) / 65535
    alpha = values[..., 3] if values.shape[2] == 4 else None
    colors = values[..., :3]
    if is_premultiplied and alpha is not None:
        colors = (colors / alpha[..., None].clip(1 / 65535)).clip(0, 1)
    return colors, alpha


def _deep_gray_alpha(reopen: Reopen) -> tuple[Array, Array]:
    """Return 16-bit gray and alpha, whose four bytes Pillow can read as four colors."""
    parts = _read_as(reopen, "RGBA", "RGBA").astype(np.float32)
    values = (parts[..., ::2] * 256 + parts[..., 1::2]) / 65535
    return np.repeat(values[..., :1], 3, axis=2), values[..., 1]


def _colors(
    image: Image.Image, mode: str, transform: ImageCms.ImageCmsTransform | None
) -> tuple[Image.Image, Array | None]:
    alpha = None
    if image.has_transparency_data:
        is_vague = image.format in ALPHA_MAY_BE_ZERO
        image = image.convert("RGBA")
        levels = np.asarray(image.getchannel("A"))
        if not (levels == 255).all() and (levels.any() or not is_vague):
            alpha = levels.astype(np.float32) / 255
    if transform is not None:
        return transform.apply(image.convert(mode)), alpha
    return image if image.mode == "RGB" else image.convert("RGB"), alpha  # which would copy it


def _cropped(pixels: Pixels, crop: Crop | None, notes: list[str]) -> Pixels:
    """Cut out what a file wants to be seen, if that is a part of it."""
    if crop is None:
        return pixels
    height, width = shape_of(pixels)
    left, top = round(crop.left), round(crop.top)
    right, bottom = left + round(crop.width), top + round(crop.height)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        notes.append("its crop lies outside of it, and is ignored")
        return pixels
    return np.asarray(pixels)[top:bottom, left:right]


def _on_white(colors: Array, alpha: Array) -> Array:
    if colors.dtype == np.uint8:
        colors = colors.astype(np.float32) / 255
    mixed: Array = 1 - alpha[..., None] * (1 - colors)
    return mixed


class _Transform(NamedTuple):
    transform: ImageCms.ImageCmsTransform | None
    problem: str = ""


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> _Transform:
    """Return what turns pixels of a mode and profile into sRGB.

    None if there is nothing to turn: the profile cannot be read or is of another color space, as in every browser,
    or it changes no color by more than one of 255 levels, so that pixels of sRGB files stay untouched.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space
        if SPACES.get(space) != mode:
            return _Transform(None, f"its profile is for {space.strip()} and ignored")
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):
        return _Transform(None, "its profile cannot be read and is ignored")
    if mode == "CMYK":
        return _Transform(transform)
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(9, -1, 3)
    probe = Image.fromarray(np.ascontiguousarray(grid[..., 0] if mode == "L" else grid))
    before = np.asarray(probe.convert("RGB")).astype(int)
    change = np.abs(np.asarray(transform.apply(probe)).astype(int) - before)
    return _Transform(None if change.max() <= 1 else transform)


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
