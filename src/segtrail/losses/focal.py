"""Focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segtrail.losses.base import masked_mean
from segtrail.losses.statistics import Statistics, StatisticsLoss, required


class FocalLoss(StatisticsLoss):
    """Mean over the valid pixels of ``-alpha_y (1 - p_y)^gamma log p_y`` (Lin et al., 2017).

    p is the softmax; with one channel or multi-label it is the sigmoid, as in the paper.

    Args:
        gamma: how strongly well-classified pixels are played down; 0 is cross-entropy.
        alpha: one weight a class ([background, foreground] if binary), one number for
            [1 - alpha, alpha] (binary only), or None.
    """

    needs = frozenset({"cross_entropy"})
    alpha: Tensor | None

    def __init__(
        self,
        ignore_index: int | None = 255,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(ignore_index)
        if gamma < 0:
            raise ValueError(f"gamma is {gamma}; give gamma >= 0")
        self.gamma = gamma
        if isinstance(alpha, (int, float)):
            alpha = [1 - alpha, alpha]
        self.register_buffer("alpha", None if alpha is None else torch.as_tensor(list(alpha)).float())

    def of(self, statistics: Statistics) -> Tensor:
        entropy = required(statistics.cross_entropy)
        # 1 - p without cancellation; the floor keeps the power's derivative finite for gamma < 1
        wrong = (-torch.expm1(-entropy)).clamp(min=torch.finfo(entropy.dtype).tiny)
        values = wrong.pow(self.gamma) * entropy
        if self.alpha is not None:
            values = values * self.alpha.to(values.dtype)[statistics.labels]
        return masked_mean(values, statistics.valid)
