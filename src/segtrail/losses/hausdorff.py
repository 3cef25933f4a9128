"""Hausdorff-distance loss by distance transforms."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segtrail.data.derived import contour_distance
from segtrail.losses.base import Loss
from segtrail.losses.distance_maps import contour_distances


class HausdorffLoss(Loss):
    """Mean over pixels and classes of ``(p - q)^2 (d_p^alpha + d_q^alpha)`` (Karimi and Salcudean, 2020).

    q is the labelled region, d_q the distance to its contour, and d_p that to the contour of the region
    with p > 1/2; no gradient goes through the distances. d is 0 for a region that is empty or the whole
    image. Values are large; pair it with Dice, as the paper does.

    Args:
        alpha: exponent of the distances.
        include_background: whether class 0 counts (not asked of a single channel).
    """

    derived = MappingProxyType({"contour_distance": contour_distance})

    def __init__(
        self, ignore_index: int | None = 255, alpha: float = 2.0, include_background: bool = True
    ) -> None:
        super().__init__(ignore_index)
        if alpha <= 0:
            raise ValueError(f"alpha is {alpha}; give alpha > 0")
        self.alpha = alpha
        self.include_background = include_background

    def compute(
        self,
        logits: Tensor,
        labels: Tensor,
        valid: Tensor,
        contour_distance: Tensor | None = None,
        **derived: Tensor,
    ) -> Tensor:
        independent = labels.ndim == logits.ndim
        channels = logits.shape[1]
        if contour_distance is None:
            contour_distance = contour_distances(labels, valid, channels)
        if independent:
            probability = logits.sigmoid()
            error = probability.detach() - labels
            predicted = contour_distances((probability.detach() > 0.5).long(), valid, channels)
            known = valid
        else:
            probability = logits.softmax(1)
            index = labels.unsqueeze(1)
            error = probability.detach().scatter(1, index, probability.detach().gather(1, index) - 1)
            predicted = _predicted_distances(probability.detach(), valid)
            known = valid.unsqueeze(1)
        weight = predicted.to(logits.dtype).pow_(self.alpha)
        weight += contour_distance.to(logits.dtype) ** self.alpha
        weight *= known
        known = known.expand_as(weight)
        if not self.include_background and channels > 1:
            weight[:, 0] = 0
            known = known[:, 1:]
        return _WeightedSquares.apply(probability, error, weight) / known.sum().clamp(min=1)


class _WeightedSquares(torch.autograd.Function):
    """Sum of ``weight (p - q)^2`` as a function of p, given the error p - q; uses up both."""

    @staticmethod
    def forward(ctx: Any, probability: Tensor, error: Tensor, weight: Tensor) -> Tensor:
        weight *= error
        ctx.save_for_backward(weight)
        # sums of rows, since float32 would not bear those of planes
        return torch.einsum("bchw,bchw->bch", error, weight).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * (2 * grad), None, None


def _predicted_distances(probability: Tensor, valid: Tensor) -> Tensor:
    """Contour distances of the regions with p > 1/2: a partition, together with what no class claims."""
    channels = probability.shape[1]
    most, labels = probability.max(1)
    labels = torch.where(most > 0.5, labels, channels)
    return contour_distances(labels, valid, channels + 1)[:, :channels]
