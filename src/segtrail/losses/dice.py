"""Dice loss and its close relatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segtrail.losses.region import RegionLoss
from segtrail.losses.regions import Regions


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

    def per_class(self, sums: Regions) -> Tensor:
        size = sums.predicted + sums.labelled
        tiny = torch.finfo(size.dtype).tiny
        loss = (size - 2 * sums.intersection) / (size + self.smooth).clamp(min=tiny)
        return loss.cosh().log() if self.log_cosh else loss
