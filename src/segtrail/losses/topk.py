"""Cross-entropy of the hardest pixels, a fixed share of them."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrail.losses.statistics import Statistics, StatisticsLoss, required


class TopKLoss(StatisticsLoss):
    """Mean of the k percent largest cross-entropies of the batch's valid pixels (Wu et al., 2016).

    Args:
        k: percentage in (0, 100]; at least one pixel is taken.
    """

    needs = frozenset({"cross_entropy"})

    def __init__(self, ignore_index: int | None = 255, k: float = 10.0) -> None:
        super().__init__(ignore_index)
        if not 0 < k <= 100:
            raise ValueError(f"k is {k}; give a percentage in (0, 100]")
        self.k = k

    def of(self, statistics: Statistics) -> Tensor:
        entropy = torch.where(statistics.valid, required(statistics.cross_entropy), -1).flatten()
        count = (statistics.valid.sum() * self.k / 100).long().clamp(min=1)
        if entropy.device.type == "cpu":
            largest = entropy.topk(min(int(count), len(entropy)), sorted=False).values
            return largest.clamp(min=0).sum() / count
        # the number is known on the device alone: sort rather than fetch it
        ranked = entropy.sort(descending=True).values.clamp(min=0)
        return torch.where(torch.arange(len(ranked), device=ranked.device) < count, ranked, 0).sum() / count
