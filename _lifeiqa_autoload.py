"""Tell pyiqa about LifeIQA while pyiqa is being imported.

Python calls ``start`` each time it starts, in every environment where the plugin is installed: through
``_lifeiqa_autoload.pth`` and, from Python 3.15 on, ``_lifeiqa_autoload.start`` (PEP 829). Two rules follow: import
nothing that Python has not loaded by then, and never raise.

This file is installed beside ``lifeiqa_plugin``, not inside it, so that it outlives a broken or missing package. The
metric is then still listed, and asking for it raises what is really wrong.
"""

import os
import sys

# Type checkers know this name; importing the real one from typing takes milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


def describe(**options: "Any") -> "dict[str, Any]":
    """Describe a metric to pyiqa; ``options`` go to ``build_lifeiqa``."""
    return {
        "metric_opts": {"type": "LifeIQA", **options},
        "metric_mode": "NR",
        "lower_better": False,
        "score_range": "0, 1",
    }


METRICS: "dict[str, dict[str, Any]]" = {
    "lifeiqa": describe(trainable=False),
    "lifeiqa-biq2021": describe(pretrained="lifeiqa-biq2021", trainable=False),
}
"""What ``pyiqa.create_metric`` and ``pyiqa -ls`` look up: metric name -> pyiqa's description of it."""

REGISTRIES = {
    "ARCH_REGISTRY": {"LifeIQA": "lifeiqa_plugin.checkpoints.factory:build_arch"},
    "MODEL_REGISTRY": {"LifeIQAModel": "lifeiqa_plugin.training.model:LifeIQAModel"},
    "DATASET_REGISTRY": {"LifeIQADataset": "lifeiqa_plugin.training.dataset:LifeIQADataset"},
    "LOSS_REGISTRY": {
        "SmoothL1Loss": "lifeiqa_plugin.training.losses:SmoothL1Loss",
        "FidelityLoss": "lifeiqa_plugin.training.losses:FidelityLoss",
    },
}
"""What ``type:`` in an option file looks up: pyiqa registry -> {name: where to import it from when it is asked for}."""


def fill_metrics(configs: "ModuleType") -> None:
    """Add ``METRICS`` to ``pyiqa.default_model_configs``; an entry that is there already is kept."""
    for name, description in METRICS.items():
        configs.DEFAULT_CONFIGS.setdefault(name, description)


def fill_registries(registry: "ModuleType") -> None:
    """Add ``REGISTRIES`` to ``pyiqa.utils.registry``; a name that is there already is kept."""
    for table, objects in REGISTRIES.items():
        for name, import_path in objects.items():
            try:  # noqa: SIM105 -- contextlib would be one more import at every start of Python
                getattr(registry, table).register_lazy(name, import_path)
            except AssertionError:
                pass  # how pyiqa says that the name is taken, here by an earlier call


def fill_load_weights(inference: "ModuleType") -> None:
    """Let ``metric.load_weights`` of ``pyiqa.models.inference_model`` read our files where the network is ours."""
    pyiqas = inference.InferenceModel.load_weights
    if pyiqas.__module__ == __name__:
        return

    def load_weights(metric: "Any", weights_path: str, weight_keys: str = "params") -> None:
        kinds = type(metric.net).__mro__
        if any(kind.__module__ == "lifeiqa_plugin.network.lifeiqa" for kind in kinds):
            from lifeiqa_plugin.checkpoints import factory

            factory.load_weights(metric, weights_path)
        else:
            pyiqas(metric, weights_path, weight_keys)

    inference.InferenceModel.load_weights = load_weights


FILL: "dict[str, Callable[[ModuleType], None]]" = {
    "pyiqa.default_model_configs": fill_metrics,
    "pyiqa.utils.registry": fill_registries,
    "pyiqa.models.inference_model": fill_load_weights,
}
"""The modules of pyiqa that hold its tables and its metric, and what to do with each once it has run."""


class Finder:
    """Finds the modules of ``FILL`` as Python itself would, and fills each right after it has run."""

    def __init__(self) -> None:
        self._busy: set[str] = set()

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the spec of a module in ``FILL``; None, which sends Python to the next finder, for all others."""
        if name not in FILL or name in self._busy:
            return None
        # another plugin's finder may well ask all finders too, this one included
        self._busy.add(name)
        try:
            return _filled(_find_elsewhere(self, name, path, target))
        except Exception:
            return None
        finally:
            self._busy.discard(name)


def _find_elsewhere(
    finder: Finder, name: str, path: "Sequence[str] | None", target: "ModuleType | None"
) -> "ModuleSpec | None":
    for other in sys.meta_path:
        spec = None if other is finder else other.find_spec(name, path, target)
        if spec is not None:
            return spec
    return None


def _filled(spec: "ModuleSpec | None") -> "ModuleSpec | None":
    if spec is not None and spec.loader is not None:
        run = spec.loader.exec_module

        def run_then_fill(module: "ModuleType") -> None:
            run(module)
            try:
                # the loader of a zip archive is shared by all its modules
                if module.__name__ == spec.name:
                    FILL[spec.name](module)
            except Exception:
                pass  # the host must load whatever happens here; lifeiqa_plugin.register() says what went wrong

        spec.loader.exec_module = run_then_fill  # type: ignore[method-assign]
    return spec


def install() -> None:
    """Put one ``Finder`` in front of Python's finders, unless there is one."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())


def start() -> None:
    """Called by Python at its start: ``install``, unless the environment has ``LIFEIQA_AUTOLOAD=0``."""
    if os.environ.get("LIFEIQA_AUTOLOAD") != "0":
        install()


def register_objects() -> None:
    """Called by pyiqa through the plugin's entry points: ``fill_registries``, also with ``LIFEIQA_AUTOLOAD=0``."""
    fill_registries(sys.modules["pyiqa.utils.registry"])
