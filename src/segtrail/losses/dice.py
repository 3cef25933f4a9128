"""Dice loss and its close relatives."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segtrail.losses.region import RegionLoss, Regions, ratio


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

    def per_class(self, counts: Regions) -> Tensor:
        errors = counts.false_positives + counts.false_negatives
        # sum p^2 + N - 2 I is the sum of p^2 over the others and of (1 - p)^2 over the class's own pixels
        loss = ratio(errors, 2 * counts.intersection + errors + self.smooth)
        return loss.cosh().log() if self.log_cosh else loss
