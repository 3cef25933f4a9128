"""Cross-entropy of the hardest pixels, a fixed share of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segtrail.losses.statistics import Statistics, StatisticsLoss, required


class TopKLoss(StatisticsLoss):
    """Mean of the k percent largest cross-entropies of the batch's valid pixels (Wu et al., 2016).

    Pixels that tie for the last places share them.

    Args:
        k: percentage in (0, 100], rounded down, but at least one pixel.
    """

    needs = frozenset({"cross_entropy"})

    def __init__(self, ignore_index: int | None = 255, k: float = 10.0) -> None:
        super().__init__(ignore_index)
        if not 0 < k <= 100:
            raise ValueError(f"k is {k}; give a percentage in (0, 100]")
        self.k = k

    def of(self, statistics: Statistics) -> Tensor:
        return _MeanOfLargest.apply(required(statistics.cross_entropy), statistics.valid, self.k)


class _MeanOfLargest(torch.autograd.Function):
    """Mean of the largest valid numbers, k percent of them; those that tie for the last place share it.

    The numbers are not negative, and 0 where they are not valid.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, valid: Tensor, k: float) -> Tensor:
        at_most = max(1, int(values.numel() * k / 100))
        count = (valid.sum() * k / 100).long().clamp(1, at_most)
        last = kth_largest(values, count, at_most)
        ctx.save_for_backward(values, valid, count, last)
        return last + (values - last).clamp_(min=0).sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        values, valid, count, last = ctx.saved_tensors
        above = values > last
        tied = (values == last).logical_and_(valid)
        of_tied = (count - above.count_nonzero()) / tied.count_nonzero().clamp_(min=1)
        slope = grad / count
        return torch.where(above, slope, torch.where(tied, slope * of_tied, 0)), None, None


@torch.compiler.disable
def kth_largest(values: Tensor, k: Tensor, at_most: int) -> Tensor:
    """The k-th largest number; no synchronization where they are on a device.

    Args:
        values: any shape.
        k: integer on the values' device.
        at_most: what k cannot exceed, known without looking.
    """
    if values.device.type == "cpu":
        place = values.numel() - int(k)
        return values.new_tensor(np.partition(values.numpy(), place, axis=None)[place])
    return values.flatten().topk(min(at_most, values.numel())).values.gather(0, k.view(1) - 1)[0]
