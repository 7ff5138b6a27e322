"""``lifeiqa compare``: what a change, such as that of a codec, did to the scores of the same images."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lifeiqa_plugin.arguments import PARTIAL
from lifeiqa_plugin.scoring.output import read_identity
from lifeiqa_plugin.scoring.rows import ScoredImage, parse_row, read_rows

LOWER = 4
"""Exit status where the mean change is below ``--fail-below``."""

DECIDE = ("weights_sha256", "decoding", "exact", "detail")
"""Options of ``lifeiqa score`` without which two scores of one file differ."""

Scores = dict[str, ScoredImage]


class Change(NamedTuple):
    """What happened to an image."""

    change: float
    old: float
    new: float
    name: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa compare`` takes."""
    kinds = "that 'lifeiqa score -o' wrote: .csv, .jsonl or .parquet"
    parser.add_argument("old", type=Path, metavar="OLD", help=f"scores {kinds}")
    parser.add_argument("new", type=Path, metavar="NEW", help="scores of other versions of them")
    parser.add_argument(
        "--fail-below",
        type=float,
        metavar="CHANGE",
        help=f"exit with {LOWER} if the mean change is below this, such as -0.02",
    )
    parser.add_argument(
        "--lines", type=int, default=20, metavar="N", help="images to print (default 20)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the images whose score fell most, and the mean change with its bootstrap 95 % interval.

    Returns:
        0; 4 if the mean change is below ``--fail-below``; else 3 if some images have no pair or no score, which is
        said on stderr.

    Raises:
        OSError, ValueError: a file that cannot be read; a name twice; scores that cannot be compared; no pairs.
    """
    for path in (args.old, args.new):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; expected what 'lifeiqa score -o' wrote")
    _check_identity(args.old, args.new)
    changes, complaints = _compare(_read(args.old), _read(args.new), args)
    import numpy as np

    from lifeiqa_plugin.correlation import interval_of_mean

    mean, low, high = interval_of_mean(np.array([one.change for one in changes]))
    print(" change    old    new  image")
    for one in changes[: args.lines]:
        print(f"{one.change:+7.4f} {one.old:6.4f} {one.new:6.4f}  {one.name}")
    print(f"{len(changes)} pairs: mean change {mean:+.4f} (95 %: {low:+.4f} to {high:+.4f})")
    for line in complaints:
        print(f"lifeiqa compare: {line}", file=sys.stderr)
    if args.fail_below is not None and mean < args.fail_below:
        print(f"mean change {mean:+.4f} is below {args.fail_below:+g}", file=sys.stderr)
        return LOWER
    return PARTIAL if complaints else 0


def _check_identity(*paths: Path) -> None:
    """See that both have scores of one network and one way to read images, as far as their manifests say."""
    first, second = (read_identity(path) for path in paths)
    if first is None or second is None:
        missing = paths[0] if first is None else paths[1]
        print(f"{missing} has no manifest that says which weights scored it", file=sys.stderr)
        return
    for name in DECIDE:
        if first.get(name) != second.get(name):
            raise ValueError(
                f"{paths[0]} and {paths[1]} were scored with another {name} ({first.get(name)}, {second.get(name)}), "
                "so a change may be due to that; score both in the same way"
            )


def _read(path: Path) -> Scores:
    scores: Scores = {}
    for row in map(parse_row, read_rows(path)):
        if row.name in scores:
            raise ValueError(f"{path}: {row.name!r} is there twice, so it has no one pair")
        scores[row.name] = row
    return scores


def _compare(old: Scores, new: Scores, args: argparse.Namespace) -> tuple[list[Change], list[str]]:
    """Return the changes, worst first, and lines about what has none.

    Raises:
        ValueError: no image has a score in both.
    """
    old, new = _pair(old, new)
    complaints = [
        *_complain([old[name].name for name in old if name not in new], f"not in {args.new}"),
        *_complain([new[name].name for name in new if name not in old], f"not in {args.old}"),
    ]
    both = [(old[name], new[name]) for name in old if name in new]
    for which, path in enumerate((args.old, args.new)):
        failed = [pair[which].name for pair in both if not pair[which].has_score]
        complaints += _complain(failed, f"without a score in {path}")
    changes = [
        Change(after.score - before.score, before.score, after.score, after.name)
        for before, after in both
        if before.has_score and after.has_score
    ]
    if not changes:
        raise ValueError(f"no image has a score in both; {'; '.join(complaints) or 'no rows'}")
    return sorted(changes), complaints


def _complain(names: list[str], what: str) -> list[str]:
    return [f"{len(names)} {what}, the first is {names[0]!r}"] if names else []


def _pair(old: Scores, new: Scores) -> tuple[Scores, Scores]:
    """Rename images so that those that belong together have one name.

    By their paths; if no path is in both, by their paths below the folder that all of a file share; if that gives no
    pairs either, without endings, as codecs change them.

    Raises:
        ValueError: two images of one file get the same name.
    """
    renamed = old, new
    for rename in (_below_folder, _without_endings):
        if renamed[0].keys() & renamed[1].keys():
            break
        renamed = rename(renamed[0]), rename(renamed[1])
    return renamed


def _below_folder(scores: Scores) -> Scores:
    folder = os.path.commonpath(map(os.path.dirname, scores)) if scores else ""
    return _rename(scores, lambda name: os.path.relpath(name, folder or os.curdir))


def _without_endings(scores: Scores) -> Scores:
    return _rename(scores, lambda name: os.path.splitext(name)[0])


def _rename(scores: Scores, rename: Callable[[str], str]) -> Scores:
    renamed: Scores = {}
    for name, row in scores.items():
        other = renamed.setdefault(rename(name), row)
        if other is not row:
            raise ValueError(f"{other.name!r} and {row.name!r} differ only in their endings")
    return renamed
