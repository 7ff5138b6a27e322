"""Option files: what each key means, its default, and an error for every key that nothing would read.

One dataclass is one section, one field one key; ``docs/training.md`` shows them as a table. pyiqa takes any key and
ignores those it does not know, so that a misspelt one trains something else than was meant. Neither torch nor pyiqa is
imported here: a wrong file is refused at once.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from lifeiqa_plugin.nearest import nearest

RENAMED = {
    "ladder_weight": "rank_weight",
    "std_line": "std_calibration",
    "dataset_enlarge_ratio": "crops_per_image",
}
"""Keys of earlier versions, or of pyiqa, and what stands in their place."""

BATCH = (
    "batch_size_per_gpu",
    "num_worker_per_gpu",
    "crops_per_image",
    "crop_size",
    "working_size",
    "views",
    "use_shuffle",
    "pin_memory",
    "persistent_workers",
    "prefetch_mode",
)
"""Keys of ``datasets:train`` that say how batches are made, and so are the same for all of its list."""

LARGEST = 10_000
"""Values that an option file may hold; YAML's aliases can make billions of a few lines."""

Section = TypeVar("Section")


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """A dataset: ``train``, ``val``, ``test``, and further ones called ``val_<something>`` or ``test_<something>``."""

    name: str | None = None
    """in the log and in the checkpoint's card; by default the csv's name and the section's"""
    type: str = "LifeIQADataset"
    """class of the dataset"""
    meta_info_file: str | None = None
    """csv that `lifeiqa prepare` writes; without it, all images of the folder are training ladders"""
    dataroot_target: str
    """the folder that the names in the csv are below"""
    split_index: int | str | None = None
    """a column of the csv; or a number, together with `split_ratio`; every row by default"""
    split_ratio: str = "802"
    """`'712'` and the number 1 mean the column `ratio712_seed123_split_01`"""
    split_file: str | None = None
    """pyiqa's pickle of row numbers instead of a column"""
    mos_normalize: bool = False
    """for a csv of pyiqa with raw scores: bring them from `mos_range` to 0 .. 1, higher better"""
    mos_range: list[float] | None = None
    """lowest and highest raw score"""
    lower_better: bool | None = None
    """whether raw scores are worse when higher"""
    num_worker_per_gpu: int = 0
    """processes that decode, beside the training itself"""


@dataclass(frozen=True, kw_only=True)
class TrainingSetOptions(DatasetOptions):
    """``datasets:train``, or each of its list; of a list, the keys in ``BATCH`` hold for all once one has them."""

    batch_size_per_gpu: int | None = None
    """images in a batch of one process, required; the batch has `crops_per_image` times as many crops"""
    crops_per_image: int = 1
    """crops from each decode"""
    crop_size: int | None = None
    """side of a crop: the network's, which it must equal; with `whole_image` by default its `working_size`, or less"""
    working_size: int | None = None
    """shorter side to which larger images are reduced first: the network's, which it must equal"""
    working_range: list[int] | None = None
    """lowest and highest shorter side, drawn anew at each visit, in place of `working_size`"""
    views: int = 0
    """crops of each image that are drawn once instead of anew at each visit, and kept below `views/` as what the frozen
    modules at the backbone's beginning give for them, for all epochs, splits and runs; 0 is off"""
    hflip: bool = True
    """mirror half of the crops"""
    ladder_share: float = 0.0
    """part of the images shown as one place in `crops_per_image` growing distortions instead, half of them from the
    undistorted on; `rank_weight` ranks them"""
    ladder_folder: str | None = None
    """clean photos, which need no scores, that stand in for half of these images"""
    weight: float = 1.0
    """times that each image is seen in an epoch; of a broken number, another random part in each epoch"""
    own_scale: bool = False
    """in a list: the scores are on a scale of their own, and an increasing line to it is learned with the weights"""
    use_shuffle: bool = True
    """false for the order of the csv"""
    pin_memory: bool = False
    """as in pyiqa"""
    persistent_workers: bool | None = None
    """keep the decoding processes from epoch to epoch; true where there are any"""
    prefetch_mode: str | None = None
    """as in pyiqa: `cuda`, but not `cpu`, which hangs on errors"""


@dataclass(frozen=True, kw_only=True)
class PathOptions:
    """``path``."""

    resume_state: str | None = None
    """a state to go on from; `--auto_resume` takes the run's own"""


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """``train:optim``."""

    type: str = "AdamW"
    """an optimiser of torch.optim"""
    lr: float
    """peak learning rate"""
    lr_backbone: float | None = None
    """peak learning rate of the backbone; `lr` by default"""
    weight_decay: float = 0.01
    """of matrices and kernels; not of biases, norms, scalars, tokens and position tables"""
    betas: list[float] | None = None
    """torch's"""
    eps: float | None = None
    """torch's"""
    momentum: float | None = None
    """torch's, of SGD and RMSprop"""


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """``train:scheduler``: the learning rate after the warm-up, iteration by iteration."""

    type: str = "constant"
    """`constant`, `step` or `cosine`"""
    every_epochs: float = 0
    """length of a step"""
    gamma: float = 0.1
    """factor of a step"""
    min_factor: float = 0.0
    """end of the cosine, as a part of `lr`"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """``train``: how the weights are fitted."""

    total_epoch: int
    """length of the run"""
    warmup_epochs: float = 0
    """length of the linear warm-up; fractions are fine"""
    warmup_factor: float = 0.01
    """where the warm-up starts, as a part of `lr`; above 1 the rate falls"""
    optim: OptimOptions
    """the optimiser"""
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    """the learning rate"""
    steps_per_batch: int = 1
    """steps of the optimiser in each iteration, each on its share of every image's crops"""
    accumulate: int = 1
    """parts in which a batch is computed, to save memory"""
    mos_loss_opt: dict[str, Any]
    """main loss: `type`, one of pyiqa's or `SmoothL1Loss`, and its arguments `loss_weight`, `beta` ..."""
    metric_loss_opt: dict[str, Any] | None = None
    """a second loss over the batch, such as `PLCCLoss`"""
    load_balancing_weight: float = 0.01
    """weight of the experts' load-balancing loss"""
    router_z_weight: float = 0.001
    """weight of the router's z-loss"""
    rank_weight: float = 5.0
    """weight of the hinge between neighbouring rungs of a ladder, each to score 0.03 below the one before"""
    distortion_weight: float = 0.0
    """weight of the second task, which distortion a rung of a ladder has; of those in `network: distortions`"""
    clip_grad_norm: float | None = None
    """longest gradient"""
    amp: str = "fp32"
    """`fp32`, `bf16`, or `fp16` with a scaler on GPUs; validation is always float32"""
    ema_decay: float = 0.0
    """average of the weights over iterations, which is then what is scored and saved; 0 is off"""
    freeze: list[str] = field(default_factory=list)
    """modules that stand still, dropout and batch statistics included, such as `backbone`; `*` is one part of a name"""
    decoder_first: float = 0
    """epochs at the start in which the backbone stands still; it has a warm-up and schedule of its own afterwards"""
    freeze_batch_stats: bool = False
    """BatchNorm layers keep and use their stored statistics, for small batches"""
    grad_checkpointing: bool = False
    """compute the backbone twice to save memory"""


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """``val``: how the weights are chosen."""

    val_freq: int | None = None
    """iterations between validations; once per epoch by default"""
    key_metric: str = "srcc"
    """the weights with the best `srcc`, `plcc`, `krcc` or `rmse` on the first validation set are kept"""


@dataclass(frozen=True, kw_only=True)
class LoggerOptions:
    """``logger``: what is written on the way."""

    print_freq: int = 100
    """iterations between lines of the log"""
    save_latest_freq: int | None = None
    """iterations between saved states; once per epoch by default"""
    save_checkpoint_freq: int | None = None
    """iterations between numbered weights; never by default"""
    use_tb_logger: bool = False
    """TensorBoard files in `tb_logger/<name>`"""


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """``card``: what the checkpoint says of itself."""

    training_data: str | None = None
    """by default name and csv of the training set"""
    licence: str = "not stated"
    """of the weights"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """A whole option file."""

    name: str
    """of the run and its folder; an older run of the name is moved aside unless it is resumed"""
    model_type: str = "LifeIQAModel"
    """the training loop's model"""
    num_gpu: int | str = "auto"
    """0, 1, or `auto` for a GPU if there is one; for more, torchrun"""
    manual_seed: int = 123
    """order, crops, dropout and new weights are functions of it"""
    import_: list[str] = field(default_factory=list)
    """modules of your own, in the current folder or installed, that define networks, datasets or losses"""
    datasets: dict[str, Any]
    """`train`, one or a list; `val`, `test`, and further ones called `val_<something>` or `test_<something>`"""
    network: dict[str, Any] = field(default_factory=dict)
    """`type` [LifeIQA], or a subclass of yours, and its arguments; with those of `lifeiqa_plugin.build_lifeiqa`"""
    path: PathOptions = field(default_factory=PathOptions)
    """where to go on from"""
    train: TrainOptions
    """how the weights are fitted"""
    val: ValidationOptions = field(default_factory=ValidationOptions)
    """how the weights are chosen"""
    logger: LoggerOptions = field(default_factory=LoggerOptions)
    """what is written on the way"""
    card: CardOptions = field(default_factory=CardOptions)
    """what the checkpoint says of itself"""
    define: Any = None
    """a place for YAML anchors; read by nothing else"""


def view(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Return resolved values as their dataclass; keys that pyiqa has put beside them are left out."""
    kinds, own = get_type_hints(section), {}
    for name in kinds.keys() & values.keys():
        value, kind = values[name], kinds[name]
        is_section = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        own[name] = view(kind, value) if is_section else value
    return section(**own)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Return what differs between two sets of options, ``train:optim:lr 0.001 -> 0.002``."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new, key = before.get(name), now.get(name), _join(where, name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, key)
        elif old != new:
            found.append(f"{key} {_short(old)} -> {_short(new)}")
    return found


def read_options(path: str | Path, force_yml: list[str] | None = None) -> dict[str, Any]:
    """Read an option file, apply ``section:key=value`` changes, check every key and value, fill in the defaults.

    Returns:
        Nested dicts, which pyiqa takes; a key whose value is None is left out of them.

    Raises:
        OSError: no such file.
        ValueError: not YAML, too large, a change that is not ``key=value``, an unknown or missing key, a value of
            another kind than its key's.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected YAML, a text file; this is none ({error})") from error
    options = _parse(text, str(path))
    if not isinstance(options, dict):
        raise ValueError(
            f"{path}: expected sections such as datasets: and train:, got {_short(options)}"
        )
    for change in force_yml or []:
        apply_change(options, change)
    try:
        return _resolve(options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is not typed
    """YAML 1.1, but 1e-4 is a number too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _parse(text: str, where: str) -> Any:
    """Read YAML of a bounded size."""
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: not valid YAML: {reason}") from error
    waiting, count = [value], 0
    while waiting:
        count += 1
        if count > LARGEST:
            raise ValueError(f"{where}: more than {LARGEST:,} values, counting aliases; shorten it")
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return value


def apply_change(options: dict[str, Any], change: str) -> None:
    """Set one key, ``train:optim:lr=1e-4`` or, in a list, ``datasets:train:0:weight=2``; the value is YAML."""
    keys, equals, text = change.partition("=")
    *sections, last = keys.strip().split(":")
    if not equals or not last:
        raise ValueError(f"--force_yml takes section:key=value, got {_short(change)}")
    section: Any = options
    for name in sections:
        if isinstance(section, list) and name.isdecimal() and int(name) < len(section):
            section = section[int(name)]
        elif isinstance(section, dict):
            section = section.setdefault(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"--force_yml {change}: {sections[-1]!r} is a value, not a section")
    section[last] = _parse(text.strip(), f"--force_yml {keys}")


def _resolve(given: dict[str, Any]) -> dict[str, Any]:
    """Check and complete a whole file."""
    options = _fill(Options, given, "")
    options.pop("define", None)
    name = options["name"]
    if not name.strip() or os.sep in name or name in (".", ".."):
        raise ValueError(f"name must be usable as the name of a folder, got {name!r}")
    if "debug" in name:
        raise ValueError(f"name must not contain 'debug', where pyiqa stops early, got {name!r}")
    for loss in ("mos_loss_opt", "metric_loss_opt"):
        if "type" not in options["train"].get(loss, {"type": None}):
            raise ValueError(f"train:{loss}:type is missing; see docs/training.md")
    options["network"].setdefault("type", "LifeIQA")
    options["datasets"] = {
        phase: _resolve_dataset(phase, dataset) for phase, dataset in options["datasets"].items()
    }
    if "train" not in options["datasets"]:
        raise ValueError("datasets:train is missing; see docs/training.md for what it means")
    if not any(phase.startswith("val") for phase in options["datasets"]):
        options["val"] = None
    return options


def _resolve_dataset(phase: str, given: Any) -> Any:
    """Check and complete a dataset, or the list of ``datasets:train``."""
    if phase not in ("train", "val", "test") and not phase.startswith(("val_", "test_")):
        raise _unknown_key(f"datasets:{phase}", ["train", "val", "test"])
    where = f"datasets:{phase}"
    if phase == "train":
        return _resolve_list(given) if isinstance(given, list) else _resolve_source(where, given)
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a section, got {_short(given)}")
    dataset = _fill(DatasetOptions, given, where)
    if "meta_info_file" not in dataset:
        raise ValueError(f"{where}:meta_info_file is missing; see docs/training.md")
    return _named(dataset, phase)


def _resolve_list(given: list[Any]) -> list[dict[str, Any]]:
    """Check and complete several training sets, which share the keys of ``BATCH``."""
    shared: dict[str, Any] = {}
    for source in given:
        if not isinstance(source, Mapping):
            raise ValueError(f"datasets:train is a list of sections, got {_short(source)}")
        for key in BATCH:
            value = source.get(key, shared.get(key))
            if shared.setdefault(key, value) not in (value, None):
                raise ValueError(
                    f"datasets:train:{key} is of the whole batch, but the list has {shared[key]!r} and {value!r}"
                )
            shared[key] = value
    sources = [_resolve_source(f"datasets:train:{i}", shared | one) for i, one in enumerate(given)]
    if all(source["own_scale"] or "meta_info_file" not in source for source in sources):
        raise ValueError(
            "datasets:train: one dataset with scores must be without own_scale, for the shared scale is its"
        )
    return sources


def _resolve_source(where: str, given: Any) -> dict[str, Any]:
    """Check and complete one training set."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a section or a list of sections, got {_short(given)}")
    source = _fill(TrainingSetOptions, given, where)
    if "batch_size_per_gpu" not in source:
        raise ValueError(f"{where}:batch_size_per_gpu is missing; see docs/training.md")
    if "meta_info_file" not in source and source["ladder_share"] != 1:
        raise ValueError(
            f"{where}:meta_info_file is missing; photos without scores can be shown as ladders only, ladder_share: 1"
        )
    if source["weight"] <= 0:
        raise ValueError(f"{where}:weight must be above 0, got {source['weight']}")
    source.setdefault("persistent_workers", source["num_worker_per_gpu"] > 0)
    return _named(source, "train")


def _named(dataset: dict[str, Any], phase: str) -> dict[str, Any]:
    origin = dataset.get("meta_info_file", dataset["dataroot_target"])
    dataset.setdefault("name", f"{Path(origin).stem.removeprefix('meta_info_')}-{phase}")
    if os.sep in dataset["name"]:
        raise ValueError(
            f"datasets:{phase}:name must be usable in names of files, got {dataset['name']!r}"
        )
    return dataset


def _fill(section: type, given: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Check the keys and values of a section and add defaults; None is the default of every key."""
    fields = {f.name.rstrip("_"): f for f in dataclasses.fields(section)}  # import_ is a key, too
    kinds = {name.rstrip("_"): kind for name, kind in get_type_hints(section).items()}
    for name in given:
        if name not in fields:
            raise _unknown_key(_join(where, name), list(fields))
    filled = {}
    for name, known in fields.items():
        key, value = _join(where, name), given.get(name)
        if dataclasses.is_dataclass(kinds[name]):
            has_default = known.default_factory is not MISSING
            if value is None and not has_default:
                raise ValueError(f"{key} is missing; see docs/training.md for what it means")
            if not isinstance(value or {}, Mapping):
                raise ValueError(f"{key} must be a section, got {_short(value)}")
            filled[name] = _fill(kinds[name], value or {}, key)
            continue
        if value is None:
            value = _default(known, key)
        elif not _is_a(value, kinds[name]):
            raise ValueError(f"{key} must be {_in_words(kinds[name])}, got {_short(value)}")
        if value is not None:
            filled[name] = value
    return filled


def _join(where: str, name: object) -> str:
    return f"{where}:{name}" if where else str(name)


def _default(known: dataclasses.Field[Any], key: str) -> Any:
    if known.default is not MISSING:
        return known.default
    if known.default_factory is not MISSING:
        return known.default_factory()
    raise ValueError(f"{key} is missing; see docs/training.md for what it means")


def _unknown_key(key: str, known: list[str]) -> ValueError:
    name = key.rsplit(":", 1)[-1]
    near = nearest(name, known)
    if name in RENAMED:
        hint = f"it is now {RENAMED[name]!r}"
    elif near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"known here: {', '.join(known)}"
    return ValueError(f"unknown key {key}; {hint}")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotation of this module; whole numbers are floats too, but booleans are no numbers."""
    if kind is Any:
        return True
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_a(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, Mapping)
    if get_args(kind):
        return any(_is_a(value, one) for one in get_args(kind))
    if kind is float:
        kind = (int, float)
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def _in_words(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if get_origin(kind) is list:
        return f"a list, each {_in_words(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "a section"
    if get_args(kind):
        return " or ".join(_in_words(one) for one in get_args(kind) if one is not NoneType)
    return names[kind]


def _short(value: Any) -> str:
    """Return what was found in at most 60 characters."""
    if isinstance(value, (dict, list)):
        return f"a {'section' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
