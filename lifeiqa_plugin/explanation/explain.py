"""``explain``: an image in, every reason the network has for its score out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lifeiqa_plugin.checkpoints.factory import load
from lifeiqa_plugin.checkpoints.models import DEFAULT
from lifeiqa_plugin.explanation.attribution import STEPS, integrated_gradients
from lifeiqa_plugin.explanation.dense import (
    attention_to_pixels,
    distortion_maps,
    quality_map,
    score_all_windows,
    to_map,
)
from lifeiqa_plugin.explanation.explanation import Explanation
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.evaluating import evaluating
from lifeiqa_plugin.network.lifeiqa import LifeIQA


def explain(
    image: Any,
    model: str | Path | LifeIQA = DEFAULT,
    *,
    name: str | None = None,
    attribution_steps: int = STEPS,
) -> Explanation:
    """Explain the score of one image; the network, its flags and its gradients are left as found.

    >>> explanation = explain("examples/photos/chelsea_2_blur.jpg", attribution_steps=0)
    >>> explanation.sentence
    'poor: out of focus'
    >>> max(explanation.distortions, key=explanation.distortions.get)
    'blur'

    Args:
        image: what :func:`~lifeiqa_plugin.images.reading.read_image` takes: a file, a picture, an array, a tensor.
        model: ``lifeiqa``, ``lifeiqa-biq2021``, a checkpoint or a network that is there.
        name: of the image; default: of its file.
        attribution_steps: gradients for the attribution, by far the most expensive part; 0 for no attribution.

    Raises:
        OSError, ValueError, TypeError: an image that cannot be read or scored, or a model that is not there, as in
            ``read_image``, ``LifeIQA`` and :func:`~lifeiqa_plugin.checkpoints.models.resolve`.
        FloatingPointError: the network's score is not finite.
    """
    if not isinstance(attribution_steps, int) or attribution_steps < 0:
        raise ValueError(
            f"attribution_steps must be a whole number, at least 0, got {attribution_steps!r}"
        )
    network = model if isinstance(model, LifeIQA) else load(model)
    given = read_image(image)
    size = (given.shape[2], given.shape[1])
    device = next(network.parameters()).device
    with evaluating(network):
        x = to_working_size(given[None].to(device), network.crop_size, network.working_size)
        with torch.no_grad():
            output = network(given[None].to(device), return_details=True)
            del given
            passes = score_all_windows(network, x)
        attribution = None
        if attribution_steps:
            attribution = integrated_gradients(network, x, attribution_steps).numpy(force=True)
    height, width = x.shape[-2:]
    flaws = distortion_maps(passes, height, width)
    quality = quality_map(passes, flaws, height, width)
    return Explanation(
        name=name or (Path(image).name if isinstance(image, str | Path) else "image"),
        size=size,
        image=(x[0].permute(1, 2, 0) * 255).round().byte().numpy(force=True),
        score=output.score.item(),
        std=output.std.item(),
        distortions=dict(
            zip(network.distortion_names, output.distortions[0].tolist(), strict=True)
        ),
        quality_map=quality if network.score_range is None else quality.clip(*network.score_range),
        distortion_maps=flaws,
        attention=attention_to_pixels(
            output.attention[0], output.crop_offsets, output.crop_shape, (height, width)
        ),
        attribution=attribution,
        expert_share=output.gates[0].mean(0).numpy(force=True),
        expert_map=to_map(passes[0], passes[0].gates, height, width),
        naming=network.naming,
        score_range=network.score_range,
    )
