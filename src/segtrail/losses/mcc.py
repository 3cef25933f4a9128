"""Loss of Matthews' correlation coefficient."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrail.losses.region import Regions, soft_counts
from segtrail.losses.statistics import Statistics, StatisticsLoss


class MCCLoss(StatisticsLoss):
    """1 - Matthews' correlation coefficient of soft counts (Abhishek and Hamarneh, 2021).

    Multi-class is the coefficient's own generalization, R_K (Gorodkin, 2004), which for two classes
    is the binary one:

        (V I - sum_c P_c N_c) / sqrt((V^2 - sum_c P_c^2) (V^2 - sum_c N_c^2)),  I = sum_c I_c.

    Where it is 0/0 (all labels, or all predictions, of one class) the loss is 0.

    Args:
        per_image: one coefficient an image and their mean, rather than one for the batch.
        eps: added to numerator and denominator, both as shares of V^2.
    """

    needs = frozenset({"false_positives"})

    def __init__(self, ignore_index: int | None = 255, per_image: bool = False, eps: float = 1e-7) -> None:
        super().__init__(ignore_index)
        self.per_image = per_image
        self.eps = eps

    def of(self, statistics: Statistics) -> Tensor:
        counts = soft_counts(statistics, squared=False)
        if not self.per_image:
            counts = Regions(*(x.sum(0, keepdim=True) for x in counts))
        pixels = counts.pixels.clamp(min=1)
        intersection, labelled = counts.intersection / pixels, counts.labelled / pixels
        predicted = intersection + counts.false_positives / pixels
        covariance = intersection - predicted * labelled
        spread_p, spread_n = predicted * (1 - predicted), labelled * (1 - labelled)
        if not statistics.independent:  # one problem of C classes rather than C of two
            covariance = covariance.sum(1, keepdim=True)
            spread_p, spread_n = spread_p.sum(1, keepdim=True), spread_n.sum(1, keepdim=True)
        tiny = torch.finfo(covariance.dtype).tiny ** 0.5
        deviation = spread_p.clamp(min=tiny).sqrt() * spread_n.clamp(min=tiny).sqrt()
        losses = 1 - (covariance + self.eps) / (deviation + self.eps)
        occupied = (counts.pixels > 0).to(losses.dtype)
        return (losses * occupied).sum() / occupied.sum().clamp(min=1)
