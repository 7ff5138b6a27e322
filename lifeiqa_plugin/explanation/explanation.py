"""What :func:`~lifeiqa_plugin.explanation.explain.explain` returns: maps, words and numbers, and how they are saved.

Letters in shapes: H and W the image at its working size, D distortions, L layers, Q queries, E experts.
"""

from __future__ import annotations

import base64
import html
import itertools
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lifeiqa_plugin.images.stream import MIN_SIDE, TOO_SMALL
from lifeiqa_plugin.journal import write_json, write_whole
from lifeiqa_plugin.words import (
    FLAT,
    Flaw,
    Floats,
    LocalFlaw,
    Naming,
    find_flaws,
    find_local_flaw,
    write_sentence,
)

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
    naming: Naming | None = None
    """From which strengths on each of ``distortions`` is named."""
    score_range: tuple[float, float] | None = (0.0, 1.0)
    """The worst and the best score; None for a network without limits."""

    @cached_property
    def local_flaw(self) -> LocalFlaw | None:
        """The distortion that one part of the image has far more of than the rest, if there is one."""
        return find_local_flaw(list(self.distortions), self.distortion_maps)

    @cached_property
    def sentence(self) -> str:
        """How good it is, what is wrong and where, in one sentence."""
        extent = np.ptp(self.image.astype(int), axis=(0, 1))
        if int(extent.max()) <= 1:  # resizing may round one color to two
            return FLAT
        if min(self.size) < MIN_SIDE:
            return TOO_SMALL
        return write_sentence(
            self.score,
            self.std,
            self.distortions,
            self.naming,
            self.quality_map,
            self.local_flaw,
            self.score_range,
        )

    @cached_property
    def flaws(self) -> list[Flaw]:
        """The distortions of the whole image that are above their cut."""
        low, high = self.score_range or (0.0, 1.0)
        return find_flaws((self.score - low) / (high - low), self.distortions, self.naming)

    def save(self, folder: str | Path, overwrite: bool = False, with_details: bool = False) -> None:
        """Write ``figure.png``, ``figure.svg``, ``arrays.npz`` and, last, ``manifest.json``.

        With details there are ``details.png`` and ``details.svg`` too: attention, experts and attribution.

        Raises:
            FileExistsError: the folder exists and ``overwrite`` is False.
            ImportError: matplotlib is missing.
        """
        from lifeiqa_plugin.explanation.details import draw_details
        from lifeiqa_plugin.explanation.figure import draw

        folder = claim_folder(folder, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        figures = {"figure": draw} | ({"details": draw_details} if with_details else {})
        for (name, draw_it), kind in itertools.product(figures.items(), ("png", "svg")):
            with write_whole(folder / f"{name}.{kind}") as file:
                file.write(draw_it(self, kind))
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
        caption = html.escape(f"{self.name}: {self.score:.2f}. {self.sentence}.")
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{picture}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def claim_folder(folder: str | Path, overwrite: bool) -> Path:
    """See that a folder may be written, and take away the manifest that an earlier run left; makes no folder.

    Raises:
        FileExistsError: it exists and ``overwrite`` is False, or a file is in its place.
        PermissionError: nothing may be written there.
    """
    folder = Path(folder)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise FileExistsError(f"{folder}: {nearest} is a file; expected the name of a folder")
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder}: exists; choose another folder, or pass overwrite")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: no permission to write in {nearest}")
    (folder / "manifest.json").unlink(missing_ok=True)
    return folder
