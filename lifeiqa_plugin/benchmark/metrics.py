"""Metrics of pyiqa by name or option file, and checkpoints; untrained where their weights cannot be had."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import lifeiqa_plugin
from lifeiqa_plugin.benchmark.option_files import NOTHING
from lifeiqa_plugin.checkpoints.factory import weights_of
from lifeiqa_plugin.checkpoints.models import resolve
from lifeiqa_plugin.nearest import did_you_mean
from lifeiqa_plugin.pyiqa_compat import (
    arguments_of,
    create_metric,
    host_version,
    listed_metric,
    metric_table,
    without_downloads,
)

NAME = re.compile(r"\w[\w.+-]*")
"""What a metric or a dataset may be called: its scores are kept in files of that name."""

WEIGHTS = ("pretrained", "pretrained_model_path")
"""Options that say which weights, in words."""

WEIGHT_SWITCHES = (
    "pretrained",
    "backbone_pretrain",
    "pretrained_backbone",
    "backbone_pretrained",
    "pretrained_base",
)
"""Names under which networks of pyiqa take a flag that makes them download weights."""

CHECKPOINTS = (".safetensors", ".pth", ".pt")
"""How the names of files end that ``-m`` takes for checkpoints of Life-IQA."""


@dataclass(frozen=True)
class MetricSpec:
    """A metric to compare: its name, whether it needs references, its direction, and its options for pyiqa."""

    name: str
    mode: str
    lower_better: bool
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What makes two runs comparable, as JSON knows it; weights by their bytes, whatever they are called."""
        about: dict[str, Any] = {**asdict(self), "versions": {"pyiqa": host_version()}}
        if model := weights_of(self.options):
            about["weights sha256"] = model.sha256
            about["options"] = {k: v for k, v in self.options.items() if k not in WEIGHTS}
        if self.options.get("type") == "LifeIQA":
            about["versions"]["lifeiqa_plugin"] = lifeiqa_plugin.__version__
        return about


@dataclass(frozen=True)
class LoadedMetric:
    """A metric that is ready, and the spec it was built of; ``untrained`` says why it has no weights, else empty.

    Creating that spec again gives the same metric, without another try for weights that could not be had.
    """

    metric: Any
    spec: MetricSpec
    untrained: str = ""

    @cached_property
    def weights(self) -> str:
        """The :func:`fingerprint` of its weights."""
        return fingerprint(self.metric)


def find_metrics(
    names: list[str], custom: Mapping[str, dict[str, Any]] = NOTHING
) -> list[MetricSpec]:
    """Look metrics up; all of ``custom`` come after those named.

    Args:
        names: of pyiqa's table or of ``custom``, or paths of checkpoints of Life-IQA.
        custom: further metrics, of an option file in pyiqa's format.

    Raises:
        OSError, ValueError: an unknown name, a missing file, a description without mode or type, two checkpoints of
            one name.
    """
    table = {**metric_table(), **custom}
    found = []
    files = [Path(name) for name in names if name not in table and name.endswith(CHECKPOINTS)]
    for name in dict.fromkeys([*names, *custom]):
        if Path(name) in files:
            found.append(_from_checkpoint(Path(name), files))
        else:
            found.append(_from_table(name, table))
    for path in files:
        resolve(path)
    if not found:
        raise ValueError("no metric was named; give -m NAME ... or --metric-opt FILE")
    taken = [spec.name for spec in found]
    if twice := {name for name in taken if taken.count(name) > 1}:
        raise ValueError(f"metric {min(twice)!r} comes twice; rename the checkpoint or its folder")
    return found


def _from_checkpoint(path: Path, others: list[Path]) -> MetricSpec:
    options = {"type": "LifeIQA", "pretrained_model_path": str(path)}
    return MetricSpec(name_checkpoint(path, others), "NR", False, options)


def name_checkpoint(path: Path, others: Iterable[Path] = ()) -> str:
    """Name a checkpoint by its run and file: ``run1/models/net_best.safetensors`` becomes ``run1-net_best``.

    As many of the folders above are added as tell it from the others.

    Raises:
        ValueError: none do.
    """
    for depth in range(1, max(2, len(path.parts))):
        name = _label(path, depth)
        if name not in [_label(other, depth) for other in others if other != path]:
            return name
    raise ValueError(f"metric {name!r} comes twice; put one checkpoint in a folder of its own")


def _label(path: Path, depth: int) -> str:
    folders = [part for part in path.parent.parts if part not in ("models", "..", path.anchor)]
    return re.sub(r"[^\w.+-]", "_", "-".join([*folders[-depth:], path.stem])).lstrip(".+-")


def _from_table(name: str, table: Mapping[str, Mapping[str, Any]]) -> MetricSpec:
    if name not in table:
        hint = did_you_mean(name, table, "'pyiqa -ls' lists them", 3)
        raise ValueError(f"no metric is called {name!r}; {hint}")
    about = table[name]
    options = about.get("metric_opts")
    mode = about.get("metric_mode")
    if not NAME.fullmatch(name) or mode not in ("FR", "NR") or not isinstance(options, Mapping):
        raise ValueError(
            f"metric {name!r}: expected letters, digits and .+- in its name, metric_mode: NR or FR, and "
            f"metric_opts: with a type:, got {dict(about)}"
        )
    lower_better = bool(about.get("lower_better", False))
    return MetricSpec(name, mode, lower_better, dict(options))


class Builder:
    """Creates metrics, and tries for the weights of each only once."""

    def __init__(self) -> None:
        self._missed: dict[str, tuple[MetricSpec, str]] = {}

    def create(self, spec: MetricSpec, device: str) -> LoadedMetric:
        """Create a metric in evaluation mode, with its weights if they are there or can be fetched, else without.

        Args:
            spec: what to create.
            device: ``cpu`` or ``cuda``.

        Raises:
            Exception: whatever pyiqa raised with weights, if the metric cannot be built without either.
        """
        spec, reason = self._missed.get(spec.name, (spec, "its options say pretrained: false"))
        untrained = reason if wants_no_weights(spec.options) else ""
        try:
            return LoadedMetric(_create(spec, device), spec, untrained)
        except Exception as error:
            if untrained:
                raise
            known = arguments_of(spec.options["type"])  # since pyiqa has tried to build it
            switches = {name: False for name in WEIGHT_SWITCHES if name in known}
            switched_off = replace(spec, options={**spec.options, **switches})
            if not wants_no_weights(switched_off.options):
                raise
            try:
                metric = _create(switched_off, device)
            except Exception:
                raise error from None  # why the real one could not be had tells more
            reason = f"no weights: {first_line(error)}"
            self._missed[spec.name] = switched_off, reason
            return LoadedMetric(metric, switched_off, reason)


def wants_no_weights(options: Mapping[str, Any]) -> bool:
    """Tell whether options ask for a network with random weights."""
    return options.get("pretrained") is False and not options.get("pretrained_model_path")


def fingerprint(metric: torch.nn.Module) -> str:
    """Return a digest of all weights, by which scores of one network are told from those of another."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(metric.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def first_line(error: BaseException) -> str:
    """Return an error in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:200]


def _create(spec: MetricSpec, device: str) -> Any:
    """Create a metric; random weights are the same every time."""
    about: dict[str, Any] = {
        "metric_opts": {"type": spec.options["type"]},
        "metric_mode": spec.mode,
        "lower_better": spec.lower_better,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(listed_metric(spec.name, about))
        if wants_no_weights(spec.options):
            stack.enter_context(without_downloads())
            stack.enter_context(torch.random.fork_rng(devices=[]))
            torch.manual_seed(0)
        return create_metric(spec.name, device, spec.options)
