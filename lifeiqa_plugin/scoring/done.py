"""Which images have a row from before: told apart by name, size and time, and counted where these are equal."""

from __future__ import annotations

from collections import Counter

from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.scoring.rows import Row


class Done:
    """The rows of a result that is gone on with; about 150 bytes of memory for each."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()
        self._names: set[int] = set()  # of rows whose name no image had yet

    def add(self, row: Row) -> None:
        """Take in a row that is there."""
        self._rows[_key(row)] += 1
        self._names.add(hash(row["path"]))

    def take(self, image: Named) -> bool:
        """Say whether an image has a row, which then counts for no other image."""
        self._names.discard(hash(image.name))
        return self._pop(hash((image.name, image.size, image.mtime)))

    def is_outdated(self, row: Row) -> bool:
        """Say, when all images are taken, whether a row is of what is no longer so; to be asked once for each row.

        A file that was changed, or an error of what is not there any more; scores of files that are gone stay.
        """
        is_there = hash(row["path"]) not in self._names
        return (is_there or row.get("error") is not None) and self._pop(_key(row))

    def __bool__(self) -> bool:
        """Whether there are rows that no image has taken."""
        return bool(self._rows)

    def _pop(self, key: int) -> bool:
        number = self._rows.pop(key, 0)
        if number > 1:
            self._rows[key] = number - 1
        return number > 0


def _key(row: Row) -> int:
    return hash((row["path"], row.get("size"), row.get("mtime")))
