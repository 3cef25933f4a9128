"""Dice loss and its close relatives."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segtrail.losses.region import RegionLoss, Regions, ratio
from segtrail.losses.statistics import Statistics


class DiceLoss(RegionLoss):
    """``1 - (2 I + s) / (P + N + s)`` for each class.

    Args:
        squared: take the sum of p^2 for P, as in V-Net (Milletari et al., 2016).
        log_cosh: the logarithm of the hyperbolic cosine of it, smooth (Jadon, 2020).
        smooth: s, added to numerator and denominator, in pixels.
        **region: see :class:`~segtrail.losses.region.RegionLoss`.
    """

    def __init__(
        self, squared: bool = False, log_cosh: bool = False, smooth: float = 0.0, **region: Any
    ) -> None:
        super().__init__(**region)
        if smooth < 0:
            raise ValueError(f"smooth is {smooth}; give smooth >= 0")
        self.squared = squared
        self.log_cosh = log_cosh
        self.smooth = smooth
        if squared:
            self.needs = frozenset({"false_squares"})

    def regions(self, statistics: Statistics) -> Regions:
        if not self.squared:
            return super().regions(statistics)
        # sum p^2 + N - 2 I = sum over the others of p^2 + sum over the class of (1 - p)^2
        true = statistics.true_probability
        false_squares = statistics.false_squares
        assert false_squares is not None
        return Regions(
            statistics.by_label(true),
            false_squares,
            statistics.by_label((1 - true).square()),
            statistics.labelled(),
        )

    def per_class(self, counts: Regions) -> Tensor:
        errors = counts.false_positives + counts.false_negatives
        loss = ratio(errors, 2 * counts.intersection + errors + self.smooth)
        return loss.cosh().log() if self.log_cosh else loss
