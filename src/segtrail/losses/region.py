"""Common part of the losses that compare a predicted with a labelled region, class by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segtrail.losses.base import Loss
from segtrail.losses.regions import Regions, regions


class RegionLoss(Loss):
    """Mean over the classes of a loss of the class's region, by :meth:`per_class`.

    Args:
        per_image: compare the regions of each image and take the mean over images, rather than those
            of the whole batch.
        absent: what a class does that has no pixel in the image (or batch): ``skip`` leaves it out of
            the mean, ``count`` keeps it in, so that predicting it costs.
        class_weights: one weight a class for a weighted mean, or None.
        include_background: whether class 0 counts (multi-class and multi-label).
    """

    class_weights: Tensor | None
    squared: bool = False

    def __init__(
        self,
        ignore_index: int | None = 255,
        per_image: bool = False,
        absent: str = "skip",
        class_weights: Sequence[float] | None = None,
        include_background: bool = True,
    ) -> None:
        super().__init__(ignore_index)
        if absent not in ("skip", "count"):
            raise ValueError(f"absent is {absent!r}; give 'skip' or 'count'")
        self.per_image = per_image
        self.absent = absent
        self.include_background = include_background
        weights = None if class_weights is None else torch.as_tensor(list(class_weights)).float()
        self.register_buffer("class_weights", weights)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor, **derived: Tensor) -> Tensor:
        return self.of_regions(regions(logits, labels, valid, squared=self.squared), valid)

    def of_regions(self, sums: Regions, valid: Tensor) -> Tensor:
        """The loss of given sums per image and class."""
        occupied = valid.flatten(1).any(1)
        if not self.per_image:
            sums = sums.over_batch()
            occupied = occupied.any(0, keepdim=True)
        weights = occupied[:, None].to(sums.labelled.dtype).expand_as(sums.labelled)
        if self.class_weights is not None:
            weights = weights * self.class_weights
        if self.absent == "skip":
            weights = weights * (sums.labelled > 0)
        if not self.include_background and weights.shape[1] > 1:
            weights = torch.cat([torch.zeros_like(weights[:, :1]), weights[:, 1:]], 1)
        total = weights.sum(1)
        means = (self.per_class(sums) * weights).sum(1) / torch.where(total == 0, 1, total)
        return means.sum() / occupied.sum().clamp(min=1)

    def per_class(self, sums: Regions) -> Tensor:
        """Loss of each image (or the batch) and class, from its sums."""
        raise NotImplementedError
