"""``lifeiqa explain``: a folder with one figure for each image."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from lifeiqa_plugin.arguments import (
    PARTIAL,
    add_device,
    add_model,
    choose_device,
    find_model,
)
from lifeiqa_plugin.scoring.inputs import Inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "images", nargs="+", help="images, folders, globs and lists, as for lifeiqa score"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="folder to write, one folder per image in it"
    )
    add_model(parser, "a checkpoint")
    add_device(parser)
    parser.add_argument(
        "--all",
        action="store_true",
        dest="with_details",
        help="a second figure of what is inside the network: attention, experts, attribution",
    )
    parser.add_argument(
        "--no-attribution",
        action="store_true",
        help="with --all: leave the attribution out, which takes most of the time",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a folder that exists already"
    )


def run(args: argparse.Namespace) -> int:
    """Explain each image; a file that cannot be read is a line on stderr, and the others go on.

    Returns:
        0, or 3 if an image could not be explained.

    Raises:
        UsageError: one of the arguments is no image, or nothing.
        FileExistsError: the folder exists.
        ImportError: matplotlib is missing.
        ValueError: no image could be explained.
    """
    inputs = Inputs(args.images)
    model = find_model(args.model)
    from lifeiqa_plugin.checkpoints.factory import load
    from lifeiqa_plugin.explanation.attribution import STEPS
    from lifeiqa_plugin.explanation.explain import explain
    from lifeiqa_plugin.explanation.explanation import claim_folder
    from lifeiqa_plugin.explanation.figure import load_matplotlib
    from lifeiqa_plugin.journal import write_json

    load_matplotlib()
    out = claim_folder(args.out, args.overwrite)
    network = load(model).to(choose_device(args.device))
    steps = STEPS if args.with_details and not args.no_attribution else 0
    entries: list[dict[str, Any]] = []
    taken: set[str] = set()
    for name, source, *_ in inputs.images():
        try:
            if isinstance(source, Exception):
                raise source
            explanation = explain(
                source, network, name=os.path.basename(name), attribution_steps=steps
            )
        except (OSError, ValueError, FloatingPointError) as error:
            says = str(error) if name in str(error) else f"{name}: {error}"
            print(says, file=sys.stderr)
            entries.append({"image": name, "error": str(error)})
            continue
        folder = free_name(explanation.name, taken)
        explanation.save(out / folder, args.overwrite, args.with_details)
        entries.append({"image": name, "folder": folder, **explanation.summary()})
        print(f"{explanation.score:.2f}\t{name}\t{explanation.sentence}", flush=True)
    if all("error" in entry for entry in entries):
        raise ValueError(f"none of the {len(entries)} images could be explained")
    write_json(out / "manifest.json", entries)
    return PARTIAL if any("error" in entry for entry in entries) else 0


def free_name(wanted: str, taken: set[str]) -> str:
    """Return a name for the folder of an image: that of its file, with a number where it is taken; takes it."""
    name, number = wanted, 2
    while name.casefold() in taken:
        name, number = f"{wanted}-{number}", number + 1
    taken.add(name.casefold())
    return name
