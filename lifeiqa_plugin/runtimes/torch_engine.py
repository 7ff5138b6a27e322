"""The network as PyTorch runs it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np
import torch

from lifeiqa_plugin.arguments import choose_device
from lifeiqa_plugin.checkpoints.factory import load
from lifeiqa_plugin.checkpoints.models import Model
from lifeiqa_plugin.network.crops import working_shape
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.runtimes import SHRINK_TO, EngineOutput, Floats


def create(model: Model, device: str = "auto") -> TorchEngine:
    """Build the network of a checkpoint on a device."""
    chosen = choose_device(device)
    network = load(model, fused=True)
    return TorchEngine(network.to(chosen))


class TorchEngine:
    """A :class:`~lifeiqa_plugin.network.lifeiqa.LifeIQA` as an engine; the network is used where it is, in eval mode.

    Args:
        network: on the device that shall do the work. A network of a subclass gets images at their own size, since it
            may look at them in another way.
        with_distortions: also say what is wrong with an image, if the network can.
    """

    shrink_to = SHRINK_TO

    def __init__(self, network: LifeIQA, with_distortions: bool = True) -> None:
        self.network = network.eval()
        self.device = next(network.parameters()).device
        self.detail = network.detail
        names_them = with_distortions or self.detail is not None
        self.names: tuple[str, ...] = network.distortion_names if names_them else ()
        self.naming, self.score_range = network.naming, network.score_range
        sizes = {"crop_size": network.crop_size, "working_size": network.working_size}
        is_plain = type(network) is LifeIQA
        self.working_shape: Callable[[int, int], tuple[int, int]]
        self.working_shape = functools.partial(working_shape, **sizes) if is_plain else _own_shape

    @torch.no_grad()
    def score(self, batch: Floats) -> EngineOutput:
        """Score (B, 3, H, W) float32 in [0, 1], all at a working shape."""
        x = torch.from_numpy(batch).to(self.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "return_std gives NaN")  # every row says so
            if self.names:
                details = self.network(x, return_details=True)
                score, std, distortions = details.score, details.std, details.distortions
            else:
                score, std = self.network(x, return_std=True)
                distortions = score.new_zeros(len(batch), 0)
        return EngineOutput(_flat(score), _flat(std), distortions.float().cpu().numpy())


def _own_shape(height: int, width: int) -> tuple[int, int]:
    return height, width


def _flat(column: torch.Tensor) -> Floats:
    values: Floats = column.float().cpu().numpy().astype(np.float32)[:, 0]
    return values
