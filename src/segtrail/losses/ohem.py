"""Cross-entropy of the pixels that are not yet well classified."""

from __future__ import annotations

import math

from torch import Tensor

from segtrail.losses.base import masked_mean
from segtrail.losses.statistics import Statistics, StatisticsLoss, required
from segtrail.losses.topk import kth_largest


class OHEMLoss(StatisticsLoss):
    """Mean cross-entropy of the pixels with ``p_y < threshold``, and of the hardest ``min_kept`` at least.

    Online hard example mining (Shrivastava et al., 2016) in the form usual for segmentation.

    Args:
        threshold: probability of the true class, in (0, 1], from which a pixel is left out.
        min_kept: number of pixels of a batch that are always kept.
    """

    needs = frozenset({"cross_entropy"})

    def __init__(
        self, ignore_index: int | None = 255, threshold: float = 0.7, min_kept: int = 100_000
    ) -> None:
        super().__init__(ignore_index)
        if not 0 < threshold <= 1 or min_kept < 1:
            raise ValueError("give 0 < threshold <= 1 and min_kept >= 1")
        self.threshold = threshold
        self.min_kept = min_kept

    def of(self, statistics: Statistics) -> Tensor:
        valid = statistics.valid
        entropy = required(statistics.cross_entropy)
        kept = valid.sum().clamp(min=1, max=self.min_kept)
        last_kept = kth_largest(entropy.detach(), kept, at_most=self.min_kept)
        return masked_mean(entropy, valid & ((entropy > -math.log(self.threshold)) | (entropy >= last_kept)))
