"""``model_type: LifeIQAModel``: what happens to the weights in each iteration of pyiqa's training loop.

Everything random is a function of (seed, process, iteration) or (seed, epoch, image), and the learning rate is a
function of the iteration. A resumed run therefore needs weights, their average, the optimiser, the scaler and two
counters, and continues bit for bit.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pyiqa.losses import build_loss
from pyiqa.models.general_iqa_model import GeneralIQAModel
from pyiqa.utils.dist_util import master_only
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from lifeiqa_plugin.checkpoints.files import Card, save_checkpoint
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.network.lifeiqa import LifeIQA, LifeIQAOutput
from lifeiqa_plugin.scoring.evaluation import METRICS, agreement, fit_std_calibration, score_dataset
from lifeiqa_plugin.training.losses import rank_loss
from lifeiqa_plugin.training.optim import freeze, parameter_groups, schedule_of, set_train_mode
from lifeiqa_plugin.training.order import derive_seed

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

STATE_FILE = "latest.state"

BARE_SPREAD = (0.0, 1.0)
"""``std_calibration`` of weights in training; the validation that chooses them fits the one they leave with."""


class LifeIQAModel(GeneralIQAModel):  # type: ignore[misc]  # pyiqa is not typed
    """Train a :class:`~lifeiqa_plugin.network.lifeiqa.LifeIQA` with pyiqa's loop.

    ``docs/training.md`` lists the option keys.

    One iteration is one batch of the loader: ``steps_per_batch`` steps of the optimiser, 1 unless given.

    Raises:
        TypeError: the network is not a LifeIQA.
        ValueError: an option out of its range, a crop that has not the network's size.
        FloatingPointError: a loss or gradient that is not finite; the weights are those from before the batch.
        OSError: a checkpoint that cannot be written; the one before it is untouched.
    """

    # -------------------------------------------------------------------------------------------------------- set-up

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Freeze what shall be frozen, move, and wrap for several processes (on GPUs or, with gloo, on CPUs)."""
        if not isinstance(net, LifeIQA):
            raise TypeError(f"LifeIQAModel trains network.type LifeIQA, got {type(net).__name__}")
        if self.is_train:
            net.set_trainable(True)
            freeze(net, self.opt["train"].get("freeze") or [])
            if self.opt["train"].get("grad_checkpointing"):
                net.backbone.set_grad_checkpointing(True)
        net = net.to(self.device)
        if not self.opt["dist"]:
            return net
        return DistributedDataParallel(
            net, [torch.cuda.current_device()] if self.device.type == "cuda" else None
        )

    def init_training_settings(self) -> None:
        """Build losses, optimiser, schedule, average and counters; pyiqa calls this from its constructor."""
        train_opt = self.opt["train"]
        set_train_mode(
            self.net, train_opt.get("freeze") or [], train_opt.get("freeze_batch_stats", False)
        )
        self.chunk_size = self.network.chunk_size
        self.network.std_calibration = BARE_SPREAD
        self.steps_per_batch = self._shares_of_crops()
        self.cri_mos = build_loss(train_opt["mos_loss_opt"])
        metric_loss = train_opt.get("metric_loss_opt")
        self.cri_metric = build_loss(metric_loss) if metric_loss else None
        self.setup_precision()
        self.setup_optimizers()
        self.schedule = schedule_of(train_opt)
        self.ema = self._average(train_opt.get("ema_decay", 0.0))
        val_opt = self.opt.get("val") or {}
        self.metrics: dict[str, Any] = val_opt.get("metrics") or METRICS
        self.key_metric: str = val_opt.get("key_metric") or "srcc"
        if self.key_metric not in self.metrics:
            raise ValueError(
                f"val.key_metric must be one of {list(self.metrics)}, got {self.key_metric!r}"
            )
        self.val_names = [
            d["name"] for phase, d in self.opt["datasets"].items() if phase.startswith("val")
        ]
        self.epoch, self.current_iter, self.save_pending = 0, 0, False
        self.validated: dict[str, int] = {}
        self.best_metric_results: dict[str, Any] = {}
        self.bar: Any = None

    def setup_precision(self) -> None:
        """Choose the type of the forward pass: ``train.amp`` is fp32, bf16 (CPU and GPU) or fp16 (GPU, with scaler)."""
        amp = self.opt["train"].get("amp") or "fp32"
        if amp not in PRECISIONS:
            raise ValueError(f"train.amp must be one of {list(PRECISIONS)}, got {amp!r}")
        if amp == "fp16" and self.device.type != "cuda":
            raise ValueError("train.amp fp16 needs a GPU; use bf16 or fp32 on CPU")
        self.dtype = PRECISIONS[amp]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp == "fp16")

    def setup_optimizers(self) -> None:
        """AdamW, or another optimiser of torch by its name, on the groups of :func:`parameter_groups`."""
        optim_opt: dict[str, Any] = {"type": "AdamW", "weight_decay": 0.01, "lr_backbone": None}
        optim_opt |= self.opt["train"]["optim"]
        kind = getattr(torch.optim, optim_opt.pop("type"))
        lr, decay, lr_backbone = (
            optim_opt.pop(name) for name in ("lr", "weight_decay", "lr_backbone")
        )
        self.optimizer = kind(
            parameter_groups(self.network, lr, decay, lr_backbone), lr=lr, **optim_opt
        )
        self.optimizers.append(self.optimizer)

    def _shares_of_crops(self) -> int:
        steps, train_set = (
            self.opt["train"].get("steps_per_batch", 1),
            self.opt["datasets"]["train"],
        )
        crops = train_set.get("crops_per_image", 1)
        if steps < 1 or crops % steps:
            raise ValueError(
                f"train.steps_per_batch must divide crops_per_image, got {steps} for {crops} crops"
            )
        if steps > 1 and train_set.get("ladder_share"):
            raise ValueError(
                "train.steps_per_batch must be 1 with ladder_share, whose rungs belong in one step"
            )
        return int(steps)

    def _average(self, decay: float) -> AveragedModel | None:
        if not 0 <= decay < 1:
            raise ValueError(f"train.ema_decay must be 0 (off) or below 1, got {decay}")
        if not decay:
            return None
        return AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @property
    def network(self) -> LifeIQA:
        """The network being trained, without its wrapper."""
        return cast(LifeIQA, self.get_bare_model(self.net))

    @property
    def scored_network(self) -> LifeIQA:
        """The network that validation scores and checkpoints hold: the average where there is one."""
        return self.network if self.ema is None else cast(LifeIQA, self.ema.module)

    # -------------------------------------------------------------------------------------------------- one iteration

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: ``img`` (B, K, 3, S, S), ``mos_label`` (B, 1), ``is_ladder`` (B,)."""
        crops: Tensor = data["img"] if data["img"].dim() == 5 else data["img"][:, None]
        size = self.network.crop_size
        if crops.shape[-2:] != (size, size):
            got = "x".join(map(str, crops.shape[-2:]))
            raise ValueError(
                f"crops are {got}, but the network's are {size}x{size}; set datasets.train.crop_size: {size}"
            )
        self.img_input = crops.to(self.device, non_blocking=True)
        self.gt_mos = data["mos_label"].to(self.device)
        self.is_ladder: Tensor = data.get(
            "is_ladder", torch.zeros(len(crops), dtype=torch.bool)
        ).to(self.device)
        self.img_paths: list[str] = list(data["img_path"])

    def optimize_parameters(self, current_iter: int) -> None:
        """Do ``train.steps_per_batch`` steps, each on its share of every image's crops; log their mean losses."""
        self.current_iter = current_iter
        torch.manual_seed(derive_seed(self.opt["manual_seed"], self.opt["rank"], current_iter))
        factor = self.schedule.factor(current_iter)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        losses: dict[str, Tensor] = {}
        for step in range(self.steps_per_batch):
            for name, loss in self._one_step(
                self.img_input[:, step :: self.steps_per_batch]
            ).items():
                losses[name] = losses.get(name, 0) + loss / self.steps_per_batch
        self.log_dict = self.reduce_loss_dict(losses) | {"lr": self.optimizer.param_groups[0]["lr"]}
        self._show_progress()

    def _one_step(self, images: Tensor) -> dict[str, Tensor]:
        """Fit (B, K, 3, S, S); ``train.accumulate`` computes it in that many parts of whole images, one by one."""
        self.network.chunk_size = images.shape[:2].numel()
        self.optimizer.zero_grad()
        parts = min(self.opt["train"].get("accumulate", 1), len(images))
        batch = zip(
            *(t.tensor_split(parts) for t in (images, self.gt_mos, self.is_ladder)), strict=True
        )
        losses: dict[str, Tensor] = {}
        for i, (crops, mos, is_ladder) in enumerate(batch):
            with nullcontext() if i == parts - 1 or not self.opt["dist"] else self.net.no_sync():
                for name, loss in self._backward(crops, mos, is_ladder).items():
                    losses[name] = losses.get(name, 0) + loss
        self._step()
        return losses

    def _backward(self, crops: Tensor, mos: Tensor, is_ladder: Tensor) -> dict[str, Tensor]:
        """Add the gradient of one part of the batch; returns its share of each loss."""
        share = len(crops) / len(self.img_input)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            output = cast(LifeIQAOutput, self.net(crops.flatten(0, 1), return_details=True))
        losses = {name: loss * share for name, loss in self._losses(output, mos, is_ladder).items()}
        self._check_finite(losses["l_total"], "loss")
        torch.autograd.backward(self.scaler.scale(losses["l_total"]))
        return {name: loss.detach() for name, loss in losses.items()}

    def _losses(self, output: LifeIQAOutput, mos: Tensor, is_ladder: Tensor) -> dict[str, Tensor]:
        """Losses of the scores of B * K crops; mos (B, 1) is that of all crops of an image, or of a ladder's first.

        It may be NaN, which is none, for ladders only.
        """
        train_opt = self.opt["train"]
        scores = output.score.view(len(mos), -1)  # (B, K)
        is_first = torch.arange(scores.shape[1], device=scores.device) == 0
        labelled = ~is_ladder[:, None] | (is_first & mos.isfinite())
        label, score = mos.expand_as(scores)[labelled][:, None], scores[labelled][:, None]
        nothing = scores.sum() * 0
        losses = {"l_mos": self.cri_mos(score, label) if len(label) else nothing}
        if self.cri_metric is not None:
            losses["l_metric"] = self.cri_metric(score, label) if len(label) else nothing
        if self.opt["datasets"]["train"].get("ladder_share"):
            losses["l_rank"] = rank_loss(scores[is_ladder]) * train_opt.get("rank_weight", 5.0)
        losses["l_balance"] = output.load_balancing_loss * train_opt.get(
            "load_balancing_weight", 0.01
        )
        losses["l_router_z"] = output.router_z_loss * train_opt.get("router_z_weight", 0.001)
        losses["l_total"] = torch.stack(list(losses.values())).sum()
        return losses

    def _step(self) -> None:
        """Clip, step, average."""
        self.scaler.unscale_(self.optimizer)
        limit = self.opt["train"].get("clip_grad_norm") or math.inf
        norm = nn.utils.clip_grad_norm_(
            [p for g in self.optimizer.param_groups for p in g["params"]], limit
        )
        if (
            not self.scaler.is_enabled()
        ):  # the scaler skips such a step by itself and goes on with a smaller scale
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
                "at these images and their scores; --auto_resume goes on from the last saved state"
            )

    @master_only  # type: ignore[untyped-decorator]  # pyiqa is not typed
    def _show_progress(self) -> None:
        """Draw a bar with losses, learning rate and time left, on terminals only."""
        if self.bar is None:
            done = self.current_iter - 1
            self.bar = tqdm(
                total=self.schedule.total_iter,
                initial=done,
                unit="it",
                disable=None,
                dynamic_ncols=True,
            )
        self.bar.set_postfix(
            {name: f"{value:.3g}" for name, value in self.log_dict.items()}, refresh=False
        )
        self.bar.update()

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Note the end of an epoch, which pyiqa reports here (as its number + 2); the rate runs per iteration.

        Its loop ends with one epoch of nothing, which does not count: a run that is made longer goes on where it ended.
        """
        self.epoch = min(current_iter - 1, self.opt["train"]["total_epoch"])

    # ----------------------------------------------------------------------------------------------------- validation

    def validation(
        self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False
    ) -> None:
        """Score a validation set in float32, log, and keep the weights if the first set's key metric is its best."""
        dataset = dataloader.dataset
        name = dataset.opt["name"]
        if self.validated.get(name) != self.current_iter:  # pyiqa asks again at the end of the run
            self._broadcast_buffers()
            self.network.chunk_size = self.scored_network.chunk_size = self.chunk_size
            scores, spreads = score_dataset(
                self.scored_network, dataset, dataset.opt.get("num_worker_per_gpu", 0)
            )
            mos = np.array(dataset.mos, dtype=np.float32)
            self.metric_results = agreement(scores, mos, self.metrics)
            if self._update_best(name) and name == self.val_names[0]:
                self.save_weights("net_best", fit_std_calibration(scores - mos, spreads))
            self._log_validation_metric_values(self.current_iter, name, tb_logger)
            self.validated[name] = self.current_iter
        if self.save_pending and not self._validation_due():
            self.save_pending = False
            self.save_training_state(self.epoch, self.current_iter)

    def _broadcast_buffers(self) -> None:
        """Give all processes the batch statistics of the first, so that their scores are of one network."""
        if self.opt["dist"]:
            for buffer in self.scored_network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _update_best(self, name: str) -> bool:
        """Enter new best results into pyiqa's table; a NaN never replaces a number, and a first result always counts.

        Returns:
            Whether these are the best.
        """
        best = self.best_metric_results.get(name)
        value, sign = (
            self.metric_results[self.key_metric],
            -1 if self._better(self.key_metric) == "lower" else 1,
        )
        before = math.nan if best is None else best[self.key_metric]["val"]
        if not (math.isnan(before) or sign * value > sign * before):
            return False
        self.best_metric_results[name] = {
            metric: {"better": self._better(metric), "val": result, "iter": self.current_iter}
            for metric, result in self.metric_results.items()
        }
        return True

    def _better(self, metric: str) -> str:
        default = "lower" if metric == "rmse" else "higher"
        return str(self.metrics[metric].get("better", default))

    def _validation_due(self) -> bool:
        """Whether pyiqa is going to validate the weights of this iteration and has not yet."""
        val_opt = self.opt.get("val")
        if not val_opt or all(
            self.validated.get(name) == self.current_iter for name in self.val_names
        ):
            return False
        return (
            self.current_iter % val_opt["val_freq"] == 0
            or self.current_iter == self.schedule.total_iter
        )

    # ---------------------------------------------------------------------------------------------------- checkpoints

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
    def save_weights(self, label: str, std_calibration: tuple[float, float] = BARE_SPREAD) -> None:
        """Write ``models/<label>.safetensors``, which ``pyiqa.create_metric`` takes as ``pretrained_model_path``."""
        train_set, about = self.opt["datasets"]["train"], self.opt.get("card") or {}
        card = Card(
            training_data=about.get("training_data")
            or f"{train_set['name']} ({Path(train_set['meta_info_file']).name})",
            licence=about.get("licence") or "not stated",
        )
        self.scored_network.config["std_calibration"] = std_calibration
        save_checkpoint(
            self.scored_network, Path(self.opt["path"]["models"]) / f"{label}.safetensors", card
        )

    @master_only  # type: ignore[untyped-decorator]  # pyiqa is not typed
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write ``training_states/latest.state``, whole or not at all."""
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "network": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_metric_results": self.best_metric_results,
            "validated": self.validated,
        }
        with write_whole(Path(self.opt["path"]["training_states"]) / STATE_FILE) as file:
            torch.save(state, file)

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Take over a state that :meth:`save_training_state` wrote.

        Raises:
            ValueError: the state is of a run with another network, optimiser or ``ema_decay`` switched on or off.
        """
        try:
            self.network.load_state_dict(resume_state["network"])
            if self.ema is not None:
                self.ema.load_state_dict(resume_state["ema"])
            self.optimizer.load_state_dict(resume_state["optimizer"])
            self.scaler.load_state_dict(resume_state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            first = " ".join(str(error).split("\n")[:2])
            raise ValueError(
                f"the saved state does not fit these options, restore them or train afresh: {first}"
            ) from error
        self.epoch, self.current_iter = resume_state["epoch"], resume_state["iter"]
        self.best_metric_results, self.validated = (
            resume_state["best_metric_results"],
            resume_state["validated"],
        )
