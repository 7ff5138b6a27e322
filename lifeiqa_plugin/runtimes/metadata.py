"""What an exported file says of itself, so that an engine needs nothing else; no torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lifeiqa_plugin.network.crops import working_shape

KEY = "lifeiqa"
"""Name of the entry in the file's metadata."""

FORMAT = 1
OUTPUTS = ("score", "std", "distortions")


@dataclass(frozen=True)
class Metadata:
    """The description of an exported network.

    Attributes:
        crop_size: the least side of an image at its working size.
        working_size: shorter side to which larger images are reduced.
        whole_image: whether the image passes in one piece; else it is cut into crops, inside the graph.
        distortions: names of the columns of the output ``distortions``; empty if there is no such output.
        version: of this package, when the file was written.
        weights_sha256: of the checkpoint file that was exported.
        training_data: what the checkpoint says of its training.
        licence: of the weights.
        detail: what a nearer look at large photos takes off; see :class:`~lifeiqa_plugin.network.detail.DetailRule`.
        naming: the network's option, for :mod:`lifeiqa_plugin.words`.
        score_range: the worst and the best score; None for a network without limits.
        precision: ``float32``, or ``int8`` if that is what its convolutions compute with.
        format: of this description.
    """

    crop_size: int
    working_size: int
    whole_image: bool
    distortions: tuple[str, ...]
    version: str
    weights_sha256: str
    training_data: str = "not stated"
    licence: str = "not stated"
    detail: dict[str, Any] | None = None
    naming: Mapping[str, Mapping[str, Any]] | None = None
    score_range: tuple[float, float] | None = (0.0, 1.0)
    precision: str = "float32"
    format: int = FORMAT

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which an image has to be resized."""
        return working_shape(height, width, self.crop_size, self.working_size)

    def to_json(self) -> str:
        """Return the text that :func:`parse_metadata` reads."""
        return json.dumps(asdict(self))


def parse_metadata(text: str | None, path: object) -> Metadata:
    """Read the description in the metadata of ``path``.

    Raises:
        ValueError: there is none, or it is of another format.
    """
    if text is None:
        raise ValueError(f"{path}: not written by 'lifeiqa export'")
    try:
        fields = json.loads(text)
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']!r}, expected {FORMAT}; export it again")
        fields["distortions"] = tuple(fields["distortions"])
        limits = fields.get("score_range", (0.0, 1.0))
        return Metadata(**fields | {"score_range": limits and tuple(limits)})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its description cannot be used ({error})") from error
