"""Put an option of the network into a checkpoint and the ONNX files beside it; the weights stay, byte for byte.

python tools/write_option.py CHECKPOINT NAME JSON
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifeiqa_plugin.journal import sha256_of, write_whole
from lifeiqa_plugin.runtimes.metadata import KEY, parse_metadata

ROOT = Path(__file__).parents[1]
SOURCES = ("lifeiqa_plugin/checkpoints/models.py", "docs/results.csv")
"""That name digests."""


def write_option(checkpoint: Path, name: str, value: Any) -> None:
    """Write a value into the checkpoint's ``config`` and the field of that name of the exported files' metadata.

    The new digest goes into these files and into the sources.
    """
    exported = sorted(checkpoint.parent.glob(f"{checkpoint.stem}*.onnx"))
    if exported:
        import onnx  # before anything is written
    content, before = checkpoint.read_bytes(), sha256_of(checkpoint)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"][KEY])
    about["config"][name] = value
    header["__metadata__"][KEY] = json.dumps(about)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with write_whole(checkpoint) as file:
        file.write(struct.pack("<Q", len(text)) + text + content[8 + length :])
    after = sha256_of(checkpoint)
    for path in exported:
        model = onnx.load(path, load_external_data=False)
        entry = next(entry for entry in model.metadata_props if entry.key == KEY)
        metadata = parse_metadata(entry.value, path)
        if metadata.weights_sha256 != before:  # of another model whose name begins alike
            continue
        changed = {name: value, "weights_sha256": after}
        entry.value = replace(metadata, **changed).to_json()
        for tensor in model.graph.initializer:
            for place in tensor.external_data:
                if place.key == "offset":
                    place.value = str(int(place.value) + len(text) - length)
        onnx.save(model, path)
    for source in map(ROOT.joinpath, SOURCES):
        said = source.read_text(encoding="utf-8")
        if before in said:
            source.write_text(said.replace(before, after), encoding="utf-8")
    print(f"{checkpoint}: {before} is now {after}")


if __name__ == "__main__":
    write_option(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
