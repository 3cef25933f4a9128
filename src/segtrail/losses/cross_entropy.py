"""Cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrail.losses.base import Loss


class CrossEntropyLoss(Loss):
    """Mean cross-entropy over the valid pixels; with one channel or multi-label, the binary form.

    With class weights the mean is the weighted one, divided by the sum of the pixels' weights, as in
    ``torch.nn.CrossEntropyLoss``; unlike there, a batch of nothing but void gives 0.

    Args:
        label_smoothing: share in [0, 1) of the target spread evenly over all classes.
        class_weights: one weight a class ([background, foreground] if binary), or None.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        ignore_index: int | None = 255,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(ignore_index)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; give 0 <= label_smoothing < 1")
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.as_tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor, **derived: Tensor) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        if weights is None:
            pixel_weights = valid
        else:
            pixel_weights = weights[labels] * valid
        total = pixel_weights.sum()
        total = torch.where(total == 0, 1, total)
        if labels.ndim == logits.ndim:
            smooth = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
            values = F.binary_cross_entropy_with_logits(logits, smooth.to(logits.dtype), reduction="none")
            return (values * pixel_weights).sum() / total
        return (
            F.cross_entropy(
                logits,
                labels.masked_fill(~valid, -100),
                weight=weights,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
            / total
        )


def pixel_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every pixel, of the labels' shape."""
    if labels.ndim == logits.ndim:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")
