"""``lifeiqa pick``: the images and pairs on which kept scores disagree most, and a page to rate the pairs on."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lifeiqa_plugin.arguments import UsageError, check_file, check_target
from lifeiqa_plugin.journal import read_json, write_whole
from lifeiqa_plugin.page import embed
from lifeiqa_plugin.report.collect import link_to
from lifeiqa_plugin.scoring.rows import parse_row, read_rows

if TYPE_CHECKING:
    from lifeiqa_plugin.correlation import Floats

LEVELS = 20
"""Parts of the images, by the rank that a metric gives them; within a part it calls all equal."""


class Pair(NamedTuple):
    """Two images, by number, that metric ``equal`` calls equal and metric ``different`` calls different.

    ``gap`` is how much further apart their ranks are by the second metric; ranks go from 0 (worst) to 1 (best).
    """

    gap: float
    worse: int
    better: int
    equal: int
    different: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa pick`` takes."""
    add = parser.add_argument
    add(
        "scores",
        nargs="+",
        type=Path,
        metavar="SCORES",
        help="two files or more: of 'lifeiqa score -o', or scores/METRIC/DATASET.csv of 'lifeiqa benchmark'",
    )
    add(
        "-o",
        "--out",
        type=Path,
        default=Path("rate.html"),
        metavar="PAGE",
        help="page to write; PAGE_pairs.csv and PAGE_images.csv stand beside it (default rate.html)",
    )
    add(
        "--images", type=Path, default=Path(), help="folder to which names are relative (default .)"
    )
    add("--count", type=int, default=50, help="pairs, and images, to pick (default 50)")


def run(args: argparse.Namespace) -> None:
    """Write the page and the two csv files.

    Raises:
        UsageError: arguments that cannot be.
        FileExistsError: one of the three is there.
        OSError, ValueError: scores that cannot be read, of other images, or in the same order; no such image.
    """
    pairs_csv, images_csv = (
        args.out.with_name(f"{args.out.stem}_{what}.csv") for what in ("pairs", "images")
    )
    _check(args, [args.out, pairs_csv, images_csv])
    from scipy.stats import rankdata

    names, scores = read_scores(args.scores)
    ranks = (rankdata(scores, axis=0) - 1) / (len(names) - 1)  # metrics have scales of their own
    pairs = find_pairs(ranks, args.count)
    if not pairs:
        raise ValueError(f"all scores put the {len(names)} images in the same order")
    turned = np.random.default_rng(0).random(len(pairs)) < 0.5  # no side tells what a metric says
    sides = [
        (names[pair.better], names[pair.worse]) if turn else (names[pair.worse], names[pair.better])
        for pair, turn in zip(pairs, turned, strict=True)
    ]
    _write_page(args.out, sides, args.images)
    _write_csv(
        pairs_csv,
        ["left", "right", "winner", "equal_by", "different_by", "gap"],
        (
            [*side, "", args.scores[pair.equal], args.scores[pair.different], f"{pair.gap:.4f}"]
            for side, pair in zip(sides, pairs, strict=True)
        ),
    )
    spread = np.ptp(ranks, axis=1)
    chosen = np.argsort(-spread, kind="stable")[: args.count]
    _write_csv(
        images_csv,
        ["name", "mos", "spread", *(f"rank.{path}" for path in args.scores)],
        ([names[i], "", *(f"{value:.4f}" for value in (spread[i], *ranks[i]))] for i in chosen),
    )
    print(
        f"{args.out}: {len(pairs)} pairs, also in {pairs_csv}\n{images_csv}: {len(chosen)} images"
    )


def _check(args: argparse.Namespace, targets: Sequence[Path]) -> None:
    """Refuse what cannot be, before anything is read; a csv that was filled in is not written over."""
    if len({path.resolve() for path in args.scores}) < max(2, len(args.scores)):
        raise UsageError("scores of two metrics or more are needed, a file of each")
    if args.count < 1:
        raise UsageError(f"--count must be at least 1, got {args.count}")
    if args.out.suffix.lower() != ".html":
        raise UsageError(f"-o {args.out}: a page is written, so the name must end in .html")
    for path in targets:
        if path.exists():
            raise FileExistsError(f"{path}: exists; name another page with -o")
        check_target(path)


def read_scores(paths: Sequence[Path]) -> tuple[list[str], Floats]:
    """Return the N images that have a score in all of M files, and these (N, M), higher better.

    Raises:
        OSError, ValueError: a file that cannot be read, two scores of one image, fewer than two images.
    """
    tables = [_read(path) for path in paths]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    known = set().union(*tables)
    if len(names) < 2:
        firsts = ", ".join(repr(next(iter(table), None)) for table in tables)
        raise ValueError(
            f"{len(names)} of {len(known)} images have a score in each file, expected two or more; "
            f"the first names are {firsts}"
        )
    if missing := len(known) - len(names):
        print(f"{missing} images are left out: not scored in each file", file=sys.stderr)
    return names, np.array([[table[name] for table in tables] for name in names])


def _read(path: Path) -> dict[str, float]:
    """Return name -> score, turned round where lower is better; images without a score are left out."""
    is_shards = path.suffix == ".parquet" and path.is_dir()
    if not is_shards:
        check_file(path, "scores of 'lifeiqa score -o' or of 'lifeiqa benchmark'")
    about = path.with_name("metric.json")  # which lifeiqa benchmark keeps beside the scores
    sign = -1 if about.is_file() and read_json(about)["metric"]["lower_better"] else 1
    scores: dict[str, float] = {}
    for number, row in enumerate(read_rows(path), start=1):
        try:
            image = parse_row({"path": row["name"], **row} if "name" in row else row)
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from error
        if image.has_score and image.name in scores:
            raise ValueError(f"{path}: {image.name!r} has two scores")
        if image.has_score:
            scores[image.name] = sign * image.score
    return scores


def find_pairs(ranks: Floats, count: int) -> list[Pair]:
    """Find pairs that one metric calls equal and another very different (Ma et al., gMAD, 2016).

    Each two metrics take turns, in both roles, and begin with their widest gap. No pair comes twice.

    Args:
        ranks: (N, M) of N images by M metrics, from 0 to 1.
        count: pairs at most.

    Returns:
        Those with a gap above 0.
    """
    found: list[tuple[int, Pair]] = []
    for equal, different in itertools.permutations(range(ranks.shape[1]), 2):
        own = []
        parts = max(1, min(LEVELS, len(ranks) // 4))
        for part in np.array_split(np.argsort(ranks[:, equal], kind="stable"), parts):
            ordered = part[np.argsort(ranks[part, different], kind="stable")]
            for worse, better in zip(ordered[: len(part) // 2], ordered[::-1], strict=False):
                wide, narrow = np.abs(ranks[better] - ranks[worse])[[different, equal]]
                own.append(Pair(wide - narrow, int(worse), int(better), equal, different))
        own.sort(key=lambda pair: -pair.gap)
        found += enumerate(pair for pair in own if pair.gap > 0)
    chosen: dict[frozenset[int], Pair] = {}
    for _, pair in sorted(found, key=lambda one: one[0]):
        chosen.setdefault(frozenset((pair.worse, pair.better)), pair)
    return list(chosen.values())[:count]


def _write_csv(path: Path, header: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    with write_whole(path) as file:
        file.write(text.getvalue().encode())


def _write_page(out: Path, sides: Sequence[Sequence[str]], folder: Path) -> None:
    """Write the page; it keeps votes under a key that is of these pairs only.

    Raises:
        FileNotFoundError: an image is not there.
    """
    names = {name for side in sides for name in side}
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        raise FileNotFoundError(
            f"{len(missing)} of the {len(names)} images to rate are not below {folder.absolute()}, the first is "
            f"{missing[0]!r}; --images FOLDER says where they are"
        )
    links = {name: link_to(str(folder / name), out.parent) for name in names}
    pairs = [[{"name": name, "src": links[name]} for name in side] for side in sides]
    key = hashlib.sha256(repr(sides).encode()).hexdigest()[:16]
    template = Path(__file__).with_name("pick.html").read_text(encoding="utf-8")
    page = embed(template, {"pairs": pairs, "key": key}, "Which photo is better?")
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out) as file:
        file.write(page.encode())
