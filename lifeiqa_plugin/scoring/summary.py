"""What a run has found, in a few lines; grows with each row and takes no memory with it."""

from __future__ import annotations

import heapq
from collections import Counter

from lifeiqa_plugin.images.folders import describe_skipped
from lifeiqa_plugin.images.stream import TOO_SMALL
from lifeiqa_plugin.scoring.rows import CHECK, DROP, KEEP, Row
from lifeiqa_plugin.words import QUALIFIER

BINS = 10
EXTREMES = 5
BAR = 40


class Summary:
    """Counts of rows, scores, verdicts and failures."""

    def __init__(self) -> None:
        self.rows = 0
        self.skipped: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.bins = [0] * BINS
        self.flaws: Counter[str] = Counter()
        self.best: list[tuple[float, str]] = []
        self.worst: list[tuple[float, str]] = []

    @property
    def failed(self) -> int:
        """How many images have no score."""
        return self.failures.total()

    def add(self, row: Row) -> None:
        """Take in one row."""
        self.rows += 1
        if row.get("error") is not None:
            self.failures[row["error"].partition(" (")[0]] += 1
            return
        score, path = row["score"], row["path"]
        self.verdicts[row["verdict"] or TOO_SMALL] += 1
        self.bins[min(max(int(score * BINS), 0), BINS - 1)] += 1
        said = (row.get("sentence") or "").partition(": ")[2]
        self.flaws.update(QUALIFIER.sub("", flaw) for flaw in said.split(", ") if flaw)
        self.best = heapq.nlargest(EXTREMES, [*self.best, (score, path)])
        self.worst = heapq.nlargest(EXTREMES, [*self.worst, (-score, path)])

    def as_dict(self) -> Row:
        """Return the counts, for a manifest."""
        return {
            "rows": self.rows,
            "failed": self.failed,
            "failures": dict(self.failures.most_common()),
            "skipped": dict(self.skipped.most_common()),
            "verdicts": {name: self.verdicts[name] for name in (KEEP, CHECK, DROP)},
            "histogram": self.bins,
            "flaws": dict(self.flaws.most_common()),
        }

    def describe_counts(self) -> str:
        """Return how many there are, in a line."""
        return f"{self.rows} images, {self.rows - self.failed} scored, {self.failed} failed"

    def describe(self) -> str:
        """Return the closing lines."""
        scored = self.rows - self.failed
        lines = [self.describe_counts(), *filter(None, [describe_skipped(self.skipped)])]
        lines += [f"  {number:8d}  {reason}" for reason, number in self.failures.most_common(10)]
        if not scored:
            return "\n".join(lines)
        verdicts = [f"{name} {self.verdicts[name]}" for name in (KEEP, CHECK, DROP)]
        if self.verdicts[TOO_SMALL]:
            verdicts.append(f"{TOO_SMALL} {self.verdicts[TOO_SMALL]}")
        lines.append(f"verdicts: {', '.join(verdicts)}")
        most = max(self.bins)
        for i, number in enumerate(self.bins):
            bar = "#" * round(BAR * number / most)
            lines.append(f"  {i / BINS:.1f} - {(i + 1) / BINS:.1f} {number:8d}  {bar}".rstrip())
        for name, extremes, sign in (("best", self.best, 1), ("worst", self.worst, -1)):
            lines.append(f"{name}:")
            lines += [f"  {sign * s:.3f}  {path}" for s, path in extremes]
        if self.flaws:
            shares = (f"{name} {number / scored:.0%}" for name, number in self.flaws.most_common())
            lines.append(f"said of them: {', '.join(shares)}")
        return "\n".join(lines)
