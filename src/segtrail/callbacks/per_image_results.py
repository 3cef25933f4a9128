"""Confusion counts of each image of the last and the best epoch: the ground of paired statistics."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch

from segtrail.callbacks.trackers import evaluation_dataset, last_step, trackers
from segtrail.tracking import names
from segtrail.tracking.per_image import PerImage, decode_per_image, encode_per_image


class PerImageResults(pl.Callback):
    """Logs ``evaluation/<split>/per_image`` after each evaluation.

    Args:
        monitor: the metric that says which validation was best.
        mode: ``max`` or ``min``.
    """

    def __init__(self, monitor: str = "val/mIoU", mode: str = "max") -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode is 'max' or 'min', got {mode!r}")
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.best_score = -math.inf
        self.best: PerImage | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        last = self._collect(trainer, pl_module, "val")
        if self.monitor in trainer.callback_metrics:
            score = self.sign * float(trainer.callback_metrics[self.monitor])
            if score > self.best_score:
                self.best_score, self.best = score, last
        kept = {"last": last} if self.best is None else {"last": last, "best": self.best}
        self._log(trainer, "val", kept)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        split = getattr(pl_module, "test_split", "test")
        self._log(trainer, split, {"last": self._collect(trainer, pl_module, split)})

    def _collect(self, trainer: pl.Trainer, module: Any, split: str) -> PerImage:
        positions, counts = module.evaluation(split).per_image()  # over all processes: every rank asks
        ids = evaluation_dataset(trainer).dataset.ids
        return PerImage(
            ids=tuple(ids[position] for position in positions.tolist()),
            counts=counts,
            class_names=tuple(module.class_names),
            step=last_step(trainer),
            epoch=trainer.current_epoch,
        )

    def _log(self, trainer: pl.Trainer, split: str, results: dict[str, PerImage]) -> None:
        if not (trainer.is_global_zero and trackers(trainer)):
            return
        data = encode_per_image(results)
        for tracker in trackers(trainer):
            tracker.log_file(names.per_image(split), data, "npz")

    def state_dict(self) -> dict[str, Any]:
        packed = encode_per_image({} if self.best is None else {"best": self.best})
        return {"best_score": self.best_score, "best": torch.frombuffer(bytearray(packed), dtype=torch.uint8)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score = state_dict["best_score"]
        self.best = decode_per_image(state_dict["best"].numpy().tobytes()).get("best")
