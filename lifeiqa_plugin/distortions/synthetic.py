"""Synthetic distortions of growing severity: what ``lifeiqa benchmark`` tests; ``kinds`` has what training draws.

A distortion is a function of an image (3, H, W) in [0, 1], a severity in 0 .. 1 and a generator; it returns an image
of the same shape and range. With the same generator state, a higher severity is the same flaw, only worse.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor
from torchvision.transforms.functional import gaussian_blur

Distortion = Callable[[Tensor, float, Generator], Tensor]


def blur(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Gaussian of up to 6 pixels deviation."""
    sigma = max(6 * severity, 1e-3)
    blurred: Tensor = gaussian_blur(x, 2 * round(3 * sigma) + 1, sigma)
    return blurred


def motion_blur(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Mean over a horizontal or vertical path of up to 31 pixels."""
    reach, vertical = round(15 * severity), bool(torch.rand((), generator=generator) < 0.5)
    pads = (0, 0, reach, reach) if vertical else (reach, reach, 0, 0)
    kernel = (2 * reach + 1, 1) if vertical else (1, 2 * reach + 1)
    return F.avg_pool2d(F.pad(x[None], pads, mode="replicate"), kernel, stride=1)[0]


def noise(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Gaussian noise of up to 0.25 deviation, independent per pixel and colour."""
    return (x + 0.25 * severity * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def salt_and_pepper(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Up to 30 % of the pixels black or white."""
    chance = torch.rand(x.shape[1:], generator=generator)
    return x.masked_fill(chance < 0.15 * severity, 0.0).masked_fill(
        chance > 1 - 0.15 * severity, 1.0
    )


def resample(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Shrunk to as little as an eighth of the side, and enlarged again."""
    small = [max(4, round(side / (1 + 7 * severity))) for side in x.shape[1:]]
    tiny = F.interpolate(x[None], small, mode="bilinear", antialias=True)
    return F.interpolate(tiny, x.shape[1:], mode="bicubic")[0].clamp(0, 1)


def darken(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Down to a tenth of the light."""
    return x * (1 - 0.9 * severity)


def brighten(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Up to four times the light, cut off at white."""
    return (x * (1 + 3 * severity)).clamp(0, 1)


def fade(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Contrast down to a tenth, about mid-gray."""
    return 0.5 + (x - 0.5) * (1 - 0.9 * severity)


def colour_cast(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Up to 80 % of one or two colours lost."""
    kept = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    row = kept[torch.randint(6, (), generator=generator)]
    return x * (1 - 0.8 * severity * (1 - row)).view(3, 1, 1)


def jpeg(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """JPEG of quality 64 down to 4."""
    return _encode(x, "JPEG", quality=round(60 * (1 - severity) ** 1.5) + 4)


def webp(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """WebP of quality 50 down to 0."""
    return _encode(x, "WEBP", quality=round(50 * (1 - severity) ** 1.5), method=0)


def jpeg_2000(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """JPEG 2000 down to 1 / 250 of the size."""
    return _encode(
        x, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[250**severity]
    )


def pixelate(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Squares of up to 11 pixels in one colour."""
    side = 1 + round(10 * severity)
    small = F.interpolate(x[None], [max(1, length // side) for length in x.shape[1:]], mode="area")
    return F.interpolate(small, x.shape[1:], mode="nearest")[0]


def posterise(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """From 16 down to 2 levels per colour."""
    levels = round(2 * 8 ** (1.25 * (1 - severity)))
    return (x * (levels - 1)).round() / (levels - 1)


def speckle(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Gaussian noise in proportion to the light, up to its own size."""
    return (x * (1 + severity * torch.randn(x.shape, generator=generator))).clamp(0, 1)


def haze(x: Tensor, severity: float, generator: Generator) -> Tensor:
    """Up to 85 % of a white veil."""
    return x + (1 - x) * 0.85 * severity


def _encode(x: Tensor, kind: str, **options: object) -> Tensor:
    """Through a lossy file format and back."""
    pixels = (x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    with Image.open(buffer) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float().div_(255)


TRAINED: dict[str, Distortion] = {
    f.__name__: f
    for f in (
        blur, motion_blur, noise, salt_and_pepper, resample, darken, brighten, fade, colour_cast, jpeg, webp, jpeg_2000,
    )
}  # fmt: skip
"""Those that training draws from; ``kinds`` adds more."""

HELD_OUT: dict[str, Distortion] = {f.__name__: f for f in (pixelate, posterise, speckle, haze)}
"""Those that training never sees, to find out whether ranking carries over."""


def build_ladder(
    x: Tensor, distort: Distortion, severities: list[float], seed: int
) -> list[Tensor]:
    """Return the image and one distorted version per severity, all from the same random numbers."""
    return [x, *(distort(x, severity, Generator().manual_seed(seed)) for severity in severities)]
