"""``explain``: an image in, every reason the network has for its score out.

Letters in shapes: H and W the image at its working size, L layers, Q queries, E experts.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lifeiqa_plugin.checkpoints.factory import load
from lifeiqa_plugin.checkpoints.models import DEFAULT
from lifeiqa_plugin.explanation.attribution import STEPS, integrated_gradients
from lifeiqa_plugin.explanation.dense import (
    VIEWS,
    Floats,
    View,
    Windows,
    attention_to_pixels,
    distortion_maps,
    look_closely,
    quality_map,
    spread,
)
from lifeiqa_plugin.explanation.words import LocalFlaw, describe, find_local_flaw
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.evaluating import evaluating
from lifeiqa_plugin.network.lifeiqa import LifeIQA, LifeIQAOutput

ARRAYS = (
    "quality_map", "distortion_maps", "attention", "attribution", "expert_share", "expert_map",
)  # fmt: skip
"""What ``arrays.npz`` holds, beside the image; the shapes are those of :class:`Explanation`."""

SPARSE = ("distortion_maps", "attention", "expert_map")
"""Those that are saved at every fourth pixel, being smooth and many."""


@dataclass(frozen=True)
class Explanation:
    """Why one image got its score. How to read each part: ``docs/explaining.md``."""

    name: str
    size: tuple[int, int]
    """(width, height) of the image as it was given."""
    image: NDArray[np.uint8]
    """(H, W, 3), the image at its working size, to lay the maps over."""
    score: float
    std: float
    """How far off the score may be, as one standard deviation."""
    distortions: dict[str, float]
    """Name -> strength in 0 .. 1; empty if the network names none."""
    quality_map: Floats
    """(H, W), in units of the score."""
    distortion_maps: Floats
    """(D, H, W), how firmly each of ``distortions`` is named at each place, 0 .. 1."""
    attention: Floats
    """(L, Q, H, W); 1 where a query looks as much as if it looked everywhere alike."""
    attribution: Floats | None
    """(H, W), what the detail of each pixel adds to the score; None if it was not asked for."""
    expert_share: Floats
    """(Q, E), how much of each query's answer comes from each expert; a row sums to 1."""
    expert_map: Floats
    """(E, H, W), the same by region, mean over the queries."""

    @cached_property
    def local_flaw(self) -> LocalFlaw | None:
        """The distortion that one part of the image has far more of than the rest, if there is one."""
        return find_local_flaw(list(self.distortions), self.distortion_maps)

    @cached_property
    def sentence(self) -> str:
        """What is wrong and where, in one sentence."""
        extent = np.ptp(self.image.astype(int), axis=(0, 1))
        is_flat = int(extent.max()) <= 1  # resizing may round one colour to two
        return describe(self.distortions, self.local_flaw, self.quality_map, self.std, is_flat)

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write ``figure.png``, ``figure.svg``, ``arrays.npz`` and, last, ``manifest.json``.

        Raises:
            FileExistsError: the folder exists and ``overwrite`` is False.
            ImportError: matplotlib is missing.
        """
        from lifeiqa_plugin.explanation.figure import draw

        folder = claim_folder(folder, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("png", "svg"):
            with write_whole(folder / f"figure.{kind}") as file:
                file.write(draw(self, kind))
        with write_whole(folder / "arrays.npz") as file:
            np.savez_compressed(file, allow_pickle=False, **self._arrays())
        write_json(folder / "manifest.json", self.summary())

    def _arrays(self) -> dict[str, Any]:
        arrays: dict[str, Any] = {"image": self.image}
        for name in ARRAYS:
            values = getattr(self, name)
            if name in SPARSE:
                values = values[..., ::4, ::4]
            if values is not None:
                arrays[name] = values.astype(np.float16)
        return arrays

    def summary(self) -> dict[str, Any]:
        """Return what is neither a map nor a picture."""
        return {
            "name": self.name,
            "width": self.size[0],
            "height": self.size[1],
            "score": round(self.score, 6),
            "std": round(self.std, 6),
            "distortions": {name: round(value, 4) for name, value in self.distortions.items()},
            "sentence": self.sentence,
        }

    def _repr_html_(self) -> str:
        """For notebooks: the figure with its sentence below."""
        from lifeiqa_plugin.explanation.figure import draw

        picture = base64.b64encode(draw(self, "png")).decode()
        caption = html.escape(f"{self.name}: {self.score:.3f} ± {self.std:.3f}. {self.sentence}.")
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{picture}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


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
    'out of focus; the rest is fine; worst in the upper right'
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
    if attribution_steps < 0:
        raise ValueError(f"attribution_steps must be at least 0, got {attribution_steps}")
    network = model if isinstance(model, LifeIQA) else load(model)
    given = read_image(image)
    size = (given.shape[2], given.shape[1])
    device = next(network.parameters()).device
    with evaluating(network):
        x = to_working_size(given[None].to(device), network.crop_size, network.working_size)
        del given
        output, views = look(network, x)
        attribution = None
        if attribution_steps:
            attribution = integrated_gradients(network, x, attribution_steps).numpy(force=True)
    height, width = x.shape[-2:]
    flaws = distortion_maps(views, height, width)
    quality = quality_map(views, flaws, height, width)
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
        expert_map=spread(views[0], views[0].gates, height, width),
    )


@torch.no_grad()
def look(
    network: LifeIQA, x: Tensor, views: Sequence[View] = VIEWS
) -> tuple[LifeIQAOutput, list[Windows]]:
    """Score an image (1, 3, H, W) of working size, as a whole and window by window: what maps and attention cost."""
    return network(x, return_details=True), look_closely(network, x, views)


def claim_folder(folder: str | Path, overwrite: bool) -> Path:
    """See that a folder may be written, and take away the manifest that an earlier run left; makes no folder.

    Raises:
        FileExistsError: it exists and ``overwrite`` is False.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder}: exists; choose another folder, or pass overwrite")
    (folder / "manifest.json").unlink(missing_ok=True)
    return folder


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one go."""
    with write_whole(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False).encode())
