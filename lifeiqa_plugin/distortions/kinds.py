"""What a person calls each kind of distortion, and the generators that make it, more of them than ladders rank.

The names are those that a network's second task can tell apart; the bundled models name them all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lifeiqa_plugin.distortions import synthetic as known
from lifeiqa_plugin.distortions.synthetic import Distortion, build_ladder

WAVES = 10
"""Along the shorter side, of the field that bends an image."""

PATCH = 8
"""Pixels along the side of a patch of a codebook."""


def defocus(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Mean over a disc of up to 9 pixels radius, as a lens out of focus leaves it."""
    radius = 0.5 + 8.5 * severity
    side = torch.arange(-math.ceil(radius), math.ceil(radius) + 1.0)
    disc = (radius + 0.5 - torch.hypot(side[:, None], side)).clamp(0, 1)
    return _filter(x, disc)


def shake(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Mean over a straight path of up to 31 pixels in any direction."""
    reach = 0.5 + 15 * severity
    angle = math.pi * float(torch.rand((), generator=generator))
    side = torch.arange(-math.ceil(reach), math.ceil(reach) + 1.0)
    along = side * math.cos(angle) + side[:, None] * math.sin(angle)
    across = side[:, None] * math.cos(angle) - side * math.sin(angle)
    path = (1 - across.abs()).clamp(0, 1) * (reach + 0.5 - along.abs()).clamp(0, 1)
    return _filter(x, path)


def colour_noise(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Blotches of colour, two pixels wide, of up to 0.25 deviation; the light of each pixel stays."""
    height, width = x.shape[1:]
    blotches = torch.randn((1, 3, math.ceil(height / 2), math.ceil(width / 2)), generator=generator)
    blotches = F.interpolate(blotches, (height, width), mode="bilinear")[0]
    colour = blotches - blotches.mean(0)
    return (x + 0.4 * severity * colour).clamp(0, 1)


def grain(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Noise of up to 0.2 deviation, the same in all colours and strongest in the shadows."""
    light = x.mean(0)
    deviation = 0.2 * severity * (1.2 - light)
    return (x + deviation * torch.randn(x.shape[1:], generator=generator)).clamp(0, 1)


def oversharpen(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Unsharp mask of up to six times the detail, with halos at every edge."""
    soft = known.blur(x, 0.2 + 0.1 * severity, generator)
    return (x + 6 * severity * (x - soft)).clamp(0, 1)


def oversmooth(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """A guided filter that keeps edges and takes texture, as strong noise reduction does."""
    radius = 2 + round(4 * severity)
    strength = 0.03 * severity**2 + 1e-6
    mean = _box(x, radius)
    variance = _box(x * x, radius) - mean * mean
    slope = variance / (variance + strength)
    smooth = _box(slope, radius) * x + _box(mean - slope * mean, radius)
    return smooth.clamp(0, 1)


def underexpose(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Shadows crushed by a power of up to 3, and up to half the light lost."""
    return x ** (1 + 2 * severity) * (1 - 0.5 * severity)


def overexpose(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Up to four times the light and lifted shadows, cut off at white."""
    return (x * (1 + 2.5 * severity) + 0.25 * severity).clamp(0, 1)


def tint(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Up to 60 % of one saturated colour laid over the image."""
    colour = torch.rand(3, generator=generator)
    colour = (colour - colour.min()) / (colour.max() - colour.min() + 1e-6)
    share = 0.6 * severity
    return x * (1 - share) + colour.view(3, 1, 1) * share


def warp(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Shapes bent by a smooth random field whose deviation is up to 4 % of the shorter side."""
    height, width = x.shape[1:]
    short = min(height, width)
    waves = [max(2, round(WAVES * side / short)) for side in (height, width)]
    field = torch.randn((1, 2, *waves), generator=generator)
    field = F.interpolate(field, (height, width), mode="bicubic", align_corners=True)[0]
    place = torch.stack(
        torch.meshgrid(torch.linspace(-1, 1, width), torch.linspace(-1, 1, height), indexing="xy")
    )
    sides = torch.tensor([width, height]).view(2, 1, 1)
    moved = place + 0.08 * severity * short * field / sides
    return F.grid_sample(
        x[None], moved.permute(1, 2, 0)[None], padding_mode="reflection", align_corners=True
    )[0].clamp(0, 1)


def codebook(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Each patch of 8 x 8 pixels replaced by the one most alike among a part of the patches, down to one in 200."""
    height, width = x.shape[1:]
    padded = F.pad(x[None], (0, -width % PATCH, 0, -height % PATCH), mode="replicate")
    patches = F.unfold(padded, PATCH, stride=PATCH)[0].T
    count = max(2, round(0.005**severity * len(patches)))
    chosen = torch.randperm(len(patches), generator=generator)[:count]
    nearest = torch.cdist(patches, patches[chosen]).argmin(1)
    rebuilt = patches[chosen][nearest].T[None]
    return F.fold(rebuilt, padded.shape[2:], PATCH, stride=PATCH)[0, :, :height, :width]


def _filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve every colour with one kernel of odd sides, edges repeated."""
    reach = kernel.shape[0] // 2
    weight = (kernel / kernel.sum()).expand(3, 1, -1, -1)
    padded = F.pad(x[None], (reach,) * 4, mode="replicate")
    return F.conv2d(padded, weight, groups=3)[0].clamp(0, 1)


def _box(x: Tensor, radius: int) -> Tensor:
    side = 2 * radius + 1
    rows = F.avg_pool2d(x[None], (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)[0]


class Kind(NamedTuple):
    """What a person calls a flaw, the generators that make it, and whether more of it always looks worse."""

    generators: tuple[Distortion, ...]
    is_ranked: bool


KINDS: dict[str, Kind] = {
    "blur": Kind((known.blur, defocus), True),
    "motion blur": Kind((known.motion_blur, shake), True),
    "noise": Kind((known.noise, colour_noise, grain), True),
    "impulse noise": Kind((known.salt_and_pepper,), True),
    "blocking": Kind((known.jpeg,), True),
    "ringing": Kind((known.webp, known.jpeg_2000), True),
    "upscaled": Kind((known.resample,), True),
    "over-sharpened": Kind((oversharpen,), True),
    "over-smoothed": Kind((oversmooth,), True),
    "over-exposed": Kind((known.brighten, overexpose), False),
    "dark": Kind((known.darken, underexpose), False),
    "low contrast": Kind((known.fade,), False),
    "colour cast": Kind((known.colour_cast, tint), False),
    "warped": Kind((warp,), True),
    "patchy": Kind((codebook,), True),
}
"""What training draws from; the keys are what ``network: distortions`` may name."""


class Ladder(NamedTuple):
    """An image in growing distortion."""

    images: list[Tensor]
    is_clean: bool  # whether the first is the image itself
    kind: str  # of KINDS


def random_ladder(x: Tensor, steps: int, generator: Generator | None) -> Ladder:
    """Distort (3, H, W) in ``steps`` growing, uneven severities of one of ``KINDS``, the worst at 0.2 .. 1.

    Half of the ladders begin with ``x`` itself.
    """
    kind = list(KINDS)[_randint(len(KINDS), generator)]
    generators = KINDS[kind].generators
    distort = generators[_randint(len(generators), generator)]
    parts = 0.3 + torch.rand(steps, generator=generator)
    is_clean = bool(torch.rand((), generator=generator) < 0.5)
    if is_clean:
        parts[0] = 0
    worst = 0.2 + 0.8 * torch.rand((), generator=generator)
    severities = (parts.cumsum(0) / parts.sum() * worst).tolist()
    images = build_ladder(x, distort, severities[is_clean:], _randint(2**31, generator))
    return Ladder(images[not is_clean :], is_clean, kind)


def _randint(end: int, generator: Generator | None) -> int:
    return int(torch.randint(end, (), generator=generator))
