"""Predictions of a fixed set of validation samples, step by step, exact to the pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from segtrail.callbacks.trackers import evaluation_dataset, gather, last_step, trackers
from segtrail.tracking import names


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is shown of one sample; arrays are (H, W), the image (H, W, 3), without batch padding."""

    position: int
    id: str
    image: np.ndarray | None
    target: np.ndarray | None
    prediction: np.ndarray
    confidence: np.ndarray


class PredictionImages(pl.Callback):
    """Logs predicted label maps and confidences of samples spread evenly over the validation set.

    The samples depend on nothing but the size of the set, so that all runs on a dataset show the same
    ones. Photograph and target are logged once, prediction and confidence at each logged validation.

    Args:
        num_samples: how many.
        every_n_validations: log at every n-th validation, beginning with the first.
    """

    def __init__(self, num_samples: int = 8, every_n_validations: int = 1) -> None:
        self.num_samples = num_samples
        self.every_n_validations = every_n_validations
        self._validations = 0
        self._shown = False
        self._wanted: frozenset[int] = frozenset()
        self._predictions: list[Prediction] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._predictions, self._wanted = [], frozenset()
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.loggers:
            return
        if self._validations % self.every_n_validations == 0:
            size = len(evaluation_dataset(trainer))
            count = min(self.num_samples, size)
            self._wanted = frozenset(np.linspace(0, size - 1, count).round().astype(int).tolist())
        self._validations += 1

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._wanted:
            return
        for row, position in enumerate(batch["indices"].tolist()):
            if position in self._wanted:
                self._predictions.append(self._show(pl_module, outputs, batch, row, position))

    def _show(
        self, module: Any, outputs: Mapping[str, Tensor], batch: Mapping[str, Any], row: int, position: int
    ) -> Prediction:
        height, width = batch["sizes"][row].tolist()

        def crop(array: Tensor) -> np.ndarray:
            return array[..., :height, :width].cpu().numpy()

        if "confidence" in outputs:
            confidence = outputs["confidence"][row]
        else:
            confidence = module.probabilities(outputs["logits"][row : row + 1]).amax(1)[0].mul(255).round()
        image = None if self._shown else photograph(batch["image"][row], module.model.mean, module.model.std)
        return Prediction(
            position=position,
            id=batch["ids"][row],
            image=None if image is None else np.ascontiguousarray(crop(image).transpose(1, 2, 0)),
            target=None if self._shown else crop(batch["mask"][row]),
            prediction=crop(outputs["prediction"][row]),
            confidence=crop(confidence.to(torch.uint8)),
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self._wanted:
            return
        # once each: a distributed sampler may repeat samples to even out the processes
        shown = {item.position: item for item in gather(self._predictions)}
        step = last_step(trainer)
        classes, palette, void = pl_module.class_names, pl_module.palette, pl_module.ignore_index
        for tracker in trackers(trainer) if trainer.is_global_zero else ():
            for _, item in sorted(shown.items()):
                if item.image is not None and item.target is not None:
                    tracker.log_image(names.sample_image(item.id), item.image)
                    target = displayable(item.target, void)
                    tracker.log_label_map(
                        names.sample_target(item.id), target, palette, 255, class_names=classes
                    )
                tracker.log_label_map(
                    names.sample_prediction(item.id), item.prediction, palette, 255, step, class_names=classes
                )
                tracker.log_image(names.sample_confidence(item.id), item.confidence, step)
        self._shown = True
        self._predictions = []


def photograph(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(3, H, W) uint8 image again from a normalized one, exact for what had been uint8."""
    channels = [channel * (255 * s) + 255 * m for channel, m, s in zip(image.float(), mean, std, strict=True)]
    return torch.stack(channels).round().clamp(0, 255).to(torch.uint8)


def displayable(target: np.ndarray, ignore_index: int) -> np.ndarray:
    """A target as a label map can hold it: the ignore index becomes 255 if it is outside 0..255."""
    return target if 0 <= ignore_index <= 255 else np.where(target == ignore_index, 255, target)
