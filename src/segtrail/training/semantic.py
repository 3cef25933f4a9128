"""The LightningModule for semantic segmentation: any model, any loss, one set of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from segtrail.metrics import confusion as metrics
from segtrail.metrics.boundary import BoundaryF
from segtrail.models.base import Output, SegmentationModel
from segtrail.tracking.names import class_metric
from segtrail.training.module import SegmentationModule
from segtrail.training.normalize import Normalize


class SemanticModule(SegmentationModule):
    """Trains and evaluates a :class:`SegmentationModel`.

    Args:
        model: the architecture.
        loss: ``loss(logits, target, **derived) -> scalar``; a :class:`segtrail.losses.base.Loss` also
            has its parts logged.
        optimizer: ``optimizer(model, encoder_parameters) -> Optimizer``.
        scheduler: ``scheduler(optimizer, total_steps) -> Lightning scheduler config``; None keeps the rate.
        class_names: one per class; one name alone means binary (a single logit).
        palette: (K, 3) uint8 display colors.
        ignore_index: target id that does not count.
        derived: the names of the batch's derived arrays that the loss takes.
        channels_last: keep weights and images in channels-last memory format.
        boundary_tolerance: pixels within which boundaries match; None leaves ``boundary_F`` out.
    """

    def __init__(
        self,
        model: SegmentationModel,
        loss: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., dict[str, Any]] | None,
        class_names: Sequence[str],
        palette: np.ndarray,
        ignore_index: int,
        channels_last: bool = False,
        boundary_tolerance: int | None = None,
    ) -> None:
        super().__init__(model, loss, optimizer, scheduler)
        self.ignore_index = ignore_index
        self.binary = len(class_names) == 1
        # A binary run predicts two ids, background and the class.
        self.class_names = ("background", *class_names) if self.binary else tuple(class_names)
        self.palette = np.vstack([np.zeros((1, 3), np.uint8), palette]) if self.binary else palette
        self.normalize = Normalize(model.mean, model.std)
        self.evaluations = nn.ModuleDict()
        self.evaluation_losses = nn.ModuleDict()
        self.boundary_scores = nn.ModuleDict()
        classes = len(self.class_names)
        for split in ("train", "val", "test"):
            self.evaluations[f"split_{split}"] = metrics.SegmentationConfusion(classes, ignore_index)
            self.evaluation_losses[f"split_{split}"] = MeanMetric(nan_strategy="ignore")
            if boundary_tolerance is not None:
                score = BoundaryF(classes, ignore_index, boundary_tolerance)
                self.boundary_scores[f"split_{split}"] = score
        self.channels_last = channels_last
        if channels_last:
            self.model.to(memory_format=torch.channels_last)

    def evaluation(self, split: str) -> metrics.SegmentationConfusion:
        """Returns the confusion counts of a split's latest evaluation."""
        return self.evaluations[f"split_{split}"]  # type: ignore[return-value]  # ModuleDict loses the type

    def evaluation_loss(self, split: str) -> MeanMetric:
        """Returns the mean loss of a split's latest evaluation."""
        return self.evaluation_losses[f"split_{split}"]  # type: ignore[return-value]

    def boundary_score(self, split: str) -> BoundaryF:
        """Returns the boundary F-score of a split's latest evaluation."""
        return self.boundary_scores[f"split_{split}"]  # type: ignore[return-value]

    # -- one batch ---------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Turns the loader's uint8 batch into what models and losses take, on the device."""
        image = self.normalize(batch["image"])
        if self.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return {**batch, "image": image, "mask": batch["mask"].long()}

    def forward(self, batch: Mapping[str, Any]) -> Output:
        """Segments a transferred batch, giving the model the derived inputs that it asks for."""
        return self.model(batch["image"], **{name: batch[name] for name in self.model.derived})

    def losses(self, output: Output, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns the weighted terms whose sum is minimized, by name."""
        target = batch["mask"]
        derived = {name: batch[name] for name in getattr(self.loss, "derived", ())}
        if hasattr(self.loss, "parts"):
            terms = dict(self.loss.parts(output.logits, target, **derived))
        else:  # a plain torch loss
            terms = {type(self.loss).__name__: self.loss(output.logits, target, **derived)}
        derived_of_model = {name: batch[name] for name in self.model.derived}
        terms.update(self.model.auxiliary_losses(output, target, self.loss, **derived_of_model))
        return terms

    def predict_classes(self, logits: Tensor) -> Tensor:
        """(B, C, H, W) logits to (B, H, W) int64 class ids; one logit means class 1 where it is positive."""
        return (logits[:, 0] > 0).long() if self.binary else logits.argmax(1)

    # -- training ----------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self.total(self.losses(self(batch), batch), batch_idx)

    # -- evaluation --------------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluation_step(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluation_step(batch, self.test_split)

    def _evaluation_step(self, batch: dict[str, Any], split: str) -> dict[str, Tensor]:
        output = self(batch)
        logits = output.logits
        self.evaluation_loss(split).update(self._plain_loss(logits, batch).detach(), weight=logits.shape[0])
        prediction = self.predict_classes(logits)
        self.evaluation(split).update(prediction, batch["mask"], batch["indices"])
        if self.boundary_scores:
            self.boundary_score(split).update(prediction, batch["mask"])
        return {"logits": logits, "prediction": prediction}

    def _plain_loss(self, logits: Tensor, batch: Mapping[str, Any]) -> Tensor:
        derived = {name: batch[name] for name in getattr(self.loss, "derived", ())}
        return self.loss(logits, batch["mask"], **derived)

    def on_validation_epoch_start(self) -> None:
        self._reset("val")

    def on_test_epoch_start(self) -> None:
        self._reset(self.test_split)

    def _reset(self, split: str) -> None:
        # At the start, not the end: callbacks read the counts after the epoch.
        self.evaluation(split).reset()
        self.evaluation_loss(split).reset()
        if self.boundary_scores:
            self.boundary_score(split).reset()

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation(self.test_split)

    def _log_evaluation(self, split: str) -> None:
        confusion = self.evaluation(split).compute().cpu()
        per_class = metrics.iou(confusion)
        values = {
            f"{split}/loss": self.evaluation_loss(split).compute().item(),
            f"{split}/mIoU": per_class.nanmean().item(),
            f"{split}/mDice": metrics.dice(confusion).nanmean().item(),
            f"{split}/pixel_accuracy": metrics.pixel_accuracy(confusion).item(),
        }
        if self.boundary_scores:
            values[f"{split}/boundary_F"] = self.boundary_score(split).compute().nanmean().item()
        # A class that is in neither target nor prediction has no IoU to log.
        values |= {
            class_metric(split, "IoU", name): value
            for name, value in zip(self.class_names, per_class.tolist(), strict=True)
            if not np.isnan(value)
        }
        # Already reduced over the processes, and double as computed.
        self.log_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, C, H, W) logits to probabilities of each class id, (B, K, H, W), in float32."""
        if self.binary:
            foreground = logits.float().sigmoid()
            return torch.cat([1 - foreground, foreground], dim=1)
        return F.softmax(logits.float(), dim=1)
