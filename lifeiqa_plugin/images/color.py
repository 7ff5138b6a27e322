"""Colors that a file describes by other means than an ICC profile, and high dynamic range, as sRGB."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lifeiqa_plugin.images.strips import Pixels, Strips, cut, shape_of

Array = NDArray[Any]

WHITE_D65 = (0.3127, 0.3290)

SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *WHITE_D65)

PRIMARIES = {
    **dict.fromkeys((1, 2), SRGB),  # 2: unspecified
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *WHITE_D65),
    **dict.fromkeys((6, 7), (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *WHITE_D65)),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *WHITE_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *WHITE_D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *WHITE_D65),
}
"""ITU-T H.273, table 2: code -> x and y of red, green, blue and white."""

ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *WHITE_D65)

PQ, HLG, SRGB_CURVE = "PQ", "HLG", "sRGB"

CURVES: dict[int, str | float] = {
    **dict.fromkeys((1, 2, 6, 13, 14, 15), SRGB_CURVE),  # as browsers show the curves of video
    4: 2.2, 5: 2.8, 8: 1.0, 16: PQ, 18: HLG,
}  # fmt: skip
"""ITU-T H.273, table 3: code -> curve, or the exponent of one."""

NAMES = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "P3"}

REFERENCE_WHITE = 203.0
"""cd/m2 of what is 1 in sRGB (ITU-R BT.2408)."""

HLG_WHITE = 0.75
"""HLG's value of the same white (ITU-R BT.2408). Its light is that of the scene: a system gamma of 1,
which BT.2100 gives for a display of 334 cd/m2; that of 1.2 is for one of 1,000, which sRGB is not."""

KNEE = 0.8
"""Linear light up to which nothing is changed by taking in what is brighter than white."""

SATURATED = 0.95
"""How much the lowest color may differ from the highest, as a share of it, before it is bent in."""


class Signal(NamedTuple):
    """What pixel values mean.

    Attributes:
        primaries: x and y of red, green, blue and white.
        curve: from values to light: ``PQ``, ``HLG``, ``SRGB_CURVE``, or an exponent.
        name: for people.
    """

    primaries: tuple[float, ...]
    curve: str | float
    name: str

    @property
    def is_hdr(self) -> bool:
        """Whether it holds more than the white of a page."""
        return self.curve in (PQ, HLG)


def signal_of_codes(primaries: int, transfer: int) -> Signal | None:
    """Return what two codes of H.273 mean; None if that is not known.

    >>> signal_of_codes(12, 13).name
    'P3'
    """
    if primaries not in PRIMARIES or transfer not in CURVES:
        return None
    curve = CURVES[transfer]
    name = NAMES.get(primaries, f"color code {primaries}")
    if curve != SRGB_CURVE:
        name = f"{name} {curve}" if isinstance(curve, str) else f"{name}, gamma {curve:g}"
    return Signal(PRIMARIES[primaries], curve, name)


def is_srgb(signal: Signal) -> bool:
    """Say whether there is nothing to convert: a gamma of about 2.2 counts as the curve of sRGB, as in libpng."""
    same_curve = signal.curve == SRGB_CURVE
    if isinstance(signal.curve, float):
        same_curve = abs(signal.curve / 2.2 - 1) < 0.05
    return same_curve and bool(np.allclose(signal.primaries, SRGB, atol=0.002))


def to_xyz(primaries: tuple[float, ...]) -> Array:
    """Return the matrix (3, 3) from linear RGB to XYZ, in which white has Y = 1.

    Raises:
        ValueError: no three such colors make that white.
    """
    if not all(0 <= value <= 1 for value in primaries) or min(primaries[1::2]) <= 0:
        raise ValueError(f"primaries {primaries} are no colors")
    xyz = np.array(
        [(x / y, 1, (1 - x - y) / y) for x, y in zip(*[iter(primaries)] * 2, strict=True)]
    )
    try:
        scales = np.linalg.solve(xyz[:3].T, xyz[3])
    except np.linalg.LinAlgError as error:
        raise ValueError(f"primaries {primaries} are no colors") from error
    matrix: Array = xyz[:3].T * scales
    return matrix


BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
"""From XYZ to what the eye's cones see, in which one white is changed for another."""

D50 = np.array([0.9642, 1.0, 0.8249])
"""The white of all profiles."""


def make_profile(signal: Signal, mode: str) -> bytes:
    """Write an ICC profile for pixels of mode RGB or L; the signal is none of high dynamic range.

    Raises:
        ValueError: as :func:`to_xyz`, or an exponent outside [0.1, 10].
    """
    matrix = to_xyz(signal.primaries)
    cones = BRADFORD @ matrix.sum(1)
    adapted = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ D50 / cones) @ BRADFORD @ matrix
    curve = _curve_tag(signal.curve)
    tags = {b"wtpt": _xyz_tag(D50)}
    if mode == "L":
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"r", b"g", b"b"), adapted.T, strict=True):
            tags |= {name + b"XYZ": _xyz_tag(column), name + b"TRC": curve}
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(content))
        data += content
    space = b"GRAY" if mode == "L" else b"RGB "
    size = struct.pack(">I", 128 + len(table) + len(data))
    kind = b"\4\x20\0\0mntr" + space + b"XYZ "  # version 4.2, of a display
    header = size + bytes(4) + kind + bytes(12) + b"acsp" + bytes(28) + _fixed(*D50)
    return header.ljust(128, b"\0") + table + data


def _xyz_tag(values: Array) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _curve_tag(curve: str | float) -> bytes:
    if isinstance(curve, str):  # that of sRGB; those of high dynamic range get no profile
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(*numbers)
    if not 0.1 <= curve <= 10:
        raise ValueError(f"a gamma of {curve:g}")
    return b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + _fixed(curve)


def hdr_to_srgb(pixels: Pixels, signal: Signal) -> Strips:
    """Convert pixels of high dynamic range: reference white becomes 1, and what is brighter bends in below it.

    Args:
        pixels: (H, W, 3) uint8 or float in [0, 1].
        signal: with the curve ``PQ`` or ``HLG``.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    matrix = np.linalg.inv(to_xyz(SRGB)) @ to_xyz(signal.primaries)
    height, width = shape_of(pixels)
    step = max(1, int(np.sqrt(height * width / 250_000)))
    rows = [np.asarray(cut(pixels, i, i + 1))[:, ::step] for i in range(0, height, step)]
    light = _to_light(np.concatenate(rows), signal) @ matrix.T
    peak = max(1.0, float(np.quantile(light.max(-1), 0.999)))

    def convert(values: Any) -> Array:
        light = _to_light(np.asarray(values), signal) @ matrix.T
        brightest = light.max(-1, keepdims=True).clip(1e-9)
        inside = shoulder(brightest, peak) * (1 - _limit((brightest - light) / brightest))
        return _encode(inside.clip(0, 1)).astype(np.float32)

    return Strips(convert, pixels)


def shoulder(light: Array, peak: float) -> Array:
    """Bend light above ``KNEE`` so that ``peak`` becomes 1, without a kink (Reinhard et al. 2002, equation 4)."""
    over = (light - KNEE).clip(0) / (1 - KNEE)
    most = (peak - KNEE) / (1 - KNEE)
    bent: Array = KNEE + (1 - KNEE) * over * (1 + over / most**2) / (1 + over)
    return np.where(light <= KNEE, light, bent).clip(None, 1)


def _limit(distance: Array) -> Array:
    """Bend saturations, 1 at the border of sRGB, so that those beyond it come to lie inside, without a kink."""
    over = (distance - SATURATED).clip(0) / (1 - SATURATED)
    return np.where(distance <= SATURATED, distance, 1 - (1 - SATURATED) * np.exp(-over))


def _to_light(values: Array, signal: Signal) -> Array:
    """Return linear light, in which reference white is 1."""
    is_bytes = values.dtype == np.uint8
    levels = np.arange(256) / 255 if is_bytes else values
    light = _curve(levels, signal.curve)
    light = light[values] if is_bytes else light
    if signal.curve == PQ:
        return light * (10_000 / REFERENCE_WHITE)
    return light / _curve(np.array(HLG_WHITE), HLG)


def _curve(values: Array, curve: str | float) -> Array:
    """Undo PQ (SMPTE ST 2084) to light of 10,000 cd/m2, or HLG (ITU-R BT.2100) to that of the scene."""
    if curve == PQ:
        root = np.asarray(values, np.float64) ** (32 / 2523)
        return ((root - 107 / 128).clip(0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)


def _encode(light: Array) -> Array:
    return np.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clip(1e-9) ** (1 / 2.4) - 0.055
    )
