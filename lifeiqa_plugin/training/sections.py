"""What may stand in an option file: one dataclass is one section, one field one key, with its default and meaning.

``docs/training.md`` shows them as a table; ``options.py`` reads files into them, checked by pydantic, and makes the
JSON schema by which editors complete them. Neither torch nor pyiqa is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field


def _as_whole(value: Any) -> Any:
    """Return a whole number as such where it is written as another one, as pyiqa's files do: ``!!float 500``."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_as_whole), Field(ge=1)]
AtLeastZero = Annotated[float, Field(ge=0)]

BATCH = (
    "batch_size_per_gpu",
    "num_worker_per_gpu",
    "crops_per_image",
    "crop_size",
    "working_size",
    "use_shuffle",
    "pin_memory",
    "persistent_workers",
    "prefetch_mode",
)
"""Keys of ``datasets:train`` that say how batches are made, and so are the same for all of its list."""


class Section:
    """No key that nothing reads, and no value of another kind than its key's."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(Section):
    """A dataset: ``train``, ``val``, ``test``, and further ones called ``val_<something>`` or ``test_<something>``."""

    name: str | None = None
    """in the log and in the checkpoint's card; by default the csv's name and the section's"""
    type: str = "LifeIQADataset"
    """class of the dataset"""
    meta_info_file: str | None = None
    """csv that `lifeiqa prepare` writes; without it, all images of the folder are shown at distortion levels"""
    dataroot_target: str
    """the folder that the names in the csv are below"""
    split_index: int | str | None = None
    """a column of the csv; or a number, together with `split_ratio`; every row by default"""
    split_ratio: str = "802"
    """`'712'` and the number 1 mean the column `ratio712_seed123_split_01`"""
    split_file: str | None = None
    """pyiqa's pickle of row numbers instead of a column"""
    mos_normalize: bool = False
    """for a csv of pyiqa with raw scores: bring them from `mos_range` to 0 .. 1, higher better; needs the two below"""
    mos_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """lowest and highest raw score"""
    lower_better: bool | None = None
    """whether raw scores are worse when higher"""
    num_worker_per_gpu: Annotated[int, Field(ge=0)] = 0
    """processes that decode, beside the training itself"""


@dataclass(frozen=True, kw_only=True)
class TrainingSetOptions(DatasetOptions):
    """``datasets:train``, or each of its list; of a list, the keys in ``BATCH`` hold for all once one has them."""

    batch_size_per_gpu: Count | None = None
    """images in a batch of one process, required; the batch has `crops_per_image` times as many crops"""
    crops_per_image: Count = 1
    """crops from each decode"""
    crop_size: Count | None = None
    """side of a crop: the network's, which it must equal; with `whole_image` by default its `working_size`, or less"""
    working_size: Count | None = None
    """shorter side to which larger images are reduced first: the network's, which it must equal"""
    working_range: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """lowest and highest shorter side, drawn anew at each visit, in place of `working_size`"""
    hflip: bool = True
    """mirror half of the crops"""
    ladder_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """part of the images shown as one place at `crops_per_image` levels of one distortion instead, half of them from
    the undistorted on; `rank_weight` ranks them"""
    ladder_folder: str | None = None
    """clean photos, which need no scores, that stand in for half of these images"""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """times that each image is seen in an epoch; of a broken number, another random part in each epoch"""
    own_scale: bool = False
    """in a list: the scores are on a scale of their own, and an increasing line to it is learned with the weights"""
    weigh_opinions: Annotated[float, Field(gt=0)] | None = None
    """the network's own error, such as 0.1: in the loss a label counts as 1 / (this^2 + `mos_std`^2 / `votes`), of
    these columns of the csv, and 1 on average; all count the same by default"""
    use_shuffle: bool = True
    """false for the order of the csv"""
    pin_memory: bool = False
    """as in pyiqa"""
    persistent_workers: bool | None = None
    """keep the decoding processes from epoch to epoch; true where there are any"""
    prefetch_mode: Literal["cuda"] | None = None
    """as in pyiqa: `cuda`, but not `cpu`, which hangs on errors"""


@dataclass(frozen=True, kw_only=True)
class PathOptions(Section):
    """``path``."""

    resume_state: str | None = None
    """a state to go on from; `--auto-resume` takes the run's own"""


@dataclass(frozen=True, kw_only=True)
class OptimOptions(Section):
    """``train:optim``."""

    type: str = "AdamW"
    """an optimiser of torch.optim"""
    lr: AtLeastZero
    """peak learning rate"""
    lr_backbone: AtLeastZero | None = None
    """peak learning rate of the backbone; `lr` by default"""
    weight_decay: AtLeastZero = 0.01
    """of matrices and kernels; not of biases, norms, scalars, tokens and position tables"""
    betas: list[float] | None = None
    """torch's"""
    eps: float | None = None
    """torch's"""
    momentum: float | None = None
    """torch's, of SGD and RMSprop"""


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions(Section):
    """``train:scheduler``: the learning rate after the warm-up, iteration by iteration."""

    type: Literal["constant", "step", "cosine"] = "constant"
    """`constant`, `step` or `cosine`"""
    every_epochs: AtLeastZero = 0
    """length of a step"""
    gamma: float = 0.1
    """factor of a step"""
    min_factor: AtLeastZero = 0.0
    """end of the cosine, as a part of `lr`"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Section):
    """``train``: how the weights are fitted."""

    total_epoch: Count
    """length of the run"""
    warmup_epochs: AtLeastZero = 0
    """length of the linear warm-up; fractions are fine"""
    warmup_factor: float = 0.01
    """where the warm-up starts, as a part of `lr`; above 1 the rate falls"""
    optim: OptimOptions
    """the optimiser"""
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    """the learning rate"""
    steps_per_batch: Count = 1
    """steps of the optimiser in each iteration, each on its share of every image's crops"""
    accumulate: Count = 1
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
    """weight of the hinge between neighbouring distortion levels, each to score 0.03 below the one before"""
    pair_weight: float = 1.0
    """weight of the votes' likelihood by Bradley and Terry, where a training set is pairs of images"""
    pair_scale: Annotated[float, Field(gt=0)] = 0.1
    """difference of two scores at which the better image gets 73 % of the votes"""
    distortion_weight: float = 0.0
    """weight of the second task, which distortion the levels are of; of those in `network: distortions`"""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """longest gradient"""
    amp: Literal["fp32", "bf16", "fp16"] = "fp32"
    """`fp32`, `bf16`, or `fp16` with a scaler on GPUs; validation is always float32"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """average of the weights over iterations, which is then what is scored and saved; 0 is off"""
    freeze: list[str] = field(default_factory=list)
    """modules that stand still, dropout and batch statistics included, such as `backbone`; `*` is one part of a name"""
    decoder_first: AtLeastZero = 0
    """epochs at the start in which the backbone stands still; it has a warm-up and schedule of its own afterwards"""
    freeze_batch_stats: bool = False
    """BatchNorm layers keep and use their stored statistics, for small batches"""
    grad_checkpointing: bool = False
    """compute the backbone twice to save memory"""


@dataclass(frozen=True, kw_only=True)
class ValidationOptions(Section):
    """``val``: how the weights are chosen."""

    val_freq: Count | None = None
    """iterations between validations; once per epoch by default"""
    key_metric: Literal["srcc", "plcc", "krcc", "rmse"] = "srcc"
    """the weights with the best `srcc`, `plcc`, `krcc` or `rmse` on the first validation set are kept"""
    save_img: Literal[False] = False
    """as in pyiqa, whose loop asks for it"""


@dataclass(frozen=True, kw_only=True)
class LoggerOptions(Section):
    """``logger``: what is written on the way."""

    print_freq: Count = 100
    """iterations between lines of the log"""
    save_latest_freq: Count | None = None
    """iterations between saved states; once per epoch by default"""
    save_checkpoint_freq: Count | None = None
    """iterations between numbered weights; never by default"""
    use_tb_logger: bool = False
    """TensorBoard files in `tb_logger/<name>`"""


@dataclass(frozen=True, kw_only=True)
class CardOptions(Section):
    """``card``: what the checkpoint says of itself."""

    training_data: str | None = None
    """by default name and csv of the training set"""
    licence: str = "not stated"
    """of the weights"""


@dataclass(frozen=True, kw_only=True)
class Options(Section):
    """A whole option file."""

    name: str
    """of the run and its folder; an older run of the name is moved aside unless it is resumed"""
    model_type: str = "LifeIQAModel"
    """the training loop's model"""
    num_gpu: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """0, 1, or `auto` for a GPU if there is one; for more, torchrun"""
    manual_seed: int = 123
    """order, crops, dropout and new weights are functions of it"""
    import_: Annotated[list[str], Field(alias="import")] = field(default_factory=list)
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
