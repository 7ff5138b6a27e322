"""The photos of a page with their scores: scored as ``lifeiqa score`` does it, or read from what it wrote."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.checkpoints.models import DEFAULT
from lifeiqa_plugin.scoring import command
from lifeiqa_plugin.scoring.inputs import Inputs
from lifeiqa_plugin.scoring.rows import ScoredImage, parse_row, read_rows


class Photo(NamedTuple):
    """A row, and where its file is."""

    row: ScoredImage
    path: str


def score_photos(args: argparse.Namespace) -> list[Photo]:
    """Score into ``NAME.scores.csv`` beside the page, from which a run that was stopped goes on.

    Raises:
        UsageError: as ``lifeiqa score``; inputs that are no files.
    """
    if "-" in args.inputs:
        raise UsageError("a page takes no list from standard input; write it to a file .txt")
    container = Inputs(args.inputs).find_container()
    if container is not None:
        raise UsageError(
            f"{container}: a page shows files, not what is in archives and tables; "
            "scores are given by themselves"
        )
    table = args.out.with_suffix(".scores.csv")
    scoring = argparse.ArgumentParser()
    command.add_arguments(scoring)  # for the defaults of options that a page does not take
    given = vars(args) | {"out": table, "append": not args.overwrite}
    given["model"] = args.model or DEFAULT
    command.run(argparse.Namespace(**vars(scoring.parse_args(["."])) | given))
    paths = {image.name: image.source for image in Inputs(args.inputs).images()}
    photos = []
    for row in read_rows(table):
        if row["path"] in paths:  # once each, and none that is gone
            path = paths.pop(row["path"])
            photos.append(Photo(parse_row(row), path if isinstance(path, str) else row["path"]))
    return photos


def read_photos(table: Path, root: Path, known: Collection[str] = ()) -> list[Photo]:
    """Read scores, and see that their images are there.

    Args:
        table: what ``lifeiqa score -o`` wrote.
        root: folder to which its paths are relative.
        known: distortions, for tables of version 0.1; see :func:`parse_row`.

    Raises:
        OSError, ValueError, ImportError: it cannot be read; none of its images is there.
    """
    photos = []
    for number, row in enumerate(read_rows(table), start=1):
        try:
            scored = parse_row(row, known)
        except ValueError as error:
            raise ValueError(f"{table}: row {number}: {error}") from error
        photos.append(Photo(scored, os.path.join(root, scored.name)))
    missing = [row.name for row, path in photos if row.error is None and not os.path.isfile(path)]
    if missing and len(missing) == sum(row.error is None for row, _ in photos):
        raise FileNotFoundError(
            f"none of the {len(missing)} images is below {root.absolute()}, the first is {missing[0]!r}; "
            "--images FOLDER says where they are"
        )
    if missing:
        print(
            f"{len(missing)} of {len(photos)} images are not there, the first is {missing[0]!r}; "
            "they have no picture on the page",
            file=sys.stderr,
        )
    return photos
