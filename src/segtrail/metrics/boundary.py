"""How well predicted boundaries lie on the true ones: a streaming F-score.

Counts are summed over the whole data set by class, as for IoU, so that the result does not depend on
batch size, order, or the number of processes. (Gated-SCNN's evaluation averages the F-scores of
single images instead, where an image without the class scores 1.)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


def boundaries(labels: Tensor, void: Tensor, num_classes: int) -> Tensor:
    """Pixels where a class meets its outside: the pixel, the next one below, right, or both differ.

    Args:
        labels: (B, H, W) integer class ids; void pixels may hold anything.
        void: (B, H, W) bool; no boundary lies beside void.
        num_classes: K; ids outside 0..K-1 belong to no class.

    Returns:
        (B, K, H, W) bool; the image's border is no boundary.
    """
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    inside = labels[:, None] == classes
    result = torch.zeros_like(inside)
    for rows, columns in ((1, 0), (0, 1), (1, 1)):
        here = (..., slice(None, -rows or None), slice(None, -columns or None))
        there = (..., slice(rows, None), slice(columns, None))
        known = ~(void[here] | void[there])
        result[here] |= (inside[here] != inside[there]) & known[:, None]
    return result


def dilate(maps: Tensor, radius: int) -> Tensor:
    """Spreads True over a disk. (B, K, H, W) bool -> same."""
    maps = maps.float()
    height = maps.shape[-2]
    padded = F.pad(maps, (0, 0, radius, radius))
    result = torch.zeros_like(maps)
    for row in range(-radius, radius + 1):
        half = int((radius**2 - row**2) ** 0.5)
        shifted = padded[..., radius + row : radius + row + height, :]
        result = torch.maximum(result, F.max_pool2d(shifted, (1, 2 * half + 1), 1, (0, half)))
    return result > 0


class BoundaryF(Metric):
    """F-score of class boundaries within a tolerance, over a split.

    Args:
        num_classes: K; 2 for a binary model.
        ignore_index: target id that does not count.
        tolerance: distance in pixels at which boundaries still match.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor

    def __init__(self, num_classes: int, ignore_index: int, tolerance: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.tolerance = tolerance
        # by class: predicted, of them matched; true, of them matched
        self.add_state("counts", torch.zeros(num_classes, 4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch of (B, H, W) integer class ids; the target may hold ``ignore_index``."""
        void = target == self.ignore_index
        predicted = boundaries(prediction, void, self.num_classes)
        true = boundaries(target, void, self.num_classes)
        for column, maps in enumerate(
            (
                predicted,
                predicted & dilate(true, self.tolerance),
                true,
                true & dilate(predicted, self.tolerance),
            )
        ):
            self.counts[:, column] += maps.sum((0, 2, 3))

    def compute(self) -> Tensor:
        """F-score by class, (K,) float64; NaN for classes without any boundary."""
        predicted, right, true, found = self.counts.double().unbind(1)
        precision, recall = right / predicted.clamp(min=1), found / true.clamp(min=1)
        score = 2 * precision * recall / (precision + recall).clamp(min=torch.finfo(torch.float64).tiny)
        return torch.where(predicted + true > 0, score, torch.nan)
