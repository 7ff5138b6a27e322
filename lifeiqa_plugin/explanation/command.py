"""``lifeiqa explain``: a folder with one figure for each image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lifeiqa_plugin.arguments import (
    PARTIAL,
    add_device,
    add_model,
    check_file,
    choose_device,
    find_model,
)
from lifeiqa_plugin.images.refusals import name_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("images", nargs="+", type=Path, help="image files")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="folder to write, one folder per image in it"
    )
    add_model(parser, "a checkpoint")
    add_device(parser)
    parser.add_argument(
        "--no-attribution",
        action="store_true",
        help="leave the gradient attribution out, which takes most of the time",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a folder that exists already"
    )


def run(args: argparse.Namespace) -> int:
    """Explain each image; a file that cannot be read is a line on stderr, and the others go on.

    Returns:
        0, or 3 if an image could not be explained.

    Raises:
        FileExistsError: the folder exists.
        FileNotFoundError: one of the images is not there, which is found before any is explained.
        ImportError: matplotlib is missing.
        ValueError: no image could be explained.
    """
    for path in args.images:
        check_file(path, "an image")
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
    steps = 0 if args.no_attribution else STEPS
    entries = []
    for path, folder in zip(args.images, folder_names(args.images), strict=True):
        try:
            explanation = explain(path, network, attribution_steps=steps)
        except (OSError, ValueError, FloatingPointError) as error:
            says = str(error) if str(path) in str(error) else f"{name_of(path)}: {error}"
            print(says, file=sys.stderr)
            entries.append({"image": str(path), "error": str(error)})
            continue
        explanation.save(out / folder, args.overwrite)
        entries.append({"image": str(path), "folder": folder, **explanation.summary()})
        score = f"{explanation.score:.3f} ± {explanation.std:.3f}"
        print(f"{name_of(path)}: {score}, {explanation.sentence}")
    if all("error" in entry for entry in entries):
        raise ValueError(f"none of the {len(entries)} images could be explained")
    write_json(out / "manifest.json", entries)
    return PARTIAL if any("error" in entry for entry in entries) else 0


def folder_names(paths: list[Path]) -> list[str]:
    """Return a name for the folder of each image: that of its file, with a number where it is taken."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.name, 2
        while name.casefold() in taken:
            name, number = f"{path.name}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names
