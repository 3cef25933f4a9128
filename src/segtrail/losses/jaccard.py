"""Jaccard loss."""

from __future__ import annotations

from typing import Any

from segtrail.losses.tversky import TverskyLoss


class JaccardLoss(TverskyLoss):
    """Soft Jaccard (IoU) loss, ``1 - (I + s) / (P + N - I + s)`` for each class (Rahman and Wang, 2016).

    Args:
        smooth: s, added to numerator and denominator, in pixels.
        **region: see :class:`~segtrail.losses.region.RegionLoss`.
    """

    def __init__(self, smooth: float = 0.0, **region: Any) -> None:
        super().__init__(alpha=1.0, beta=1.0, smooth=smooth, **region)
