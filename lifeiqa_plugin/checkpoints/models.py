"""What a model is called and which bytes it is: every command and function asks :func:`resolve`; no torch here."""

from __future__ import annotations

import atexit
import contextlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, NamedTuple

from lifeiqa_plugin.journal import sha256_of
from lifeiqa_plugin.nearest import did_you_mean


class PretrainedWeights(NamedTuple):
    """Weights in the package: the digest of their checkpoint, and whether an 8-bit file lies beside it."""

    sha256: str
    has_int8: bool = False


DEFAULT = "lifeiqa"

BUNDLED = {
    DEFAULT: PretrainedWeights(
        "047275102e109f1265c79b1070cf3848e02b7ee77f7f2dfd64308fdb107cc313", has_int8=True
    ),
    "lifeiqa-biq2021": PretrainedWeights(
        "725728988e8b46ce491708742f2a40c57c189696cb9560837c69aa117d9e08b8"
    ),
}
"""Name -> weights. NAME.safetensors is the checkpoint, NAME.onnx its graph, NAME-int8.onnx the graph in 8 bits."""

Kind = Literal["checkpoint", "onnx", "openvino"]

KINDS: dict[str, Kind] = {".onnx": "onnx", ".xml": "openvino"}
"""Ending of a file -> what it is; any other file is taken for a checkpoint, which says itself what it is."""

_LINKED = re.compile(rb"[\w.+-]+\.safetensors")
_unpacked = contextlib.ExitStack()  # of a package in a zip archive; until Python ends
atexit.register(_unpacked.close)


@dataclass(frozen=True)
class Model:
    """A file of weights.

    Attributes:
        name: what it was asked for by: a name in :data:`BUNDLED` or a path.
        path: of the file.
        kind: ``checkpoint``, ``onnx`` or ``openvino``.
    """

    name: str
    path: Path
    kind: Kind = "checkpoint"

    @cached_property
    def sha256(self) -> str:
        """Digest of all bytes that decide a score: the file, then the files with weights that it refers to.

        Raises:
            OSError: one of them cannot be read.
        """
        return sha256_of(self.path, *self._linked())

    def _linked(self) -> list[Path]:
        if self.kind == "openvino":
            return [self.path.with_suffix(".bin")]
        if self.kind == "checkpoint":
            return []
        names = sorted({name.decode() for name in _LINKED.findall(self.path.read_bytes())})
        return [path for name in names if (path := self.path.with_name(name)).is_file()]

    def exported(self, int8: bool = False) -> Model:
        """Return the ONNX file of a bundled model; the model itself if it is no bundled checkpoint.

        Raises:
            ValueError: 8 bits of a model that has no such file.
        """
        bundled = BUNDLED.get(self.name)
        if int8 and not (bundled and bundled.has_int8):
            known = ", ".join(name for name, weights in BUNDLED.items() if weights.has_int8)
            raise ValueError(
                f"model {self.name!r} has no file in 8 bits, only {known} has; write one with "
                f"lifeiqa export --model {self.name} --int8 PHOTOS -o NAME.onnx, and score with it as the model"
            )
        if bundled is None or self.kind != "checkpoint":
            return self
        return Model(self.name, _find(f"{self.name}{'-int8' * int8}.onnx"), "onnx")

    def digests(self) -> set[str]:
        """Return the digests of all files of these weights: of a bundled model the exported ones, too."""
        forms = [self, self.exported()]
        if self.name in BUNDLED and BUNDLED[self.name].has_int8:
            forms.append(self.exported(int8=True))
        return {form.sha256 for form in forms}


def resolve(model: str | Path | Model = DEFAULT) -> Model:
    """Find a model.

    Args:
        model: a name in :data:`BUNDLED`; the path of a checkpoint or of what ``lifeiqa export`` wrote, also of a
            folder that holds just one of these; an http(s) address of a checkpoint, which is downloaded once. A bundled
            name means the bundled model, even beside a file of that name: ``./lifeiqa`` is the file.

    Raises:
        FileNotFoundError: neither a file nor a bundled model; says which there are.
        ValueError: a folder of none or several models.
        OSError: it cannot be downloaded.
    """
    if isinstance(model, Model):
        return model
    name = str(model)
    if name in BUNDLED:
        return Model(name, _find(f"{name}.safetensors"))
    if name.startswith(("http://", "https://")):
        from lifeiqa_plugin.checkpoints.downloads import fetch
        from lifeiqa_plugin.checkpoints.files import read_checkpoint

        return Model(name, fetch(name, read_checkpoint))
    path = Path(model)
    if path.is_dir():
        path = _only_model(path)
    if not path.is_file():
        bundled = f"Bundled: {', '.join(BUNDLED)}"
        near = did_you_mean(name, BUNDLED, otherwise="")
        hint = f"; {near} {bundled}" if near else f". {bundled}"
        raise FileNotFoundError(f"{name!r} is neither a file nor a bundled model{hint}")
    return Model(name, path, KINDS.get(path.suffix, "checkpoint"))


def _only_model(folder: Path) -> Path:
    found = [path for path in sorted(folder.iterdir()) if path.suffix in (*KINDS, ".safetensors")]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            f"{folder}: expected one .safetensors, .onnx or .xml in this folder, got {names}"
        )
    return found[0]


def _find(file: str) -> Path:
    return _unpacked.enter_context(as_file(files(__package__) / file))
