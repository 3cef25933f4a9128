"""Guards: what happens when the loss is not a number, or memory runs out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from segtrail.callbacks.trackers import trackers
from segtrail.tracking import names

log = logging.getLogger(__name__)


class DivergenceError(Exception):
    """The loss is not finite or beyond its bound; the message names step, value and samples."""


class LossGuard(pl.Callback):
    """Watches the loss of every batch.

    ``stop`` ends the run and names the step and the samples. On a GPU the loss is looked at one step late, so
    that the device is never waited for; no checkpoint is written before the loss that led to it was seen.

    ``skip`` drops the batch: its gradients are discarded before the optimizer sees them. After ``patience``
    skipped batches in a row, or if running statistics were damaged, weights, statistics and optimizer go
    back to ``last.ckpt``; after ``most_returns`` of that the run stops. Each step waits for its loss.

    Args:
        dirpath: folder of the checkpoints.
        action: ``stop`` or ``skip``.
        largest: a loss above it counts as diverged; None for no bound.
        patience: skipped batches in a row before going back.
        most_returns: times of going back before the run stops.
    """

    def __init__(
        self,
        dirpath: str,
        action: str = "stop",
        largest: float | None = None,
        patience: int = 5,
        most_returns: int = 3,
    ) -> None:
        if action not in ("stop", "skip"):
            raise ValueError(f"action is 'stop' or 'skip', got {action!r}")
        self.checkpoint = Path(dirpath) / "last.ckpt"
        self.action = action
        self.largest = math.inf if largest is None else largest
        self.patience = patience
        self.most_returns = most_returns
        self._ids: list[str] = []
        self._pending: tuple[torch.Tensor, int, list[str]] | None = None
        self._bad = False
        self._skipped = 0
        self._returns = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        self._ids = list(batch.get("ids", ()))

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        # accumulation divides the loss; the bound is for the whole
        whole = loss.detach().float() * trainer.accumulate_grad_batches
        if self.action == "skip":
            bad = self._is_bad(whole.item())
            if trainer.world_size > 1:  # all ranks must drop the same step
                bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
            if bad:
                self._tell(trainer, whole.item(), trainer.global_step, self._ids)
            self._bad |= bad
            return
        if whole.device.type == "cpu":
            self._stop_if_bad(trainer, whole, trainer.global_step, self._ids)
            return
        if self._pending is not None:
            self._stop_if_bad(trainer, *self._pending)
        self._pending = whole, trainer.global_step, self._ids

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._pending is not None:
            self._stop_if_bad(trainer, *self._pending)
            self._pending = None

    def _stop_if_bad(self, trainer: pl.Trainer, loss: torch.Tensor, step: int, ids: list[str]) -> None:
        value = loss.item()
        if self._is_bad(value):
            self._tell(trainer, value, step, ids)
            raise DivergenceError(
                f"the loss is {value:g} at step {step} on the samples {', '.join(ids)}; lower optimizer.lr, "
                "set trainer.gradient_clip_val, or drop such batches with callbacks.loss_guard.action=skip"
            )

    def _is_bad(self, value: float) -> bool:
        return not math.isfinite(value) or value > self.largest

    def _tell(self, trainer: pl.Trainer, value: float, step: int, ids: list[str]) -> None:
        log.warning("step %d: the loss is %g on the samples %s", step, value, ", ".join(ids))
        for tracker in trackers(trainer):
            tracker.log_values({names.bad_batch(step): f"{value:g}: {', '.join(ids)}"})

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if not self._bad:
            self._skipped = 0
            return
        self._bad = False
        for parameter in pl_module.parameters():
            parameter.grad = None  # optimizers leave such parameters and their state alone
        self._skipped += 1
        statistics = [b for b in pl_module.buffers() if b.is_floating_point()]
        if self._skipped >= self.patience or not all(bool(b.isfinite().all()) for b in statistics):
            self._go_back(trainer, pl_module)
            self._skipped = 0

    def _go_back(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._returns += 1
        if self._returns > self.most_returns or not self.checkpoint.is_file():
            raise DivergenceError(
                f"{self._skipped} batches in a row gave a bad loss, and "
                + (
                    f"going back to {self.checkpoint} {self.most_returns} times did not help"
                    if self.checkpoint.is_file()
                    else "there is no checkpoint to go back to"
                )
            )
        saved = torch.load(self.checkpoint, map_location=module.device, weights_only=True)
        online = {**saved["state_dict"], **saved.get("ema", {}).get("online", {})}
        module.load_state_dict(online)
        for own, state in zip(trainer.optimizers, saved["optimizer_states"], strict=True):
            rates = [group["lr"] for group in own.param_groups]  # the schedule goes on
            own.load_state_dict(state)
            for group, rate in zip(own.param_groups, rates, strict=True):
                group["lr"] = rate
        log.warning("step %d: back to the weights of step %d", trainer.global_step, int(saved["global_step"]))


def with_smaller_batches(config: DictConfig, fit: Callable[[DictConfig], float | None]) -> float | None:
    """Trains; where memory runs out, goes on with half the batch and twice the accumulation.

    Args:
        config: of the run; ``loader.batch_size``, ``trainer.accumulate_grad_batches`` and ``resume`` change.
        fit: trains with a config.

    Raises:
        torch.OutOfMemoryError: if a single sample does not fit, or other ranks take part.
    """
    while True:
        try:
            return fit(config)
        except torch.OutOfMemoryError:
            size = int(config.loader.batch_size)
            if size < 2 or torch.distributed.is_initialized():
                log.error("out of memory at loader.batch_size=%d: use smaller crops or another model", size)
                raise
            torch.cuda.empty_cache()
            _halve(config)


def _halve(config: DictConfig) -> None:
    size, accumulated = int(config.loader.batch_size), int(config.trainer.accumulate_grad_batches)
    smaller = next(size // n for n in range(2, size + 1) if size % n == 0)  # the global batch stays
    factor = size // smaller
    config.loader.batch_size = smaller
    config.trainer.accumulate_grad_batches = accumulated * factor
    for key in ("val_check_interval", "limit_train_batches"):  # a whole number counts batches
        if isinstance(config.trainer.get(key), int):
            config.trainer[key] *= factor
    log.warning(
        "out of memory: going on with loader.batch_size=%d and trainer.accumulate_grad_batches=%d "
        "(the optimizer still sees %d samples a step; batch statistics see %d)",
        *(smaller, accumulated * factor, size * accumulated, smaller),
    )
    last = Path(config.run_dir) / "checkpoints" / "last.ckpt"
    if last.is_file():
        saved = torch.load(last, map_location="cpu", weights_only=True)
        rescale(saved, factor)
        torch.save(saved, last.with_suffix(".tmp"))
        last.with_suffix(".tmp").replace(last)
        config.resume = str(last)


def rescale(checkpoint: dict[str, Any], factor: int) -> None:
    """Restates a checkpoint's place in the epoch for batches that are ``factor`` times smaller.

    The batch that did not fit is forgotten, or it would count as begun.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for part in ("total", "current"):
        done = progress[part]["processed"] * factor
        in_callbacks = progress[part]["processed"] - progress[part]["completed"]  # saved at a batch's end
        progress[part] |= {
            "ready": done,
            "started": done,
            "processed": done,
            "completed": done - in_callbacks,
        }
    for state in checkpoint.values():
        if isinstance(state, dict) and "batches_done" in state:
            state["batches_done"] *= factor
