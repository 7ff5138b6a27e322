"""Images of any size to the crops that the network sees: no random numbers, no pixel left out.

An image is first brought to its working size, then cut into equal squares on an even grid that touches all four edges.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lifeiqa_plugin.network.geometry import working_shape


def to_working_size(x: Tensor, crop_size: int, working_size: int) -> Tensor:
    """Resize (B, C, H, W) to its working shape, bicubic and antialiased; an image that fits is returned untouched."""
    height, width = x.shape[-2:]
    shape = working_shape(height, width, crop_size, working_size)
    if shape == (height, width):
        return x
    resized = F.interpolate(x, shape, mode="bicubic", antialias=True)
    return resized.clamp(0.0, 1.0)  # bicubic overshoots


def cut_crops(x: Tensor, offsets: list[tuple[int, int]], crop_size: int) -> Tensor:
    """Cut (B, C, H, W) into (B * N, C, crop_size, crop_size), the N crops of an image next to each other."""
    crops = []
    for top, left in offsets:
        crops.append(x[..., top : top + crop_size, left : left + crop_size])  # (B, C, S, S)
    together = torch.stack(crops, dim=1)  # (B, N, C, S, S)
    return together.flatten(0, 1)
