"""Loss of Matthews' correlation coefficient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segtrail.losses.region import RegionLoss, Regions


class MCCLoss(RegionLoss):
    """1 - Matthews' correlation coefficient of soft counts (Abhishek and Hamarneh, 2021).

    The paper has two classes; with more, each is one against the rest. Where the coefficient is 0/0 (all
    labels, or all predictions, on one side) the loss is 0.

    Args:
        eps: added to numerator and denominator, both as shares of the squared number of pixels.
        **region: see :class:`~segtrail.losses.region.RegionLoss`.
    """

    def __init__(self, eps: float = 1e-7, **region: Any) -> None:
        super().__init__(**region)
        self.eps = eps

    def per_class(self, counts: Regions) -> Tensor:
        pixels = counts.pixels.clamp(min=1)
        intersection, labelled = counts.intersection / pixels, counts.labelled / pixels
        predicted = intersection + counts.false_positives / pixels
        covariance = intersection - predicted * labelled
        spread_p, spread_n = predicted * (1 - predicted), labelled * (1 - labelled)
        tiny = torch.finfo(covariance.dtype).tiny ** 0.5
        deviation = spread_p.clamp(min=tiny).sqrt() * spread_n.clamp(min=tiny).sqrt()
        return 1 - (covariance + self.eps) / (deviation + self.eps)
