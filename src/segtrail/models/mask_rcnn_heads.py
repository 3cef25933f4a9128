"""The second stage of Mask R-CNN with losses that can be exchanged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import roi_heads as torchvision_heads

from segtrail.losses.base import Loss

Targets = list[dict[str, Tensor]]


class RoIHeads(torchvision_heads.RoIHeads):
    """torchvision's heads, whose losses are a method and can be exchanged.

    Args:
        *arguments, **options: those of torchvision's class.
        box_loss: ``(logits (R, C), deltas (R, 4C), labels (R,), target deltas (R, 4), coder weights)
            -> (classification, localization)``; None takes those of Fast R-CNN.
    """

    def __init__(self, *arguments: Any, box_loss: nn.Module | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.box_loss = box_loss

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: Targets,
        mask_loss: Loss | None,
    ) -> dict[str, Tensor]:
        """Samples proposals and returns ``classifier``, ``box`` and ``mask`` losses.

        Args:
            features: levels of the pyramid.
            proposals: per image (P, 4) boxes.
            sizes: per image height and width.
            targets: per image boxes (N, 4), labels (N,) counted from 1, masks (N, H, W).
            mask_loss: any loss for binary masks; None is torchvision's cross-entropy, whose target is
                the fraction of the object in every cell. Others get that fraction rounded.
        """
        proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
        logits, regression = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, sizes)))
        if self.box_loss is None:
            classifier, box = torchvision_heads.fastrcnn_loss(logits, regression, labels, deltas)
        else:
            classifier, box = self.box_loss(
                logits, regression, torch.cat(labels), torch.cat(deltas), self.box_coder.weights
            )
        positive = [torch.where(label > 0)[0] for label in labels]
        boxes = [box[index] for box, index in zip(proposals, positive, strict=True)]
        objects = [match[index] for match, index in zip(matched, positive, strict=True)]
        mask_logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, sizes)))
        mask = _mask_losses(mask_logits, boxes, targets, objects, mask_loss)
        return {"classifier": classifier, "box": box, **mask}


def _mask_losses(
    logits: Tensor, boxes: list[Tensor], targets: Targets, objects: list[Tensor], loss: Loss | None
) -> dict[str, Tensor]:
    """Losses of the mask head on positive boxes; ``objects`` are the indices of their targets."""
    masks, labels = [target["masks"] for target in targets], [target["labels"] for target in targets]
    if loss is None:
        return {"mask": torchvision_heads.maskrcnn_loss(logits, boxes, masks, labels, objects)}
    if len(logits) == 0:
        return {"mask": logits.sum() * 0}
    own_class = torch.cat([label[index] for label, index in zip(labels, objects, strict=True)])
    chosen = logits[torch.arange(len(logits), device=logits.device), own_class][:, None]  # (R, 1, m, m)
    fraction = torch.cat(
        [
            torchvision_heads.project_masks_on_boxes(mask, box, index, logits.shape[-1])
            for mask, box, index in zip(masks, boxes, objects, strict=True)
        ]
    )
    parts = loss.parts(chosen, (fraction >= 0.5).long())
    return {"mask": next(iter(parts.values()))} if len(parts) == 1 else _prefixed(parts)


def _prefixed(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"mask_{name}": value for name, value in parts.items()}
