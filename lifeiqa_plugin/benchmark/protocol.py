"""On what and how cost is measured: sizes, rounds, inputs, and the machine's own name."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
import torch.nn.functional as F

Size = tuple[int, int]
"""Width and height."""

SLOW = 30.0
"""A metric whose untimed run takes more seconds is timed in the first round only, and not in batches."""

SIZES: tuple[Size, ...] = ((512, 384), (1080, 800), (4000, 3000))


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        sizes: of the images.
        rounds: timings of each metric at each size.
        batch: images in a batch.
        memory: measure peak memory on the CPU too.
    """

    sizes: tuple[Size, ...] = SIZES
    rounds: int = 5
    batch: int = 4
    memory: bool = True


class Conditions(TypedDict):
    """What numbers depend on beside the metric."""

    device: str
    dtype: str
    torch: str
    threads: int


def conditions(device: str) -> Conditions:
    """Return on what the numbers of a device are measured."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU: {cpu_name()}"
    return {
        "device": name,
        "dtype": "float32",
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """Return the processor's name, or its kind where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def make_inputs(mode: str, size: Size, batch: int, device: str) -> list[torch.Tensor]:
    """Return images (batch, 3, H, W) in [0, 1] with coarse and fine structure; for FR metrics a reference as well."""
    generator = torch.Generator().manual_seed(0)
    width, height = size
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    image = F.interpolate(coarse, (height, width), mode="bicubic")
    noise = 0.05 * torch.randn(image.shape, generator=generator)
    inputs = [(image + noise).clamp(0, 1)]
    if mode == "FR":
        inputs.append(image.clamp(0, 1))
    return [x.repeat(batch, 1, 1, 1).to(device) for x in inputs]


def parse_size(text: str) -> Size:
    """Read ``WIDTHxHEIGHT``.

    Raises:
        ValueError: not two positive whole numbers.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"--sizes takes WIDTHxHEIGHT, for example 1080x800, got {text!r}")
    return int(width), int(height)


def size_text(size: Size) -> str:
    """Write ``WIDTHxHEIGHT``."""
    return f"{size[0]}x{size[1]}"
