"""Sensitivity-specificity loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segtrail.losses.region import RegionLoss, Regions, ratio


class SensitivitySpecificityLoss(RegionLoss):
    """``r mean_{y = c} (1 - p_c)^2 + (1 - r) mean_{y != c} p_c^2`` for each class (Brosch et al., 2015).

    Args:
        sensitivity_weight: r, the weight of the errors on the class's own pixels.
        **region: see :class:`~segtrail.losses.region.RegionLoss`; absent classes count by default,
            with the second term.
    """

    needs = frozenset({"false_squares"})

    def __init__(self, sensitivity_weight: float = 0.05, absent: str = "count", **region: Any) -> None:
        super().__init__(absent=absent, **region)
        if not 0 <= sensitivity_weight <= 1:
            raise ValueError(f"sensitivity_weight is {sensitivity_weight}; give a number in [0, 1]")
        self.sensitivity_weight = sensitivity_weight

    def per_class(self, counts: Regions) -> Tensor:
        missed = ratio(counts.false_negatives, counts.labelled)
        false_alarms = ratio(counts.false_positives, counts.pixels - counts.labelled)
        return self.sensitivity_weight * missed + (1 - self.sensitivity_weight) * false_alarms
