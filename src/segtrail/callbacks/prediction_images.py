"""Predictions of a fixed set of validation samples, step by step, exact to the pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from segtrail.callbacks.fixed_samples import FixedSamples
from segtrail.callbacks.trackers import last_step
from segtrail.tracking import names
from segtrail.tracking.base import Tracker


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is shown of one sample; arrays are (H, W), the image (H, W, 3), without batch padding."""

    position: int
    id: str
    image: np.ndarray | None
    target: np.ndarray | None
    prediction: np.ndarray
    confidence: np.ndarray


class PredictionImages(FixedSamples[Prediction]):
    """Logs predicted label maps and confidences of a fixed set of validation samples.

    Photograph and target are logged once, prediction and confidence at each logged validation; the
    arguments are those of :class:`FixedSamples`.
    """

    def collect(
        self, module: Any, outputs: Mapping[str, Tensor], batch: Mapping[str, Any], row: int, position: int
    ) -> Prediction:
        height, width = batch["sizes"][row].tolist()

        def crop(array: Tensor) -> np.ndarray:
            return array[..., :height, :width].cpu().numpy()

        if "confidence" in outputs:
            confidence = outputs["confidence"][row]
        else:
            confidence = module.probabilities(outputs["logits"][row : row + 1]).amax(1)[0].mul(255).round()
        image = photograph(batch["image"][row], module.model.mean, module.model.std) if self.first else None
        return Prediction(
            position=position,
            id=batch["ids"][row],
            image=None if image is None else np.ascontiguousarray(crop(image).transpose(1, 2, 0)),
            target=crop(batch["mask"][row]) if self.first else None,
            prediction=crop(outputs["prediction"][row]),
            confidence=crop(confidence.to(torch.uint8)),
        )

    def record(self, tracker: Tracker, module: Any, items: Sequence[Prediction], trainer: pl.Trainer) -> None:
        step = last_step(trainer)
        classes, palette = module.class_names, module.palette
        for item in items:
            if item.image is not None and item.target is not None:
                tracker.log_image(names.sample_image(item.id), item.image)
                target = displayable(item.target, module.ignore_index)
                tracker.log_label_map(names.sample_target(item.id), target, palette, 255, class_names=classes)
            tracker.log_label_map(
                names.sample_prediction(item.id), item.prediction, palette, 255, step, class_names=classes
            )
            tracker.log_image(names.sample_confidence(item.id), item.confidence, step)


def photograph(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(3, H, W) uint8 image again from a normalized one, exact for what had been uint8."""
    channels = [channel * (255 * s) + 255 * m for channel, m, s in zip(image.float(), mean, std, strict=True)]
    return torch.stack(channels).round().clamp(0, 255).to(torch.uint8)


def displayable(target: np.ndarray, ignore_index: int) -> np.ndarray:
    """A target as a label map can hold it: the ignore index becomes 255 if it is outside 0..255."""
    return target if 0 <= ignore_index <= 255 else np.where(target == ignore_index, 255, target)
