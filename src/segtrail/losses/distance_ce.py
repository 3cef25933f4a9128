"""Distance-penalized cross-entropy."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from segtrail.data.derived import label_distance
from segtrail.losses.base import Loss, masked_mean
from segtrail.losses.distance_maps import label_distances
from segtrail.losses.statistics import required, statistics


class DistanceCrossEntropyLoss(Loss):
    """Mean of ``(1 + phi) CE``, phi rising to 1 toward the borders of the labels (Caliva et al., 2019).

    ``phi = 1 - d / max d`` with d the distance of a pixel to the nearest other label and the maximum over
    the pixels of its class in the image; 0 in an image of one class. The paper has two classes; the
    maximum of each class is how that reads for more.
    """

    derived = MappingProxyType({"label_distance": label_distance})

    def compute(
        self,
        logits: Tensor,
        labels: Tensor,
        valid: Tensor,
        label_distance: Tensor | None = None,
        **derived: Tensor,
    ) -> Tensor:
        if label_distance is None:
            label_distance = label_distances(labels, valid, logits.shape[1])
        entropy = required(statistics(logits, labels, valid, frozenset({"cross_entropy"})).cross_entropy)
        distance = torch.where(valid, label_distance.view(labels.shape), 0)
        planes = labels.flatten(0, -3), distance.flatten(0, -3)
        penalty = _penalty(*planes, num_classes=max(2, logits.shape[1])).view(labels.shape)
        return masked_mean((1 + penalty) * entropy, valid)


def _penalty(labels: Tensor, distance: Tensor, num_classes: int) -> Tensor:
    """phi of (N, H, W) labels."""
    index = labels.flatten(1)
    farthest = distance.new_zeros(len(labels), num_classes)
    farthest = farthest.scatter_reduce(1, index, distance.flatten(1), "amax").gather(1, index)
    empty = farthest == 0
    phi = 1 - distance.flatten(1) / torch.where(empty, 1, farthest)
    return torch.where(empty, 0, phi).view(labels.shape)
