"""Sums over the pixels of each class, from which the region losses follow, without one-hot tensors.

With p the probabilities, y the labels and every sum over the valid pixels of an image,

    intersection_c = sum over y = c of p_c,    predicted_c = sum of p_c (or p_c^2),
    labelled_c = number of pixels with y = c,  cross_entropy = sum of -log p_y.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Regions(NamedTuple):
    """Sums per image and class, (B, C), and the cross-entropy's per image, (B,).

    The counts of labels carry no gradient.
    """

    intersection: Tensor
    predicted: Tensor
    labelled: Tensor
    cross_entropy: Tensor

    def over_batch(self) -> Regions:
        """The same sums over the whole batch, (1, C) and (1,)."""
        return Regions(*(x.sum(0, keepdim=True) for x in self))


def regions(
    logits: Tensor, labels: Tensor, valid: Tensor, squared: bool = False, cross_entropy: bool = False
) -> Regions:
    """Computes the sums of the module's head.

    Args:
        logits, labels, valid: as in :meth:`segtrail.losses.base.Loss.compute`.
        squared: sum p^2 instead of p in ``predicted``.
        cross_entropy: compute that sum too; else it is 0.
    """
    if labels.ndim == logits.ndim:
        probability = logits.sigmoid() * valid
        y = labels.to(logits.dtype)
        entropy = (F.binary_cross_entropy_with_logits(logits, y, reduction="none") * valid).sum((1, 2, 3))
        predicted = probability.square() if squared else probability
        return Regions((probability * y).sum((2, 3)), predicted.sum((2, 3)), (y * valid).sum((2, 3)), entropy)
    intersection, predicted, entropy = _SoftmaxSums.apply(logits, labels, valid, squared, cross_entropy)
    return Regions(
        intersection, predicted, sum_by_label(valid.to(logits.dtype), labels, logits.shape[1]), entropy
    )


def sum_by_label(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sums (B, H, W) values into (B, C) by their labels.

    Each row has accumulators of its own: exact for more pixels, and little contention on a GPU.
    """
    rows = values.new_zeros(*values.shape[:-1], num_classes)
    return rows.scatter_add_(-1, labels, values).sum(1)


class _SoftmaxSums(torch.autograd.Function):
    """Softmax, its sums and their common gradient; only the probabilities are kept for backward."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor, squared: bool, cross_entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, classes = logits.shape[:2]
        index = labels.unsqueeze(1)
        if cross_entropy:
            probability = logits.log_softmax(1)
            true_log = torch.where(valid, probability.gather(1, index).squeeze(1), 0)
            entropy = -true_log.sum((1, 2))
            probability.exp_()
        else:
            probability = logits.softmax(1)
            entropy = logits.new_zeros(batch)
        probability.mul_(valid.unsqueeze(1))
        true_probability = probability.gather(1, index).squeeze(1)
        intersection = sum_by_label(true_probability, labels, classes)
        if squared:
            predicted = torch.linalg.vector_norm(probability, dim=(2, 3)).square_()
        else:
            predicted = probability.sum((2, 3))
        ctx.save_for_backward(probability, labels, valid, true_probability)
        ctx.squared = squared
        return intersection, predicted, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_i: Tensor, grad_p: Tensor, grad_e: Tensor) -> tuple[Tensor | None, ...]:
        probability, labels, valid, true_probability = ctx.saved_tensors
        rows = labels.flatten(1)
        # d/dp of the sums, then through the softmax: dx = p * (g - <p, g>)
        at_label = (true_probability.flatten(1) * grad_i.gather(1, rows)).view_as(true_probability)
        if ctx.squared:
            grad = probability * (2 * grad_p[:, :, None, None])
            inner = torch.linalg.vecdot(probability, grad, dim=1)
        else:
            grad = grad_p[:, :, None, None]
            inner = torch.bmm(grad_p.unsqueeze(1), probability.flatten(2)).view_as(true_probability)
        shift = grad_e[:, None, None] - inner - at_label
        result = (grad + shift.unsqueeze(1)).mul_(probability)
        # probability is 0 at void pixels, hence the result too
        at_label -= torch.where(valid, grad_e[:, None, None], 0)
        result.scatter_add_(1, labels.unsqueeze(1), at_label.unsqueeze(1))
        return result, None, None, None, None
