"""Tversky loss, and focal Tversky by its exponent."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segtrail.losses.region import RegionLoss, Regions, ratio


class TverskyLoss(RegionLoss):
    """``(1 - (I + s) / (I + alpha FP + beta FN + s))^gamma`` for each class (Salehi et al., 2017).

    alpha = beta = 1/2 is the Dice loss, alpha = beta = 1 the Jaccard loss. The focal Tversky loss of
    Abraham and Khan (2019) has the exponent 1/gamma' with gamma' = 4/3 in their notation: gamma = 3/4.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: exponent.
        smooth: s, added to numerator and denominator, in pixels.
        **region: see :class:`~segtrail.losses.region.RegionLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        smooth: float = 0.0,
        **region: Any,
    ) -> None:
        super().__init__(**region)
        if min(alpha, beta, smooth) < 0 or gamma <= 0:
            raise ValueError("give alpha, beta and smooth >= 0 and gamma > 0")
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.smooth = smooth

    def per_class(self, counts: Regions) -> Tensor:
        errors = self.alpha * counts.false_positives + self.beta * counts.false_negatives
        loss = ratio(errors, counts.intersection + errors + self.smooth)
        if self.gamma == 1:
            return loss
        return loss.clamp(min=1e-7) ** self.gamma  # the power's slope is infinite at 0 for gamma < 1
