"""Focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segtrail.losses.statistics import Statistics, StatisticsLoss, parts, required


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
        values = _Focal.apply(required(statistics.cross_entropy), self.gamma)
        if self.alpha is not None:
            values = values * self.alpha.to(values.dtype)[statistics.labels]
        return statistics.mean(values)


class _Focal(torch.autograd.Function):
    """``(1 - p)^gamma CE`` with its slope in CE = -log p, which autograd takes many small steps for."""

    @staticmethod
    def forward(ctx: Any, entropy: Tensor, gamma: float) -> Tensor:
        value, slope = torch.empty_like(entropy), torch.empty_like(entropy)
        for at in parts(entropy):
            part = entropy[at]
            wrong = torch.expm1(-part).neg_()  # 1 - p without cancellation
            wrong.clamp_(min=torch.finfo(entropy.dtype).tiny)  # a finite slope at p = 1 for gamma < 1
            power = wrong ** (gamma - 1)
            torch.addcmul(part, part, wrong, value=-1, out=slope[at])  # p CE
            slope[at].mul_(gamma).add_(wrong).mul_(power)
            torch.mul(power.mul_(wrong), part, out=value[at])
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad, None
