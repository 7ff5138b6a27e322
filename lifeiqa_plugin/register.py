"""Make pyiqa know LifeIQA.

An installed plugin is registered without anybody importing it, by ``_lifeiqa_autoload`` (beside this package), which
holds the tables. This module is for everything else: an explicit import, ``LIFEIQA_AUTOLOAD=0``, a checkout that is
on the path but not installed.
"""

from __future__ import annotations

import importlib
import sys

import _lifeiqa_autoload


def register() -> None:
    """Add the metric ``lifeiqa`` and the architecture ``LifeIQA`` to pyiqa's tables.

    May be called any number of times, before or after ``import pyiqa``. Does not import pyiqa: tables that are loaded
    are filled now, the others when they are.

    Raises:
        RuntimeError: a loaded pyiqa has other tables than pyiqa 0.1.16.
    """
    _lifeiqa_autoload.install()
    for name, fill in _lifeiqa_autoload.FILL.items():
        if name not in sys.modules:
            continue
        module = importlib.import_module(name)  # waits for a thread that is importing it
        try:
            fill(module)
        except AttributeError as error:
            raise RuntimeError(
                f"cannot register lifeiqa in {name}: {error}. Wanted the tables of pyiqa 0.1.16 or newer: "
                "pip install --upgrade 'pyiqa>=0.1.16'"
            ) from error
