"""The two checkpoints of a run: the best to use, the last to go on from."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

log = logging.getLogger(__name__)


def save_or_warn(trainer: pl.Trainer, path: str | Path, weights_only: bool = False) -> bool:
    """Writes a checkpoint in one go; a full disk costs this checkpoint, not the training.

    Returns:
        Whether it was written. The file of that name from before is whole in either case.
    """
    try:
        trainer.save_checkpoint(path, weights_only)
    except OSError as error:
        log.warning(
            "checkpoint %s was not written (%s); training goes on with the one from before", path, error
        )
        trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other ranks wait
        return False
    return True


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: of the validation with the best value of a metric.

    Args:
        dirpath: folder of the checkpoints.
        monitor: the metric.
        mode: ``max`` or ``min``.
    """

    def __init__(self, dirpath: str, monitor: str = "val/mIoU", mode: str = "max") -> None:
        super().__init__(dirpath, "best", monitor=monitor, mode=mode, enable_version_counter=False)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        if save_or_warn(trainer, filepath):
            self._last_global_step_saved = trainer.global_step
            self._last_checkpoint_saved = filepath


class LastCheckpoint(Checkpoint):
    """``last.ckpt``: from which a run that was stopped goes on exactly.

    Written at the end of each epoch, every n optimizer steps, and on SIGTERM; always between two steps of the
    optimizer, and never between a step and the validation that follows it.

    Args:
        dirpath: folder of the checkpoints.
        every_n_steps: optimizer steps that may be lost at most; None for epochs alone.
    """

    def __init__(self, dirpath: str, every_n_steps: int | None = 500) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps is at least 1, got {every_n_steps}")
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.saved_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps is None or trainer.global_step - self.saved_step < self.every_n_steps:
            return
        validates_now = (batch_idx + 1) % (trainer.val_check_batch or math.inf) == 0
        if not validates_now and _between_steps(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        # other exceptions may come from within a step, which leaves weights and buffers half changed
        wanted = isinstance(exception, SIGTERMException | torch.OutOfMemoryError)
        if wanted and trainer.training and _between_steps(trainer) and trainer.global_step != self.saved_step:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if save_or_warn(trainer, self.path):
            self.saved_step = trainer.global_step


def _between_steps(trainer: pl.Trainer) -> bool:
    """No gradients are waiting for more batches to be accumulated."""
    done: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    return done % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
