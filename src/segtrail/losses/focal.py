"""Focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segtrail.losses.statistics import Statistics, StatisticsLoss, blocks, required


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
        weight = None if self.alpha is None else self.alpha.to(entropy.dtype)[statistics.labels]
        return _FocalSum.apply(entropy, weight, self.gamma) / statistics.valid.sum().clamp(min=1)


class _FocalSum(torch.autograd.Function):
    """Sum of ``(1 - p)^gamma CE``, weighted or not, with its slope in CE = -log p, which autograd takes
    many small steps for."""

    @staticmethod
    def forward(ctx: Any, entropy: Tensor, weight: Tensor | None, gamma: float) -> Tensor:
        ctx.save_for_backward(entropy, weight)
        ctx.gamma = gamma
        total = entropy.new_zeros(())
        for part, of_class, _ in blocks(entropy, weight):
            values = _wrong(part).pow_(gamma).mul_(part)
            total += (values if of_class is None else values.mul_(of_class)).sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        entropy, weight = ctx.saved_tensors
        slope = torch.empty_like(entropy, memory_format=torch.contiguous_format)
        for part, of_class, own, _ in blocks(entropy, weight, slope):
            wrong = _wrong(part)
            torch.addcmul(part, part, wrong, value=-1, out=own)  # p CE
            own.mul_(ctx.gamma).add_(wrong).mul_(wrong.pow_(ctx.gamma - 1)).mul_(grad)
            if of_class is not None:
                own.mul_(of_class)
        return slope, None, None


def _wrong(entropy: Tensor) -> Tensor:
    """1 - p without cancellation, and not 0: the slope is finite at p = 1 for gamma < 1."""
    return entropy.neg().expm1_().neg_().clamp_(min=torch.finfo(entropy.dtype).tiny)
