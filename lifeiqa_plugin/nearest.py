"""What was probably meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, known: Iterable[object], count: int = 1) -> list[str]:
    """Return up to ``count`` of the known names that resemble ``name``, the most alike first; often none."""
    return difflib.get_close_matches(str(name), [str(one) for one in known], n=count)
