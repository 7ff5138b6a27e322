"""What was probably meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, known: Iterable[object], count: int = 1) -> list[str]:
    """Return up to ``count`` of the known names that resemble ``name``, the most alike first; often none."""
    return difflib.get_close_matches(str(name), [str(one) for one in known], n=count)


def did_you_mean(
    name: object, known: Iterable[object], otherwise: str | None = None, count: int = 1
) -> str:
    """Return the end of an error about an unknown name: ``did you mean 'x'?``.

    Args:
        name: that is not known.
        known: all names that are.
        otherwise: what to say where no known name resembles it; None lists them, ``known: x, y``.
        count: of names to offer, at most.
    """
    names = [str(one) for one in known]
    if near := nearest(name, names, count):
        return f"did you mean {', '.join(map(repr, near))}?"
    return f"known: {', '.join(names)}" if otherwise is None else otherwise
