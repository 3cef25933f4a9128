"""The LightningModule for instance segmentation: single objects, judged by COCO's mask AP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from segtrail.data.detections import Detections, to_coco
from segtrail.metrics.mask_ap import MaskAP
from segtrail.models.mask_rcnn import MaskRCNN
from segtrail.training.module import SegmentationModule


class InstanceModule(SegmentationModule):
    """Trains and evaluates a :class:`MaskRCNN`.

    Args:
        model: the network.
        loss: what the mask head learns by, any loss for binary masks; None is torchvision's.
        optimizer: ``optimizer(model, encoder_parameters) -> Optimizer``.
        scheduler: ``scheduler(optimizer, total_steps) -> Lightning scheduler config``; None keeps the rate.
        class_names: in id order.
        palette: (K, 3) uint8 display colors.
        ignore_index: id of void pixels in label maps.
        channels_last: keep the weights in channels-last memory format.
    """

    predictor = "segtrail.inference.instance"

    def __init__(
        self,
        model: MaskRCNN,
        loss: nn.Module | None,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., dict[str, Any]] | None,
        class_names: Sequence[str],
        palette: np.ndarray,
        ignore_index: int,
        channels_last: bool = False,
    ) -> None:
        super().__init__(model, loss, optimizer, scheduler)
        self.class_names = tuple(class_names)
        self.palette = palette
        self.ignore_index = ignore_index
        self.metrics = {
            split: {"mask": MaskAP(self.class_names), "box": MaskAP(self.class_names, "bbox")}
            for split in ("train", "val", "test")
        }
        self.evaluation_losses = nn.ModuleDict(
            {f"split_{split}": MeanMetric(nan_strategy="ignore") for split in self.metrics}
        )
        if channels_last:
            self.model.to(memory_format=torch.channels_last)

    def forward(self, batch: Mapping[str, Any]) -> list[dict[str, Tensor]]:
        """Detects the objects of a batch, in eval mode."""
        return self.model(batch["image"])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self.total(self.model(batch["image"], batch["targets"], self.loss), batch_idx)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        return self._evaluation_step(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        return self._evaluation_step(batch, self.test_split)

    def _evaluation_step(self, batch: dict[str, Any], split: str) -> dict[str, Any]:
        with torch.random.fork_rng(devices=_devices(self.device)):
            torch.manual_seed(0)  # the loss samples proposals: let epochs differ by the weights alone
            losses, found = self.model.validate(batch["image"], batch["targets"], self.loss)
        total = torch.stack(list(losses.values())).sum()
        self._loss(split).update(total.detach(), weight=len(batch["ids"]))
        detections = [
            Detections.from_model(_on_cpu(item), (int(height), int(width)))
            for item, (height, width) in zip(found, batch["sizes"].tolist(), strict=True)
        ]
        for image_id, truth, objects in zip(batch["ids"], batch["truth"], detections, strict=True):
            for metric in self.metrics[split].values():
                metric.update(image_id, objects.size, to_coco(objects, image_id), truth)
        return {"detections": detections}

    def on_validation_epoch_start(self) -> None:
        self._reset("val")

    def on_test_epoch_start(self) -> None:
        self._reset(self.test_split)

    def _reset(self, split: str) -> None:
        for metric in self.metrics[split].values():
            metric.reset()
        self._loss(split).reset()

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation(self.test_split)

    def _log_evaluation(self, split: str) -> None:
        values = {f"{split}/loss": float(self._loss(split).compute())}
        for kind, metric in self.metrics[split].items():
            metric.gather()
            values |= {f"{split}/{kind}_{name}": value for name, value in metric.compute().items()}
        # A split without objects has no AP, but what "best" means must exist.
        values.setdefault(f"{split}/mask_mAP", 0.0)
        self.log_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})

    def _loss(self, split: str) -> Any:
        return self.evaluation_losses[f"split_{split}"]


def _on_cpu(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().float().cpu() for name, value in found.items()}


def _devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
