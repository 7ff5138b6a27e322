"""From a Pillow image or an array to sRGB pixels: depth, palette, color profile, transparency."""

from __future__ import annotations

import functools
import io
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lifeiqa_plugin.images import deep
from lifeiqa_plugin.images.boxes import Crop
from lifeiqa_plugin.images.color import Signal, hdr_to_srgb, make_profile
from lifeiqa_plugin.images.deep import Reopen, raw_mode_of
from lifeiqa_plugin.images.jpeg_loading import load_jpeg
from lifeiqa_plugin.images.signals import NOTHING, Signaled
from lifeiqa_plugin.images.strips import Array, Pixels, Strips, as_array, shape_of
from lifeiqa_plugin.images.whole import missing_rows, note_or_refuse

Transform: TypeAlias = ImageCms.ImageCmsTransform

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Color space of a profile -> the mode of the pixels that it describes."""

JPEGS = ("JPEG", "MPO")

ALPHA_MAY_BE_ZERO = ("BMP", "DIB", "TGA")
"""Formats in which an alpha of 0 everywhere means that nobody wrote any, as browsers see it."""


def to_srgb(
    image: Image.Image, reopen: Reopen | None = None, signaled: Signaled = NOTHING
) -> tuple[Pixels, tuple[str, ...]]:
    """Return the pixels of an image in sRGB, as they are stored and not turned, and what was assumed or left out.

    Args:
        image: open; its pixels are loaded.
        reopen: opens it once more, to get at the lower halves of 16-bit colors; None to do without.
        signaled: what its file says of its colors outside of its profile.

    Returns:
        8 bits, the image itself if it is RGB already; float32 in [0, 1] if there are more to a color, or transparent
        places. Then the notes.

    Raises:
        UnsupportedError: values without a known white, or outside [0, 1]; a JPEG of a kind that is not read.
        ValueError: more than 1 % of the image is missing.
        Exception: whatever Pillow raises for a file that is damaged.
    """
    raw_mode, first_frame = raw_mode_of(image), _first_frame(image)  # loading forgets them
    notes = list(_load(image, reopen))
    mode = _plain_mode(image)
    transform, hdr = _conversion(image, signaled, mode, notes)
    colors, alpha = _colors(image, raw_mode, mode, transform, reopen)
    if first_frame is not None:
        alpha = _outside_is_clear(alpha, first_frame, shape_of(image))
    if hdr is not None:
        colors = hdr_to_srgb(colors, hdr)
    if alpha is not None and any((part < 1).any() for part in alpha.parts()):
        colors = _on_white(colors, alpha)
        notes.append("transparency lies on white")
    return _cropped(colors, signaled.crop, notes), tuple(notes)


def _first_frame(image: Any) -> tuple[int, int, int, int] | None:
    """Return which part of a GIF its first frame covers, if that is not all."""
    if image.format != "GIF" or not image.tile:
        return None
    box: tuple[int, int, int, int] = image.tile[0].extents
    return None if box == (0, 0, *image.size) else box


def _outside_is_clear(
    alpha: Strips | None, box: tuple[int, int, int, int], shape: tuple[int, int]
) -> Strips:
    """Return alpha that is 0 outside of a box, which a decoder has filled with some color of the palette."""
    left, top, right, bottom = box
    inside = np.zeros(shape, bool)
    inside[top:bottom, left:right] = True
    if alpha is None:
        return Strips(lambda strip: strip.astype(np.float32), inside)
    return Strips(np.multiply, inside, alpha)


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
) -> tuple[Transform | None, Signal | None]:
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
            return _transform(make_profile(signal, mode), mode)[0], None
    if not profile:
        if mode == "CMYK":
            notes.append("CMYK without a profile")
        return None, None
    transform, problem = _transform(profile, mode)
    if problem:
        notes.append(problem)
    return transform, None


def _plain_mode(image: Image.Image) -> str:
    """Return the mode without transparency or palette that holds all colors of an image."""
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith(("I", "F")):
        return "L"
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _colors(
    image: Image.Image, raw_mode: str, mode: str, transform: Transform | None, reopen: Reopen | None
) -> tuple[Pixels, Strips | None]:
    """Return colors in sRGB, with all bits that are there, and their alpha if there is any."""
    if image.mode.startswith(("I", "F")):
        gray = deep.read_gray(image, raw_mode)
        return _apply(transform, gray) if transform else gray, None
    if transform is None and reopen is not None:
        if mode == "RGB" and deep.DEEP.fullmatch(raw_mode):
            return deep.read_colors(image, raw_mode, reopen)
        if raw_mode == "LA;16B":
            return deep.read_gray_alpha(reopen)
    is_clear = image.has_transparency_data
    alpha = _alpha(image) if is_clear else None
    if transform is None and image.mode == "RGB":
        return image, alpha

    def convert(strip: Image.Image) -> Array:
        strip = strip.convert("RGBA") if is_clear else strip
        if transform is None:
            return np.asarray(strip.convert("RGB"))
        return np.asarray(transform.apply(strip.convert(mode)))

    return Strips(convert, image), alpha


def _alpha(image: Image.Image) -> Strips | None:
    """Return how far an image covers what is below it; None if nobody wrote that."""
    levels = Strips(lambda strip: np.asarray(strip.convert("RGBA").getchannel("A")), image)
    if image.format in ALPHA_MAY_BE_ZERO and not any(part.any() for part in levels.parts()):
        return None
    return Strips(lambda strip: strip.astype(np.float32) / 255, levels)


def _apply(transform: Transform, gray: Strips) -> Strips:
    """Apply a profile to (H, W, 3) gray in [0, 1], of which it sees 8 bits."""
    return Strips(
        lambda strip: np.asarray(transform.apply(Image.fromarray(as_bytes(strip[..., 0])))), gray
    )


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
    return as_array(pixels)[top:bottom, left:right]


def _on_white(colors: Pixels, alpha: Array | Strips) -> Strips:
    def mix(colors: Any, alpha: Array) -> Array:
        colors = np.asarray(colors)
        if colors.dtype == np.uint8:
            colors = colors.astype(np.float32) / 255
        mixed: Array = 1 - alpha[..., None] * (1 - colors)
        return mixed

    return Strips(mix, colors, alpha)


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> tuple[Transform | None, str]:
    """Return what turns pixels of a mode and profile into sRGB.

    None if there is nothing to turn: the profile cannot be read or is of another color space, as in every browser,
    or it changes no color by more than one of 255 levels, so that pixels of sRGB files stay untouched.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space
        if SPACES.get(space) != mode:
            return None, f"its profile is for {space.strip()} and ignored"
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):
        return None, "its profile cannot be read and is ignored"
    if mode == "CMYK":
        return transform, ""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(9, -1, 3)
    probe = Image.fromarray(np.ascontiguousarray(grid[..., 0] if mode == "L" else grid))
    before = np.asarray(probe.convert("RGB")).astype(int)
    change = np.abs(np.asarray(transform.apply(probe)).astype(int) - before)
    return None if change.max() <= 1 else transform, ""


def from_array(array: Any) -> Array:
    """Return an array (H, W), (H, W, 1, 3 or 4) or a tensor (1 or 3, H, W) as (H, W, 3).

    Raises:
        ValueError: another shape or type, an empty side, or floating-point values outside [0, 1].
    """
    values, last = array, "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if hasattr(array, "cpu"):
        tensor, last = array.detach().cpu(), "(1, H, W) or (3, H, W)"
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
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
        deep.check_range([values])
        values = values.astype(np.float32)
    elif values.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, uint16 or floating point, got {values.dtype}")
    if values.shape[2] == 4:
        alpha = values[..., 3].astype(np.float32)
        if values.dtype == np.uint8:
            alpha /= 255
        return np.asarray(_on_white(values[..., :3], alpha))
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Round float pixels in [0, 1] to 8 bits; those that have 8 bits already are returned as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    rounded: NDArray[np.uint8] = (pixels * 255).round().astype(np.uint8)
    return rounded
