"""Common part of the losses that compare a predicted with a labelled region, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segtrail.losses.statistics import Statistics, StatisticsLoss, required


class Regions(NamedTuple):
    """Soft counts of each image (or of the batch) and class, (B, C) or (1, C).

    Attributes:
        intersection: sum of p_c over the class's pixels.
        false_positives: sum of p_c, or p_c^2 where the loss asks for false_squares, over the others.
        false_negatives: sum of 1 - p_c, or (1 - p_c)^2, over the class's pixels.
        labelled: number of the class's pixels.
        pixels: number of valid pixels, the same for all classes unless they are independent.
    """

    intersection: Tensor
    false_positives: Tensor
    false_negatives: Tensor
    labelled: Tensor
    pixels: Tensor


class RegionLoss(StatisticsLoss):
    """Mean over the classes of a loss of the class's region, by :meth:`per_class`.

    Args:
        per_image: compare the regions of each image and take the mean over images, rather than those
            of the whole batch.
        absent: what a class does that has no pixel in the image (or batch): ``skip`` leaves it out of
            the mean, ``count`` keeps it in, so that predicting it costs.
        class_weights: one weight a class for a weighted mean, or None.
        include_background: whether class 0 counts (not asked of a single channel).
    """

    needs = frozenset({"false_positives"})
    class_weights: Tensor | None

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

    def of(self, statistics: Statistics) -> Tensor:
        counts = soft_counts(statistics, squared="false_squares" in self.needs)
        if not self.per_image:
            counts = Regions(*(x.sum(0, keepdim=True) for x in counts))
        weights = (counts.pixels > 0).to(counts.labelled.dtype).expand_as(counts.labelled)
        if self.absent == "skip":
            weights = weights * (counts.labelled > 0)
        if self.class_weights is not None:
            weights = weights * self.class_weights
        if not self.include_background and weights.shape[1] > 1:
            weights = torch.cat([torch.zeros_like(weights[:, :1]), weights[:, 1:]], 1)
        images = (weights.sum(1) > 0).sum().clamp(min=1)
        return self.mean(counts, weights).sum() / images

    def mean(self, counts: Regions, weights: Tensor) -> Tensor:
        """Weighted mean over the classes for each image (or the batch), 0 where all weights are."""
        total = weights.sum(1)
        return (self.per_class(counts) * weights).sum(1) / torch.where(total == 0, 1, total)

    def per_class(self, counts: Regions) -> Tensor:
        """Loss of each image (or the batch) and class."""
        raise NotImplementedError


def soft_counts(statistics: Statistics, squared: bool) -> Regions:
    """Soft counts of each image and class."""
    labelled = statistics.labelled()
    missed = 1 - required(statistics.true_probability)
    false_negatives = statistics.by_label(missed)
    return Regions(
        labelled - false_negatives,
        required(statistics.false_squares if squared else statistics.false_positives),
        statistics.by_label(missed.square()) if squared else false_negatives,
        labelled,
        statistics.pixels(),
    )


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient that is 0, with no gradient, where the denominator is 0."""
    empty = denominator == 0
    return torch.where(empty, 0, numerator) / torch.where(empty, 1, denominator)
