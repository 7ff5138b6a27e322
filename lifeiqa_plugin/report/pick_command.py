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
from lifeiqa_plugin.page import embed, small_copy
from lifeiqa_plugin.report.collect import link_to
from lifeiqa_plugin.scoring.rows import parse_row, read_rows

if TYPE_CHECKING:
    from lifeiqa_plugin.correlation import Floats

LEVELS = 20
"""Parts of the images, by the rank that a metric gives them; within a part it calls all equal."""

SHOWN = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""Files that browsers show; of others the page has copies."""

SIDE = 1600
"""Longer side of such a copy, in pixels."""


class Pair(NamedTuple):
    """Two images, by number, that metric ``equal`` calls equal and metric ``different`` calls different.

    ``gap`` is the difference of their ranks by the one less that by the other; ranks go from 0 (worst) to 1 (best).
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
    lists = {
        what: args.out.with_name(f"{args.out.stem}_{what}.csv") for what in ("pairs", "images")
    }
    _check(args, [args.out, *lists.values()])
    names, scores = read_scores(args.scores)
    labels, ranks = list(scores), _ranks(np.array(list(scores.values())).T)
    pairs = find_pairs(ranks, args.count)
    if not pairs:
        raise ValueError(f"{' and '.join(labels)} put the {len(names)} images in the same order")
    sides = _sides(pairs, names)
    _check_images(args.images, {name for side in sides for name in side})
    spread = np.ptp(ranks, axis=1)
    chosen = np.argsort(-spread, kind="stable")[: args.count]
    _write_csv(
        lists["pairs"],
        ["left", "right", "winner", "equal_by", "different_by", "gap"],
        (
            [*side, "", labels[pair.equal], labels[pair.different], f"{pair.gap:.4f}"]
            for side, pair in zip(sides, pairs, strict=True)
        ),
    )
    _write_csv(
        lists["images"],
        ["name", "mos", "spread", *(f"rank.{label}" for label in labels)],
        ([names[i], "", *(f"{value:.4f}" for value in (spread[i], *ranks[i]))] for i in chosen),
    )
    _write_page(args.out, sides, args.images)
    print(f"{args.out}: {len(pairs)} pairs, also in {lists['pairs']}")
    print(f"{lists['images']}: {len(chosen)} images")


def _check(args: argparse.Namespace, targets: Sequence[Path]) -> None:
    """Refuse what cannot be, before anything is read; a csv that was filled in is not written over."""
    if len({path.resolve() for path in args.scores}) < 2:
        raise UsageError("scores of two metrics or more are needed, a file of each")
    if args.count < 1:
        raise UsageError(f"--count must be at least 1, got {args.count}")
    if args.out.suffix.lower() != ".html":
        raise UsageError(f"-o {args.out}: a page is written, so the name must end in .html")
    for path in targets:
        if path.exists():
            raise FileExistsError(f"{path}: exists; name another page with -o")
        check_target(path)


def read_scores(paths: Sequence[Path]) -> tuple[list[str], dict[str, list[float]]]:
    """Return the images that have a score in every file, and metric -> their scores, higher better.

    A metric is called as its file, or in the folder that ``lifeiqa benchmark`` keeps, as its folder.

    Raises:
        OSError, ValueError: a file that cannot be read, two scores of one image, fewer than two images.
    """
    labels = [path.parent.name if _about(path).is_file() else path.stem for path in paths]
    if len(set(labels)) < len(labels):
        labels = [str(path) for path in paths]
    tables = [_read(path) for path in paths]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    known = set().union(*tables)
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} of {len(known)} images have a score in each file, expected two or more; "
            f"{paths[0]} has {_first(tables[0])}, {paths[1]} has {_first(tables[1])}"
        )
    if missing := len(known) - len(names):
        print(f"{missing} images are left out: not scored in each file", file=sys.stderr)
    columns = zip(labels, tables, strict=True)
    return names, {label: [table[name] for name in names] for label, table in columns}


def _about(path: Path) -> Path:
    """Return the file in which ``lifeiqa benchmark`` says what metric the scores are of."""
    return path.with_name("metric.json")


def _first(table: dict[str, float]) -> str:
    return repr(next(iter(table), "none"))


def _read(path: Path) -> dict[str, float]:
    """Return name -> score, turned round where lower is better; images without a score are left out."""
    check_file(path, "scores of 'lifeiqa score -o' or of 'lifeiqa benchmark'")
    about = _about(path)
    sign = -1 if about.is_file() and read_json(about)["metric"]["lower_better"] else 1
    scores: dict[str, float] = {}
    for number, row in enumerate(read_rows(path), start=1):
        try:
            image = parse_row({"path": row["name"], **row} if "name" in row else row)
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from error
        if image.name in scores:
            raise ValueError(f"{path}: {image.name!r} has two scores")
        if image.has_score:
            scores[image.name] = sign * image.score
    return scores


def _ranks(scores: Floats) -> Floats:
    """Bring (N, M) scores of M metrics to ranks from 0 (worst) to 1 (best), so that their scales do not matter."""
    from scipy.stats import rankdata

    ranks: Floats = (rankdata(scores, axis=0) - 1) / (len(scores) - 1)
    return ranks


def find_pairs(ranks: Floats, count: int) -> list[Pair]:
    """Find pairs that one metric calls equal and another very different (Ma et al., gMAD, 2016).

    Each two metrics take turns, in both roles, and begin with their widest gap. No pair comes twice.

    Args:
        ranks: (N, M) of N images by M metrics, from 0 to 1.
        count: pairs at most.

    Returns:
        Those with a gap above 0.
    """
    found = []
    for equal, different in itertools.permutations(range(ranks.shape[1]), 2):
        own = []
        parts = max(1, min(LEVELS, len(ranks) // 4))
        for part in np.array_split(np.argsort(ranks[:, equal], kind="stable"), parts):
            ordered = part[np.argsort(ranks[part, different], kind="stable")]
            for worse, better in zip(ordered[: len(part) // 2], ordered[::-1], strict=False):
                wide, narrow = np.abs(ranks[better] - ranks[worse])[[different, equal]]
                own.append(Pair(wide - narrow, int(worse), int(better), equal, different))
        own.sort(key=lambda pair: -pair.gap)
        found += [(turn, pair) for turn, pair in enumerate(own) if pair.gap > 0]
    found.sort(key=lambda one: one[0])
    chosen: dict[frozenset[int], Pair] = {}
    for _, pair in found:
        chosen.setdefault(frozenset((pair.worse, pair.better)), pair)
    return list(chosen.values())[:count]


def _sides(pairs: Sequence[Pair], names: Sequence[str]) -> list[list[str]]:
    """Return left and right of each pair, so that neither side tells what a metric says."""
    turned = np.random.default_rng(0).random(len(pairs)) < 0.5
    both = [[names[pair.worse], names[pair.better]] for pair in pairs]
    return [side[::-1] if turn else side for side, turn in zip(both, turned, strict=True)]


def _check_images(folder: Path, names: set[str]) -> None:
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(names)} images to rate are not below {folder.absolute()}, the first is "
            f"{missing[0]!r}; --images FOLDER says where they are"
        )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as file:
        file.write(text.getvalue().encode())


def _write_page(out: Path, sides: Sequence[Sequence[str]], folder: Path) -> None:
    """Write the page; it keeps votes under a key that is of these pairs only."""
    pairs = [
        [{"name": name, "src": _source(folder / name, out)} for name in side] for side in sides
    ]
    key = hashlib.sha256(repr(sides).encode()).hexdigest()[:16]
    template = Path(__file__).with_name("pick.html").read_text(encoding="utf-8")
    page = embed(template, {"pairs": pairs, "key": key}, "Which photo is better?")
    with write_whole(out) as file:
        file.write(page.encode())


def _source(path: Path, out: Path) -> str:
    """Return where the page finds an image: the file, or a copy where browsers do not show it."""
    if path.suffix.lower() in SHOWN:
        return link_to(str(path), out.parent)
    return small_copy(path, SIDE, quality=95)
