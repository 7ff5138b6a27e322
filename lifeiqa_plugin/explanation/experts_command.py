"""``lifeiqa experts``: do the experts specialise, do the queries look at different places?"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")

COLUMNS = ("distortion", "subset")
"""Columns of a csv that are looked for, in this order, where none is named."""

SEVERITY = 0.6
"""Of the distortions of a folder's photos."""


class Labelled(NamedTuple):
    """An image, what is wrong with it, and the photo of which it is a version."""

    image: Tensor
    label: str
    block: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "source",
        type=Path,
        help="csv of 'lifeiqa prepare' with a column of distortions, or a folder of clean photos to distort",
    )
    parser.add_argument("--root", type=Path, help="folder of the csv's images (default: its own)")
    parser.add_argument(
        "--column", help=f"of the csv (default: the first of {', '.join(COLUMNS)} that it has)"
    )
    parser.add_argument(
        "--limit", type=int, default=200, help="files, evenly spaced, at most (default 200)"
    )
    parser.add_argument(
        "--rounds", type=int, default=999, help="permutations of each test (default 999)"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--model", type=Path, help="checkpoint (default: the bundled one)")
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a folder that exists already"
    )


def run(args: argparse.Namespace) -> None:
    """Look at the images, print one sentence per question, write the heat maps and their numbers.

    Raises:
        FileExistsError: the folder exists.
        ValueError: numbers out of their range, no such column, fewer than two images that can be read.
    """
    from tqdm import tqdm

    from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
    from lifeiqa_plugin.explanation.experts import findings, use_of
    from lifeiqa_plugin.explanation.experts_figure import draw
    from lifeiqa_plugin.explanation.explain import claim_folder, write_json
    from lifeiqa_plugin.journal import write_whole

    for name in ("limit", "rounds"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    out = claim_folder(args.out, args.overwrite)
    network = build_lifeiqa(pretrained_model_path=args.model)
    if args.source.is_dir():
        images = distorted_photos(args.source, args.limit)
    else:
        images = labelled_images(args.source, args.root, args.column, args.limit)
    uses, labels, blocks = [], [], []
    for image, label, block in tqdm(images, unit="image"):
        uses.append(use_of(network, image))
        labels.append(label)
        blocks.append(block)
    if len(uses) < 2:
        raise ValueError(f"{args.source}: only {len(uses)} images can be read, 2 are needed")
    found = findings(uses, labels, blocks, args.rounds)
    for finding in found:
        print(finding.sentence)
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        with write_whole(out / f"experts.{kind}") as file:
            file.write(draw(found, kind))
    summary = [
        {
            "question": finding.question,
            "sentence": finding.sentence,
            "mutual_information_bits": finding.information,
            "share_of_entropy": finding.explained,
            "p_value": finding.p_value,
            "rows": finding.rows,
            "columns": finding.columns,
            "table": finding.table.tolist(),
        }
        for finding in found
    ]
    write_json(out / "manifest.json", {"images": len(uses), "findings": summary})


def distorted_photos(folder: Path, limit: int) -> Iterator[Labelled]:
    """Yield each photo of a folder as it is and with every kind of distortion, at one severity."""
    import torch

    from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED
    from lifeiqa_plugin.images.reading import find_images

    for path in evenly(find_images(folder), limit):
        image = _read(path)
        if image is None:
            continue
        yield Labelled(image, "none", path)
        for name, distort in (TRAINED | HELD_OUT).items():
            generator = torch.Generator().manual_seed(0)
            yield Labelled(distort(image, SEVERITY, generator), name, path)


def labelled_images(
    table: Path, root: Path | None, column: str | None, limit: int
) -> Iterator[Labelled]:
    """Yield the images of a csv with what its column says of them.

    Raises:
        OSError: the csv cannot be read.
        ValueError: it has no such column.
    """
    with open(table, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        header = list(reader.fieldnames or [])
        rows = list(reader)
    wanted = COLUMNS if column is None else (column,)
    present = [name for name in wanted if name in header]
    if not present:
        raise ValueError(
            f"{table}: has no column {' or '.join(map(repr, wanted))}; it has {', '.join(header)}"
        )
    folder = table.parent if root is None else root
    for row in evenly(rows, limit):
        image = _read(folder / row[header[0]])
        if image is not None:
            yield Labelled(image, row[present[0]], row.get("reference") or row[header[0]])


def evenly(items: list[Item], limit: int) -> list[Item]:
    """Return at most ``limit`` items, evenly spaced."""
    count = min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _read(path: str | Path) -> Tensor | None:
    """Read an image; one that cannot be read is a line on stderr."""
    from lifeiqa_plugin.images.reading import read_image

    try:
        return read_image(path)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return None
