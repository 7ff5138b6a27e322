"""Life-IQA, a no-reference image quality metric, as a plugin to pyiqa.

>>> import pyiqa
>>> metric = pyiqa.create_metric("lifeiqa", device="cpu")
>>> round(metric("examples/photos/coffee_0_clean.jpg").item(), 1)  # 0 worst, 1 best
0.8

Nothing here has to be imported for that. Importing this package registers the metric too, and imports neither torch
nor pyiqa until one of the names below is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lifeiqa_plugin.register import register

if TYPE_CHECKING:
    from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
    from lifeiqa_plugin.explanation.explain import explain
    from lifeiqa_plugin.images.reading import read_image
    from lifeiqa_plugin.network.lifeiqa import LifeIQA
    from lifeiqa_plugin.scoring.rows import ScoredImage
    from lifeiqa_plugin.scoring.score import Scorer, score

__version__ = "0.4.1"
__all__ = [
    "LifeIQA",
    "ScoredImage",
    "Scorer",
    "__version__",
    "build_lifeiqa",
    "explain",
    "read_image",
    "register",
    "score",
]

_HOME = {
    "LifeIQA": "lifeiqa_plugin.network.lifeiqa",
    "build_lifeiqa": "lifeiqa_plugin.checkpoints.factory",
    "ScoredImage": "lifeiqa_plugin.scoring.rows",
    "Scorer": "lifeiqa_plugin.scoring.score",
    "explain": "lifeiqa_plugin.explanation.explain",
    "read_image": "lifeiqa_plugin.images.reading",
    "score": "lifeiqa_plugin.scoring.score",
}

register()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; its public names are {__all__}"
        )
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
