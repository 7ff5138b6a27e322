"""See that two files of ``lifeiqa score -o scores.csv`` say the same of the same images, to 1e-4."""

from __future__ import annotations

import csv
import sys

TOLERANCE = 1e-4


def read_scores(path: str) -> dict[str, float]:
    """Return the score of each image; one that has none is an error."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["error"]:
            sys.exit(f"{path}: {row['path']}: {row['error']}")
    return {row["path"]: float(row["score"]) for row in rows}


def main() -> None:
    """Compare; exits with an error where they differ."""
    first, second = (read_scores(path) for path in sys.argv[1:3])
    if not first or first.keys() != second.keys():
        sys.exit(f"{sys.argv[1]} and {sys.argv[2]} are not of the same images")
    largest = max(abs(first[name] - second[name]) for name in first)
    print(f"{len(first)} images, largest difference {largest:.2g}")
    if not largest <= TOLERANCE:
        sys.exit(f"the scores differ by {largest:.2g}, more than {TOLERANCE}")


if __name__ == "__main__":
    main()
