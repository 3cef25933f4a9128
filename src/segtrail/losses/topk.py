"""Cross-entropy of the hardest pixels, a fixed share of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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
        valid, entropy = statistics.valid, required(statistics.cross_entropy)
        found = torch.where(valid, entropy.detach(), 0)
        count = (valid.sum() * self.k / 100).long().clamp(min=1)
        last = kth_largest(found, count)
        above = (found > last) & valid
        tied = (found == last) & valid
        share = (count - above.sum()) / tied.sum().clamp(min=1)
        weight = torch.addcmul(above.to(entropy.dtype), tied.to(entropy.dtype), share)
        return (entropy * weight).sum() / count


def kth_largest(values: Tensor, k: Tensor) -> Tensor:
    """The k-th largest of non-negative numbers, k an integer on their device; no synchronization there."""
    if values.device.type == "cpu":
        return values.new_tensor(_kth_largest(np.abs(values.numpy().ravel()), int(k)))
    return values.flatten().sort(descending=True).values.gather(0, k.view(1) - 1)[0]


def _kth_largest(values: np.ndarray, k: int) -> float:
    if values.dtype == np.float32:
        # the upper bits of non-negative floats sort like integers: find the bin, then look into it alone
        bins = values.view(np.int32) >> 15
        above = np.cumsum(np.bincount(bins, minlength=1 << 16)[::-1])
        index = int(np.searchsorted(above, k))
        k -= int(above[index - 1]) if index else 0
        values = values[bins == len(above) - 1 - index]
    return float(np.partition(values, len(values) - k)[len(values) - k])
