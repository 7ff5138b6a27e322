r"""Write the measured numbers of ``docs/results.csv`` into the pages that quote them.

    python tools/quote_results.py            rewrite the quotes in README.md and docs/*.md
    python tools/quote_results.py --check    change nothing, name those that differ

A quote is ``<!--niqe_times-->6.4<!--/-->``: the id of a row, then its value as readers see it.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.csv"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUOTE = re.compile(r"<!--(\w+)-->([^<]*)<!--/-->")


def read_results() -> dict[str, dict[str, str]]:
    """Return the rows of ``docs/results.csv`` by their id.

    Raises:
        ValueError: an id that two rows have.
    """
    with RESULTS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    results = {row["id"]: row for row in rows}
    if len(results) < len(rows):
        ids = [row["id"] for row in rows]
        raise ValueError(f"{RESULTS.name}: two rows with the id {max(ids, key=ids.count)!r}")
    return results


def update(text: str, results: dict[str, dict[str, str]]) -> str:
    """Return a page with the value of each quote taken from its row.

    Raises:
        KeyError: a quote of a row that is not there.
    """
    return QUOTE.sub(lambda found: f"<!--{found[1]}-->{results[found[1]]['value']}<!--/-->", text)


def main() -> None:
    """Parse the command line, check or write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1")
    args = parser.parse_args()
    results, differing = read_results(), []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for row_id, quoted in QUOTE.findall(text):
            if row_id not in results:
                raise SystemExit(f"{page.name} quotes {row_id}, which {RESULTS.name} lacks")
            if quoted != results[row_id]["value"]:
                value = results[row_id]["value"]
                differing.append(f"{page.name}: {row_id} is {quoted}, measured {value}")
        if not args.check:
            page.write_text(update(text, results), encoding="utf-8")
    print("\n".join(differing) or "all quotes are as measured")
    if args.check and differing:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
