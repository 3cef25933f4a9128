"""Generalized Dice loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segtrail.losses.region import RegionLoss, Regions, ratio


class GeneralizedDiceLoss(RegionLoss):
    """``1 - 2 sum_c w_c I_c / sum_c w_c (P_c + N_c)`` with ``w_c = N_c^-power`` (Sudre et al., 2017).

    A class without a pixel would have an infinite weight: ``absent="skip"`` leaves it out,
    ``absent="count"`` gives it the weight of the smallest class that is present.

    Args:
        power: 2 in the paper; 1 weights by the inverse size, 0 not at all.
        **region: see :class:`~segtrail.losses.region.RegionLoss`; ``class_weights`` multiply w.
    """

    def __init__(self, power: float = 2.0, **region: Any) -> None:
        super().__init__(**region)
        if power < 0:
            raise ValueError(f"power is {power}; give power >= 0")
        self.power = power

    def mean(self, counts: Regions, weights: Tensor) -> Tensor:
        labelled = counts.labelled
        smallest = torch.where(labelled > 0, labelled, torch.inf).amin(1, keepdim=True)
        size = torch.where(labelled > 0, labelled, smallest)
        # relative to the smallest class, so that no weight leaves the range of floats
        weights = weights * torch.where(size.isinf(), 0, smallest / size) ** self.power
        errors = counts.false_positives + counts.false_negatives
        total = errors + 2 * counts.intersection
        return ratio((weights * errors).sum(1), (weights * total).sum(1))
