"""Which images a model has learnt people's scores of: digests that travel with its weights and are looked for in tests.

An image has two digests: one of its file's bytes, and one of how it looks, which survives most re-encoding and
resizing. A set keeps 18 bits of each. It never misses a file that it holds, and takes any other image for one of its
own by chance 9 times in 65,536.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from lifeiqa_plugin.checkpoints.models import BUNDLED, Model
from lifeiqa_plugin.images.pixels import as_bytes
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.refusals import ImageError
from lifeiqa_plugin.journal import read_json, write_json
from lifeiqa_plugin.network.tensor_files import read_metadata

Integers = NDArray[np.int64]

LOW_BITS = 16
"""Bits of a digest that are kept as they are; the chance of a false hit is 1 in 2 ** 16 for each look-up."""

WAVES = 8
"""Waves to a side that make up a look."""

UNCERTAIN = 3
"""Signs of a look that may differ: those of its faintest waves."""

FAINTEST = 1.0
"""Half of the waves of an image must be as strong, in gray values, or it has no look: it is too flat."""


class Digests(NamedTuple):
    """Of an image: 8 bytes each, of its file and of its looks, the likeliest first; none of what cannot be read."""

    file: tuple[int, ...] = ()
    looks: tuple[int, ...] = ()


def digests_of(paths: Iterable[str | Path], cache: Path | None = None) -> list[Digests]:
    """Read images, about 4 ms each; those that are not there or are damaged have no digests.

    Args:
        paths: of the images.
        cache: file that keeps the digests of images of one path, size and time for the next call.
    """
    keyed = [(_key_of(path), path) for path in paths]
    by_key = dict(keyed)
    kept = read_json(cache) if cache is not None and cache.is_file() else {}
    new = [key for key in by_key if key not in kept]
    with ThreadPoolExecutor() as pool:
        kept |= dict(zip(new, pool.map(_digest_image, [by_key[key] for key in new]), strict=True))
    if cache is not None and new:
        write_json(cache, kept)
    return [Digests(*map(tuple, kept[key])) for key, _ in keyed]


def _key_of(path: str | Path) -> str:
    """Tell a file from others, and from what it was before it was changed."""
    try:
        found = os.stat(path)
    except OSError:
        return str(path)
    return f"{os.path.realpath(path)} {found.st_size} {found.st_mtime_ns}"


def _digest_image(path: str | Path) -> Digests:
    try:
        content = Path(path).read_bytes()
    except OSError:
        return Digests()
    try:
        return Digests((_shorten(content),), _looks(content))
    except ImageError:
        return Digests((_shorten(content),))


def _shorten(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def _looks(content: bytes) -> tuple[int, ...]:
    """Digest the signs of an image's longest waves, as they are and with the uncertain ones turned."""
    pixels = as_bytes(decode(content, at_least=128).pixels)
    gray = Image.fromarray(pixels).convert("L").convert("F")
    small = np.asarray(gray.resize((32, 32), Image.Resampling.BOX))
    waves = dctn(small, norm="ortho")[:WAVES, :WAVES].ravel()[1:]  # without the mean
    if np.median(np.abs(waves)) < FAINTEST:
        return ()
    faintest = np.argsort(np.abs(waves), kind="stable")[:UNCERTAIN]
    looks = []
    for signs in product((1, -1), repeat=UNCERTAIN):
        turned = waves.copy()
        turned[faintest] *= signs
        looks.append(_shorten(np.packbits(turned > 0).tobytes()))
    return tuple(looks)


@dataclass(frozen=True)
class _Part:
    """Digests modulo 2 ** LOW_BITS times their number, sorted."""

    images: int
    residues: Integers


@dataclass(frozen=True)
class TrainedOn:
    """Images that a model has learnt opinions of; a fine-tuned model has a part for itself and one for its start."""

    parts: tuple[_Part, ...]

    @staticmethod
    def build(images: Sequence[Digests]) -> TrainedOn:
        """Put the digests of training images into a set."""
        found = {digest for image in images for digest in (*image.file, *image.looks[:1])}
        modulus = len(found) << LOW_BITS
        residues = np.array(sorted(digest % modulus for digest in found), dtype=np.int64)
        return TrainedOn((_Part(len(images), residues),) if found else ())

    @property
    def images(self) -> int:
        """How many images were put in; those in several parts count in each."""
        return sum(part.images for part in self.parts)

    def __or__(self, other: TrainedOn) -> TrainedOn:
        """Return the images of both."""
        known = self.to_text().splitlines()
        return TrainedOn((*self.parts, *(p for p in other.parts if _to_line(p) not in known)))

    def hits(self, images: Sequence[Digests]) -> NDArray[np.bool_]:
        """Tell which images were trained on, (N,)."""
        hits = np.zeros(len(images), dtype=bool)
        for part in self.parts:
            known, modulus = set(part.residues.tolist()), len(part.residues) << LOW_BITS
            for i, image in enumerate(images):
                hits[i] |= any(one % modulus in known for one in (*image.file, *image.looks))
        return hits

    def to_text(self) -> str:
        """Return a line for each part, about 6 characters an image."""
        return "".join(_to_line(part) + "\n" for part in self.parts)

    @staticmethod
    def from_text(text: str, name: str = "list of training images") -> TrainedOn:
        """Read what :meth:`to_text` wrote.

        Args:
            text: to read.
            name: of the file that it is from.

        Raises:
            ValueError: it is damaged, or of a later version.
        """
        try:
            return TrainedOn(tuple(map(_from_line, text.splitlines())))
        except (ValueError, binascii.Error) as error:
            raise ValueError(
                f"{name}: its list of training images is damaged ({error}); get the file again"
            ) from error


def _to_line(part: _Part) -> str:
    """Write ``images digests data``: the low bits as they are, the rest in unary (the code of Elias and Fano)."""
    size = len(part.residues)
    steps = np.zeros(2 * size, dtype=np.uint8)
    steps[(part.residues >> LOW_BITS) + np.arange(size)] = 1
    low = (part.residues % (1 << LOW_BITS)).astype("<u2")
    data = base64.b64encode(low.tobytes() + np.packbits(steps).tobytes()).decode()
    return f"{part.images} {size} {data}"


def _from_line(line: str) -> _Part:
    images, size, data = line.split(" ")
    count = int(size)
    content = base64.b64decode(data, validate=True)
    low = np.frombuffer(content[: 2 * count], dtype="<u2").astype(np.int64)
    steps = np.unpackbits(np.frombuffer(content[2 * count :], dtype=np.uint8))
    high = np.flatnonzero(steps) - np.arange(count)
    return _Part(int(images), (high << LOW_BITS) + low)


def count_in_words(count: int, images: int) -> str:
    """Say how many images of a test were trained on."""
    return f"{count:,} of {images:,} images were trained on: {images - count:,} left"


def trained_on(model: Model) -> TrainedOn | None:
    """Return which images a model has learnt from; None if it does not say.

    Raises:
        ValueError: what it says is damaged.
    """
    name = _bundled_name(model)
    text: str | None = None
    if name is not None:
        text = (files("lifeiqa_plugin.checkpoints") / f"{name}.trained_on").read_text("utf-8")
    elif model.kind == "checkpoint":
        text = _description(model.path).get("trained_on")
    return None if text is None else TrainedOn.from_text(text, str(model.path))


def _bundled_name(model: Model) -> str | None:
    """Return the name of bundled weights, also of a copy of their file."""
    if model.name in BUNDLED:
        return model.name
    return next((name for name, weights in BUNDLED.items() if weights.sha256 == model.sha256), None)


def _description(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself; empty for one of another format."""
    try:
        metadata = read_metadata(path)
    except ValueError:
        return {}
    description: dict[str, Any] = json.loads(metadata.get("lifeiqa", "{}"))
    return description
