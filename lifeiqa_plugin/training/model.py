"""``model_type: LifeIQAModel``: what happens to the weights in each iteration of pyiqa's training loop.

Everything random is a function of (seed, process, iteration) or (seed, epoch, image), and the learning rate is a
function of the iteration. A resumed run therefore needs weights, their average, the optimiser, the scaler and two
counters, and continues bit for bit.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pyiqa.losses import build_loss
from pyiqa.models.general_iqa_model import GeneralIQAModel
from pyiqa.utils import get_root_logger
from pyiqa.utils.dist_util import master_only
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from lifeiqa_plugin.checkpoints.factory import build_network
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.correlation import METRICS, correlations
from lifeiqa_plugin.datasets.labelled import LabelledImage, name_below
from lifeiqa_plugin.datasets.pairs import holds_pairs
from lifeiqa_plugin.datasets.trained_on import TrainedOn
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.network.lifeiqa import LifeIQA, LifeIQAOutput
from lifeiqa_plugin.scoring.evaluation import fit_std_calibration, rank_of_spread, score_dataset
from lifeiqa_plugin.training.checking import view
from lifeiqa_plugin.training.dataset import UNKNOWN, LifeIQADataset
from lifeiqa_plugin.training.kept import add_rows, cut_after, differences
from lifeiqa_plugin.training.losses import (
    AffineCalibration,
    Labels,
    SmoothL1Loss,
    distortion_loss,
    has_label,
    pair_loss,
    rank_loss,
    within_sets,
)
from lifeiqa_plugin.training.mixture import derive_seed
from lifeiqa_plugin.training.optim import (
    freeze,
    parameter_groups,
    precision_of,
    schedule_of,
    set_train_mode,
)
from lifeiqa_plugin.training.options import complete
from lifeiqa_plugin.training.preparation import as_one
from lifeiqa_plugin.training.sections import (
    CardOptions,
    OptimOptions,
    TrainingSetOptions,
    TrainOptions,
    ValidationOptions,
)

STATE_FILE = "latest.state"

BARE_SPREAD = (0.0, 1.0)
"""``std_calibration`` of weights in training; the validation that chooses them fits the one they leave with."""


def images_of(dataset: Any) -> list[LabelledImage]:
    """Return the images of a dataset, which are scored whole; one of pyiqa's has paths and labels."""
    if isinstance(dataset, LifeIQADataset):
        return dataset.images
    root = dataset.opt["dataroot_target"]
    return [LabelledImage(name_below(path, root), path, mos) for path, mos, *_ in dataset.paths_mos]


class LifeIQAModel(GeneralIQAModel):  # type: ignore[misc]  # pyiqa is not typed
    """Train a :class:`~lifeiqa_plugin.network.lifeiqa.LifeIQA` with pyiqa's loop.

    ``docs/training.md`` lists the option keys.

    One iteration is one batch of the loader: ``steps_per_batch`` steps of the optimiser, 1 unless given.

    Raises:
        ValueError: an option out of its range, a crop that has not the network's size; as ``build_network``.
        FloatingPointError: a loss or gradient that is not finite; the weights are those from before the batch.
        OSError: a checkpoint that cannot be written; the one before it is untouched.
    """

    trained_on: TrainedOn | None = None  # what its checkpoints say of their training images

    def __init__(self, opt: dict[str, Any]) -> None:
        if "sources" not in opt["datasets"]["train"]:  # pyiqa's own loop has read the option file
            opt = complete(opt)
            opt["datasets"]["train"] = as_one(opt["datasets"]["train"])
        super(GeneralIQAModel, self).__init__(opt)  # whose own would build the network for scoring
        self.net: Any = self.model_to_device(build_network(opt["network"]))
        self.print_network(self.net)
        self.init_training_settings()

    def model_to_device(self, network: LifeIQA) -> nn.Module:
        """Freeze what shall be frozen, move, and wrap for several processes (on GPUs or, with gloo, on CPUs)."""
        network.set_trainable(True)
        self.options = view(TrainOptions, self.opt["train"])
        freeze(network, self.options.freeze)
        if self.options.grad_checkpointing:
            network.backbone.set_grad_checkpointing(True)
        return self._wrapped(network.to(self.device))

    def _wrapped(self, network: LifeIQA) -> nn.Module:
        """Wrap for several processes; what has no gradient now must have none later."""
        if not self.opt["dist"]:
            return network
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, devices)

    def init_training_settings(self) -> None:
        """Build losses, optimiser, schedule, average and counters; pyiqa calls this from its constructor."""
        train_opt = self.opt["datasets"]["train"]
        self.sources = [view(TrainingSetOptions, one) for one in train_opt["sources"]]
        self.has_levels = any(source.ladder_share > 0 for source in self.sources)
        files = [source.meta_info_file for source in self.sources]
        self.has_pairs = any(holds_pairs(file) for file in files if file is not None)
        own_scales = [source.own_scale for source in self.sources]
        self.calibration = AffineCalibration(own_scales).to(self.device)
        set_train_mode(self.net, self.options.freeze, self.options.freeze_batch_stats)
        self.chunk_size = self.network.chunk_size
        self.network.std_calibration = BARE_SPREAD
        self._check_steps_per_batch()
        self.cri_mos = build_loss(self.options.mos_loss_opt)
        self.weighs = any(source.weigh_opinions is not None for source in self.sources)
        if self.weighs and not isinstance(self.cri_mos, SmoothL1Loss):
            raise ValueError(
                f"weigh_opinions needs train:mos_loss_opt of type SmoothL1Loss, got {type(self.cri_mos).__name__}"
            )
        metric_loss = self.options.metric_loss_opt
        self.cri_metric = build_loss(metric_loss) if metric_loss else None
        self.columns = self._columns_of_distortions()
        self.dtype = precision_of(self.options.amp, self.device.type)
        is_half = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=is_half)
        self.setup_optimizers()
        total_iter = self.opt["train"]["total_iter"]
        self.schedule = schedule_of(self.options, total_iter)
        self.backbone_schedule = schedule_of(self.options, total_iter, self.options.decoder_first)
        self.backbone_waits = False
        self.ema: AveragedModel | None = None
        if decay := self.options.ema_decay:
            self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.key_metric = view(ValidationOptions, self.opt["val"] or {}).key_metric
        sets = self.opt["datasets"]
        self.val_names = [sets[phase]["name"] for phase in sets if phase.startswith("val")]
        self.epoch, self.current_iter, self.save_pending = 0, 0, False
        self.validated: dict[str, int] = {}
        self.best_metric_results: dict[str, Any] = {}
        self.bar: Any = None
        self.loss_rows: list[list[Any]] = []

    def setup_optimizers(self) -> None:
        """AdamW, or another optimiser of torch by its name, on the groups of :func:`parameter_groups`."""
        options = view(OptimOptions, self.opt["train"]["optim"])
        groups = parameter_groups(
            self.network, options.lr, options.weight_decay, options.lr_backbone
        )
        own = {"betas": options.betas, "eps": options.eps, "momentum": options.momentum}
        given = {name: value for name, value in own.items() if value is not None}
        if self.calibration.is_needed:
            line = {"params": list(self.calibration.parameters()), "weight_decay": 0.0}
            groups.append(line | {"lr": options.lr, "initial_lr": options.lr})
        kind = getattr(torch.optim, options.type, None)
        if kind is None:
            raise ValueError(f"train.optim.type: torch.optim has no {options.type!r}")
        self.optimizer = kind(groups, lr=options.lr, **given)
        self.optimizers.append(self.optimizer)

    def _columns_of_distortions(self) -> list[int]:
        """Return the number in ``KINDS`` of each distortion that the network names."""
        names, known = self.network.distortion_names, list(KINDS)
        if not self.options.distortion_weight:
            return []
        unknown = [name for name in names if name not in known]
        if not (names and self.has_levels) or unknown:
            raise ValueError(
                "train.distortion_weight needs ladder_share above 0 and network.distortions, some of "
                f"{', '.join(known)}; got {list(names)}"
            )
        return [known.index(name) for name in names]

    def _check_steps_per_batch(self) -> None:
        steps, crops = self.options.steps_per_batch, self.sources[0].crops_per_image
        if crops % steps:
            raise ValueError(
                f"train.steps_per_batch must divide crops_per_image, got {steps} for {crops} crops"
            )
        if steps > 1 and (self.has_levels or self.has_pairs):
            raise ValueError(
                "train.steps_per_batch must be 1 with ladder_share or pairs of images, whose crops belong in one step"
            )

    @property
    def _parts(self) -> dict[str, Any]:
        """What is learned or counted, and so belongs to a training state."""
        parts = {
            "network": self.network,
            "ema": self.ema,
            "own_scales": self.calibration if self.calibration.is_needed else None,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def network(self) -> LifeIQA:
        """The network being trained, without its wrapper."""
        return cast(LifeIQA, self.get_bare_model(self.net))

    @property
    def scored_network(self) -> LifeIQA:
        """The network that validation scores and checkpoints hold: the average where there is one."""
        return self.network if self.ema is None else cast(LifeIQA, self.ema.module)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: ``img`` (B, K, 3, S, S), ``mos_label`` (B, 1), ``has_levels`` (B,), ``votes`` (B, 2)."""
        crops: Tensor = data["img"] if data["img"].dim() == 5 else data["img"][:, None]
        size = self.sources[0].crop_size
        if size is not None and crops.shape[-2:] != (size, size):
            got = "x".join(map(str, crops.shape[-2:]))
            raise ValueError(f"crops are {got}, but the network's are {size}x{size}")
        self.img_input = crops.to(self.device, non_blocking=True)
        images = len(crops)
        has_levels = data.get("has_levels", torch.zeros(images, dtype=torch.bool))
        source = data.get("source", torch.zeros(images, dtype=torch.long))
        kinds = data.get("kinds", torch.full(crops.shape[:2], UNKNOWN))
        votes = data.get("votes", torch.zeros(images, 2))
        if self.weighs and "weight" not in data:
            raise ValueError(
                "weigh_opinions needs lifeiqa train; pyiqa's own loop knows no weights"
            )
        weight = data.get("weight", torch.ones(images)).float()
        known = (data["mos_label"], has_levels, source, kinds, votes, weight)
        self.labels = Labels(*(value.to(self.device) for value in known))
        self.img_paths: list[str] = list(data["img_path"])

    def optimize_parameters(self, current_iter: int) -> None:
        """Do ``train.steps_per_batch`` steps, each on its share of every image's crops; log their mean losses."""
        self.current_iter = current_iter
        torch.manual_seed(derive_seed(self.opt["manual_seed"], self.opt["rank"], current_iter))
        self._hold_backbone(current_iter <= self.backbone_schedule.start)
        for group in self.optimizer.param_groups:
            is_backbone = group.get("is_backbone", False)
            schedule = self.backbone_schedule if is_backbone else self.schedule
            group["lr"] = group["initial_lr"] * schedule.factor(current_iter)
        steps = self.options.steps_per_batch
        losses: dict[str, Tensor] = {}
        for step in range(steps):
            crops = self.img_input[:, step::steps]
            for name, loss in self._one_step(crops).items():
                losses[name] = losses.get(name, 0) + loss / steps
        self.log_dict = self.reduce_loss_dict(losses)
        self.log_dict["lr"] = self.optimizer.param_groups[0]["lr"]
        self.loss_rows.append([current_iter, *(f"{v:.6g}" for v in self.log_dict.values())])
        self._show_progress()

    def _hold_backbone(self, waits: bool) -> None:
        """Let the backbone stand still, or let what the optimiser has of it move, where that is not so already."""
        if waits == self.backbone_waits:
            return
        self.backbone_waits = waits
        for group in self.optimizer.param_groups:
            for parameter in group["params"] if group["is_backbone"] else []:
                parameter.requires_grad_(not waits)
        waiting = self.network.backbone_modules if waits else ()
        set_train_mode(
            self.network, [*self.options.freeze, *waiting], self.options.freeze_batch_stats
        )
        self.net = self._wrapped(self.network)

    def _one_step(self, images: Tensor) -> dict[str, Tensor]:
        """Fit (B, K, 3, S, S); ``train.accumulate`` computes it in that many parts of whole images, one by one."""
        self.network.chunk_size = images.shape[:2].numel()
        self.optimizer.zero_grad()
        parts = min(self.options.accumulate, len(images))
        split = [t.tensor_split(parts) for t in (images, *self.labels)]
        losses: dict[str, Tensor] = {}
        for i, (crops, *labels) in enumerate(zip(*split, strict=True)):
            waits = self.opt["dist"] and i < parts - 1  # gradients are exchanged once, at the end
            with self.net.no_sync() if waits else nullcontext():
                for name, loss in self._backward(crops, Labels(*labels)).items():
                    losses[name] = losses.get(name, 0) + loss
        self._step()
        return losses

    def _backward(self, crops: Tensor, labels: Labels) -> dict[str, Tensor]:
        """Add the gradient of one part of the batch; returns its share of each loss."""
        share = len(crops) / len(self.img_input)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            output = self.net(crops.flatten(0, 1), return_details=True)
        losses = {name: loss * share for name, loss in self._losses(output, labels).items()}
        self._check_finite(losses["l_total"], "loss")
        torch.autograd.backward(self.scaler.scale(losses["l_total"]))
        return {name: loss.detach() for name, loss in losses.items()}

    def _losses(self, output: LifeIQAOutput, labels: Labels) -> dict[str, Tensor]:
        """Losses of the B * K crops of B labels."""
        scores = output.score.view(len(labels.mos), -1)  # (B, K)
        labelled = has_label(scores, labels)  # (B, K)
        score = scores[labelled][:, None]
        label = labels.mos.expand_as(scores)[labelled][:, None]
        source = labels.source[:, None].expand_as(scores)[labelled]
        calibrated = self.calibration(score, source)
        weight = labels.weight[:, None].expand_as(scores)[labelled][:, None]
        known = (calibrated, label, weight) if self.weighs else (calibrated, label)
        losses = {"l_mos": self.cri_mos(*known) if len(label) else score.sum()}
        if self.cri_metric is not None:
            losses["l_metric"] = within_sets(self.cri_metric, score, label, source)
        if self.has_levels:
            losses["l_rank"] = self.options.rank_weight * rank_loss(scores[labels.has_levels])
        if self.has_pairs:
            loss = pair_loss(scores, labels.votes, self.options.pair_scale)
            losses["l_pairs"] = self.options.pair_weight * loss
        if self.columns:
            task = distortion_loss(output.distortions, labels.kinds.flatten(), self.columns)
            losses["l_distortion"] = self.options.distortion_weight * task
        losses["l_balance"] = self.options.load_balancing_weight * output.load_balancing_loss
        losses["l_router_z"] = self.options.router_z_weight * output.router_z_loss
        losses["l_total"] = torch.stack(list(losses.values())).sum()
        return losses

    def _step(self) -> None:
        """Exchange what DDP does not, clip, step, average."""
        if self.calibration.is_needed and self.opt["dist"]:
            for line in self.calibration.parameters():
                line.grad = torch.zeros_like(line) if line.grad is None else line.grad
                torch.distributed.all_reduce(line.grad)
                line.grad /= self.opt["world_size"]
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = self.options.clip_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        if not self.scaler.is_enabled():  # it skips such a step and goes on with a smaller scale
            self._check_finite(norm, "gradient")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.network)

    def _check_finite(self, value: Tensor, what: str) -> None:
        if not math.isfinite(value.item()):
            raise FloatingPointError(
                f"the {what} of iteration {self.current_iter} is {value.item()}; the weights are those before it. "
                f"Its images: {', '.join(self.img_paths)}. Lower train.optim.lr, set train.clip_grad_norm, or look "
                "at these images and their scores; --auto-resume goes on from the last saved state"
            )

    @master_only  # type: ignore[untyped-decorator]  # pyiqa is not typed
    def _show_progress(self) -> None:
        """Draw a bar with losses, learning rate and time left, on terminals only."""
        if self.bar is None:
            done = self.current_iter - 1
            total = self.schedule.total_iter
            self.bar = tqdm(total=total, initial=done, disable=None, dynamic_ncols=True)
        shown = {name: f"{value:.3g}" for name, value in self.log_dict.items()}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Note the end of an epoch, which pyiqa reports here (as its number + 2); the rate runs per iteration.

        Its loop ends with one epoch of nothing, which does not count: a run that is made longer goes on where it ended.
        """
        self.epoch = min(current_iter - 1, self.opt["train"]["total_epoch"])

    def validation(
        self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False
    ) -> None:
        """Score a validation set in float32, log, and keep the weights if the first set's key metric is its best."""
        dataset = dataloader.dataset
        name = dataset.opt["name"]
        if self.validated.get(name) != self.current_iter:  # pyiqa asks again at the end of the run
            self._validate(name, dataset)
            self._log_validation_metric_values(self.current_iter, name, tb_logger)
            self.validated[name] = self.current_iter
        if self.save_pending and not self._validation_due():
            self.save_pending = False
            self.save_training_state(self.epoch, self.current_iter)

    def _validate(self, name: str, dataset: Any) -> None:
        self._broadcast_buffers()
        self.network.chunk_size = self.scored_network.chunk_size = self.chunk_size
        workers = dataset.opt.get("num_worker_per_gpu", 0)
        images = images_of(dataset)
        scores, spreads = score_dataset(self.scored_network, images, workers)
        mos = np.array([image.mos for image in images], dtype=np.float32)
        self.metric_results = correlations(scores, mos)
        self._write_validation(name, images, scores, spreads)
        if self._update_best(name) and name == self.val_names[0]:
            self._save_best(scores - mos, spreads)

    @master_only  # type: ignore[untyped-decorator]  # pyiqa is not typed
    def _write_validation(
        self, name: str, images: list[LabelledImage], scores: np.ndarray, spreads: np.ndarray
    ) -> None:
        """Add what a validation found to the run's tables."""
        results = [f"{self.metric_results[metric]:.6f}" for metric in METRICS]
        header = ["iteration", "dataset", *METRICS]
        row = [self.current_iter, name, *results]
        add_rows(self.folder / "curves_validation.csv", header, [row])
        rows = [
            [self.current_iter, image.name, image.mos, f"{score:.6f}", f"{spread:.6f}"]
            for image, score, spread in zip(images, scores, spreads, strict=True)
        ]
        header = ["iteration", "name", "mos", "score", "spread"]
        add_rows(self.folder / f"predictions_{name}.csv", header, rows)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.opt["path"]["experiments_root"])

    def _save_best(self, errors: np.ndarray, spreads: np.ndarray) -> None:
        """Save the weights with the line of ``return_std``, or none where the spread does not rank the errors."""
        srcc, is_real = rank_of_spread(errors, spreads)
        calibration = fit_std_calibration(errors, spreads)
        found = f"rank correlation with the error of {len(errors)} validation images {srcc:.3f}"
        if is_real and calibration[1] > 0:
            self.save_weights("net_best", calibration, f"fitted: {found}")
        else:
            note = f"carries nothing and is NaN: {found}, slope {calibration[1]:.3g}"
            self.save_weights("net_best", None, note)

    def _broadcast_buffers(self) -> None:
        """Give all processes the batch statistics of the first, so that their scores are of one network."""
        if self.opt["dist"]:
            for buffer in self.scored_network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _update_best(self, name: str) -> bool:
        """Enter results into pyiqa's table if they are the best; a NaN never replaces a number, but a number a NaN."""
        value = self.metric_results[self.key_metric]
        if name in self.best_metric_results:
            before = self.best_metric_results[name][self.key_metric]["val"]
            is_better = value < before if self.key_metric == "rmse" else value > before
            if not (is_better or math.isnan(before)):
                return False
        better = {metric: "lower" if metric == "rmse" else "higher" for metric in METRICS}
        self.best_metric_results[name] = {
            metric: {"better": better[metric], "val": result, "iter": self.current_iter}
            for metric, result in self.metric_results.items()
        }
        return True

    def _validation_due(self) -> bool:
        """Whether pyiqa is going to validate the weights of this iteration and has not yet."""
        now = self.current_iter
        if not self.opt["val"] or all(self.validated.get(name) == now for name in self.val_names):
            return False
        return now % self.opt["val"]["val_freq"] == 0 or now == self.schedule.total_iter

    def save(self, epoch: int, current_iter: int) -> None:
        """Save the state, after the validation of the same iteration if one is due; weights too where pyiqa names them.

        Args:
            epoch: of pyiqa's loop, -1 at the end of the run.
            current_iter: of the loop where ``save_checkpoint_freq`` asks for numbered weights, -1 else.
        """
        if current_iter != -1 or epoch == -1:
            self.save_weights(f"net_{'latest' if current_iter == -1 else current_iter}")
        self.save_pending = self._validation_due()
        if not self.save_pending:
            self.save_training_state(self.epoch, self.current_iter)

    @master_only  # type: ignore[untyped-decorator]  # pyiqa is not typed
    def save_weights(
        self,
        label: str,
        std_calibration: tuple[float, float] | None = BARE_SPREAD,
        std: str = "not fitted, the bare spread of the scores",
    ) -> None:
        """Write ``models/<label>.safetensors``, which ``pyiqa.create_metric`` takes as ``pretrained_model_path``."""
        about = view(CardOptions, self.opt["card"])
        origins = [(one.name, one.meta_info_file or one.dataroot_target) for one in self.sources]
        data = ", ".join(f"{name} ({Path(path).name})" for name, path in origins)
        card = ModelCard(about.training_data or data, about.licence, std=std)
        self.scored_network.config["std_calibration"] = std_calibration
        path = Path(self.opt["path"]["models"]) / f"{label}.safetensors"
        learnt = None if self.trained_on is None else self.trained_on.to_text()
        save_checkpoint(self.scored_network, path, card, trained_on=learnt)

    @master_only  # type: ignore[untyped-decorator]  # pyiqa is not typed
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write ``training_states/latest.state``, whole or not at all, after the losses up to there."""
        if self.loss_rows:
            header = ["iteration", *self.log_dict]
            add_rows(self.folder / "curves_losses.csv", header, self.loss_rows)
            self.loss_rows = []
        state = {
            "epoch": epoch,
            "iter": current_iter,
            **{name: part.state_dict() for name, part in self._parts.items()},
            "best_metric_results": self.best_metric_results,
            "validated": self.validated,
            "options": self._own_options(),
        }
        with write_whole(Path(self.opt["path"]["training_states"]) / STATE_FILE) as file:
            torch.save(state, file)

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Take over a state that :meth:`save_training_state` wrote.

        Raises:
            ValueError: the state is of a run with another network, optimiser or ``ema_decay`` switched on or off.
        """
        try:
            for name, part in self._parts.items():
                part.load_state_dict(resume_state[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            first = " ".join(str(error).split("\n")[:2])
            raise ValueError(
                f"the saved state does not fit these options, restore them or train afresh: {first}"
            ) from error
        self.epoch, self.current_iter = resume_state["epoch"], resume_state["iter"]
        self.best_metric_results = resume_state["best_metric_results"]
        self.validated = resume_state["validated"]
        if self.opt["rank"] == 0:
            cut_after(self.folder, self.current_iter)
        before = resume_state.get("options", self._own_options())
        if changes := differences(before, self._own_options()):
            get_root_logger().warning(f"resumed with other options: {'; '.join(changes)}")

    def _own_options(self) -> dict[str, Any]:
        """Return the options that decide what the weights become."""
        own = {name: self.opt[name] for name in ("manual_seed", "datasets", "network", "train")}
        own = copy.deepcopy(own)
        del own["train"]["total_iter"]  # pyiqa's
        return own
