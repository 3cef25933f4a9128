"""Training speed from the wall clock alone: the device is never waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from segtrail.callbacks.trackers import is_logging_step, last_step
from segtrail.tracking import names


class Throughput(pl.Callback):
    """Logs ``train/images_per_second`` over all processes at each logging step.

    Time in validation does not count, nor does the first batch of a fit (start of the workers, warm-up).
    """

    def __init__(self) -> None:
        self._images = 0
        self._seconds = 0.0
        self._since: float | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_idx: int,
    ) -> None:
        now = time.perf_counter()
        if self._since is not None:
            self._images += len(batch["image"])
            self._seconds += now - self._since
            if self._images and is_logging_step(trainer):
                rate = self._images * trainer.world_size / self._seconds
                for logger in trainer.loggers if trainer.is_global_zero else ():
                    logger.log_metrics({names.TRAIN_IMAGES_PER_SECOND: rate}, step=last_step(trainer))
                self._images, self._seconds = 0, 0.0
                now = time.perf_counter()  # what logging took is no training time
        self._since = now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = None  # the clock starts again with the next batch's end

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = None
