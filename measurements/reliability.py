"""Write docs/reliability.md: bad inputs, injected faults and seeded fuzzing, and what comes of each.

    python measurements/reliability.py --out docs/reliability.md
    python measurements/reliability.py --fuzz 20 --faults download

The first takes about five minutes on two cores, the second some seconds. Exit status 1 if anything came that is
neither a score nor one clear error, or if a fault cost more than it may.
"""

from __future__ import annotations

import argparse
import collections
import re
import tempfile
import time
import warnings
from pathlib import Path

from bad_inputs import try_all
from faults import FAULTS, Fault, inject_all
from fuzzing import FUZZERS, fuzz
from measuring import conditions
from outcomes import GOOD, Outcome
from tabulate import tabulate

HEAD = """# What it does with what it should not be given

Written by `python measurements/reliability.py --fuzz {count} --seed {seed} --out docs/reliability.md`, {conditions}.
A small run of it is a test (`tests/measurements/test_reliability.py`). Allowed is a score, or one clear error; a crash,
a hang, a traceback or a NaN in silence is a defect and is printed **bold**. Messages that begin `pyiqa:` are the
host's, which looks at a tensor before we do. Some mutated checkpoints get a score: their changed weights are finite,
and only the files that ship have a digest to be held against.
"""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table of texts."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    padded = tabulate(escaped, header, tablefmt="github", disable_numparse=True)
    return re.sub(r"-{4,}", "---", re.sub(r" {2,}", " ", padded))


def emphasise(text: str, is_good: bool) -> str:
    """Return a text, bold where it tells of a defect."""
    return text if is_good else f"**{text}**"


def describe_inputs(found: dict[str, list[tuple[str, Outcome]]]) -> str:
    """Return the tables of bad inputs."""
    parts = ["## Bad inputs"]
    for heading, outcomes in found.items():
        rows = [[what, emphasise(got.text, got.kind in GOOD)] for what, got in outcomes]
        parts += [f"### {heading}", table(["given", "what comes"], rows)]
    return "\n\n".join(parts)


def describe_faults(faults: list[Fault]) -> str:
    """Return the table of injected faults."""
    rows = [[f.what, f.said, emphasise(f.lost, f.is_good)] for f in faults]
    return "## Injected faults\n\n" + table(["fault", "what is said", "what is lost"], rows)


def describe_fuzzing(found: dict[str, list[Outcome]], seed: int) -> str:
    """Return the table of mutations, and the defects among them."""
    rows, defects = [], []
    for kind, outcomes in found.items():
        counts = collections.Counter(outcome.kind for outcome in outcomes)
        bad = {(got.kind, got.text) for got in outcomes if got.kind not in GOOD}
        other = sum(counts[name] for name in counts if name not in GOOD)
        cells = [str(counts[name]) for name in GOOD]
        rows.append([kind, str(len(outcomes)), *cells, emphasise(str(other), other == 0)])
        defects += [f"- {kind}: **{name}**: {text}" for name, text in sorted(bad)]
    header = ["mutated", "count", "scored", "accepted", "one clear error", "anything else"]
    note = (
        f"Seed {seed}; bytes changed, cut, repeated and blanked; values of the wrong kind and size."
    )
    return "\n\n".join(["## Fuzzing", note, table(header, rows), *defects])


def main() -> None:
    """Parse the command line, try, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="Markdown file to write (default: print)")
    parser.add_argument("--fuzz", type=int, default=2000, help="mutations of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", nargs="*", choices=list(FAULTS), default=list(FAULTS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of Pillow, on files that are damaged on purpose
    start = time.time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = try_all(folder / "inputs")
        mutated = {kind: fuzz(kind, args.fuzz, args.seed, folder / kind) for kind in FUZZERS}
        faults = inject_all(folder / "faults", tuple(args.faults))
    head = HEAD.format(count=args.fuzz, seed=args.seed, conditions=conditions())
    parts = [head.rstrip(), describe_inputs(inputs), describe_faults(faults)]
    page = "\n\n".join([*parts, describe_fuzzing(mutated, args.seed)]) + "\n"
    if args.out is None:
        print(page)
    else:
        args.out.write_text(page, encoding="utf-8")
    outcomes = [got for rows in inputs.values() for _, got in rows]
    outcomes += [got for found in mutated.values() for got in found]
    defects = sum(got.kind not in GOOD for got in outcomes) + sum(not f.is_good for f in faults)
    print(
        f"{len(outcomes)} inputs, {len(faults)} faults, {defects} defects, {time.time() - start:.0f} s"
    )
    if defects:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
