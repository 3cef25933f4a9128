"""Cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segtrail.losses.statistics import Statistics, StatisticsLoss, required


class CrossEntropyLoss(StatisticsLoss):
    """Mean cross-entropy over the valid pixels; with one channel or multi-label, the binary form.

    With class weights the mean is the weighted one, divided by the sum of the pixels' weights, as in
    ``torch.nn.CrossEntropyLoss``; unlike there, a batch of nothing but void gives 0.

    Args:
        label_smoothing: share in [0, 1) of the target spread evenly over all classes.
        class_weights: one weight a class ([background, foreground] if binary), or None.
    """

    needs = frozenset({"cross_entropy"})
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

    def of(self, statistics: Statistics) -> Tensor:
        values = required(statistics.cross_entropy)
        labels, valid = statistics.labels, statistics.valid
        weights = None if self.class_weights is None else self.class_weights.to(values.dtype)
        pixel_weights = valid.to(values.dtype) if weights is None else weights[labels] * valid
        values = values * pixel_weights
        if self.label_smoothing:
            uniform = torch.where(valid, _uniform_entropy(statistics, weights), 0)
            values = (1 - self.label_smoothing) * values + self.label_smoothing * uniform
        total = pixel_weights.sum()
        return values.sum() / torch.where(total == 0, 1, total)


def _uniform_entropy(statistics: Statistics, weights: Tensor | None) -> Tensor:
    """Weighted mean over the classes of -log p_c, at every pixel."""
    logits, labels = statistics.logits, statistics.labels
    entropy = required(statistics.cross_entropy)
    if statistics.independent:
        other = entropy + torch.where(labels == 1, logits, -logits)  # cross-entropy of the other label
        if weights is not None:
            entropy, other = entropy * weights[labels], other * weights[1 - labels]
        return (entropy + other) / 2
    if weights is None:
        weights = logits.new_ones(logits.shape[1])
    normalizer = entropy + logits.gather(1, labels.unsqueeze(1)).squeeze(1)  # log sum exp
    return (weights.sum() * normalizer - torch.einsum("bchw,c->bhw", logits, weights)) / logits.shape[1]
