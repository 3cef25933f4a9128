"""Where the checkpoints of a run are, and what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from segtrail.callbacks.checkpoints import LastCheckpoint
from segtrail.callbacks.trackers import trackers
from segtrail.tracking import names
from segtrail.tracking.base import Scalar


class CheckpointLinks(Checkpoint):
    """Logs path, score and step of ``checkpoints/best`` and ``checkpoints/last`` when they change.

    It is a ``Checkpoint`` so that Lightning runs it after the callbacks that save them.

    Args:
        upload: also log the best checkpoint's file itself when training ends.
    """

    def __init__(self, upload: bool = False) -> None:
        self.upload = upload
        self._known: dict[str, Any] = {}

    def _log(self, trainer: pl.Trainer) -> None:
        for saver in trainer.checkpoint_callbacks:
            saved: tuple[str, Any, int]
            if isinstance(saver, ModelCheckpoint) and saver.best_model_path:
                which = "best"
                saved = (saver.best_model_path, saver.best_model_score, saver._last_global_step_saved)
            elif isinstance(saver, LastCheckpoint) and saver.path.exists():
                which, saved = "last", (str(saver.path), None, saver.saved_step)
            else:
                continue
            if self._known.get(which) == saved:
                continue
            self._known[which] = saved
            values: dict[str, Scalar] = {
                names.checkpoint(which, "path"): saved[0],
                names.checkpoint(which, "step"): saved[2],
            }
            if saved[1] is not None:
                values[names.checkpoint(which, "score")] = float(saved[1])
            for tracker in trackers(trainer):
                tracker.log_values(values)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._log(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._log(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(trainer)
        best = self._known.get("best", ("",))[0]
        if self.upload and best and Path(best).is_file():
            for tracker in trackers(trainer):
                tracker.log_file(names.checkpoint("best", "file"), Path(best))
