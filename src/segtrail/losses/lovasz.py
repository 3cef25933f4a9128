"""Lovász-Softmax loss: the convex extension of the Jaccard loss, on probabilities."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segtrail.losses.base import Loss


class LovaszLoss(Loss):
    """Lovász extension of each class's Jaccard loss at the errors ``|[y = c] - p_c|`` (Berman et al., 2018).

    p is the softmax; with one channel or multi-label it is the sigmoid and every channel a class. The
    gradient is exact and computed together with the value, by a radix sort a class on the CPU and by
    one batched sort on other devices.

    Args:
        per_image: mean over the images of each one's loss, rather than the loss of the whole batch.
        absent: ``skip`` averages over the classes present in the image (or batch), ``count`` over all.
    """

    def __init__(self, ignore_index: int | None = 255, per_image: bool = False, absent: str = "skip") -> None:
        super().__init__(ignore_index)
        if absent not in ("skip", "count"):
            raise ValueError(f"absent is {absent!r}; give 'skip' or 'count'")
        self.per_image = per_image
        self.absent = absent

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor, **derived: Tensor) -> Tensor:
        probability = logits.sigmoid() if labels.ndim == logits.ndim else logits.softmax(1)
        return lovasz_mean(probability, labels, valid, self.per_image, self.absent == "count")


def lovasz_mean(scores: Tensor, labels: Tensor, valid: Tensor, per_image: bool, count_absent: bool) -> Tensor:
    """Mean over classes of the Lovász extension of the Jaccard loss at the errors ``|[y = c] - score_c|``.

    Args:
        scores: (B, C, H, W), non-negative errors for every label.
        labels, valid: as in :meth:`segtrail.losses.base.Loss.compute`.
        per_image: mean over images of the means over classes.
        count_absent: let classes without a valid pixel take part.
    """
    return _LovaszMean.apply(scores, labels, valid, per_image, count_absent)


class _LovaszMean(torch.autograd.Function):
    """The extension is linear between changes of the errors' order: only its slopes are kept."""

    @staticmethod
    @torch.compiler.disable
    def forward(
        ctx: Any, scores: Tensor, labels: Tensor, valid: Tensor, per_image: bool, count_absent: bool
    ) -> Tensor:
        on_rows = _rows_numpy if scores.device.type == "cpu" else _rows_batched
        images = range(len(scores)) if per_image else [slice(None)]
        slopes = torch.empty_like(scores)
        total = scores.new_zeros(())
        occupied = scores.new_zeros(())
        for image in images:
            part = slice(image, image + 1) if isinstance(image, int) else image
            values, present = on_rows(scores[part], labels[part], valid[part], slopes[part])
            some = valid[part].any().to(scores.dtype)
            weights = torch.ones_like(values) * some if count_absent else present
            weights = weights / weights.sum().clamp(min=1)
            total += (values * weights).sum()
            slopes[part] *= weights[:, None, None]
            occupied += some
        occupied.clamp_(min=1)
        ctx.save_for_backward(slopes.div_(occupied))
        return total / occupied

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return slopes * grad, None, None, None, None


def _rows_batched(scores: Tensor, labels: Tensor, valid: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Values (C,) and presence (C,) of all classes by one sort; fills the slopes with d value / d score."""
    classes = scores.shape[1]
    flat = scores.transpose(0, 1).flatten(1)  # (C, P)
    if labels.ndim == scores.ndim:
        foreground = (labels == 1).transpose(0, 1).flatten(1)
        known = valid.transpose(0, 1).flatten(1)
    else:
        foreground = labels.flatten() == torch.arange(classes, device=scores.device)[:, None]
        known = valid.flatten().expand(classes, -1)
    foreground = foreground & known
    errors = torch.where(foreground, 1 - flat, flat).masked_fill(~known, -1)
    errors, order = errors.sort(1, descending=True)
    positive = foreground.gather(1, order)
    negative = ~positive & (errors >= 0)
    count = foreground.sum(1, keepdim=True)
    intersection = (count - positive.cumsum(1)).to(scores.dtype)
    union = (count + negative.cumsum(1)).to(scores.dtype)
    slope = torch.where(positive, 1 / union, intersection / union / (union - 1))
    # the first error of an absent class takes the Jaccard loss from 0 to 1
    slope = torch.where(negative & (union == 1), 1, slope).masked_fill(~(positive | negative), 0)
    values = (errors * slope).sum(1)
    back = torch.empty_like(slope).scatter_(1, order, slope)
    back = torch.where(foreground, -back, back)
    slopes.copy_(back.view(classes, len(scores), *scores.shape[2:]).transpose(0, 1))
    return values, (count[:, 0] > 0).to(scores.dtype)


def _rows_numpy(scores: Tensor, labels: Tensor, valid: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """The same class by class, in cache, without those that have no pixel (value and slopes 1 or 0)."""
    score, label, known, slope = (x.detach().numpy() for x in (scores, labels, valid, slopes))
    classes = score.shape[1]
    independent = labels.ndim == scores.ndim
    values = np.zeros(classes, score.dtype)
    present = np.zeros(classes, score.dtype)

    def row(c: int) -> None:
        here = known[:, c] if independent else known
        foreground = (label[:, c] == 1 if independent else label == c) & here
        errors = score[:, c].copy()
        np.subtract(1, errors, out=errors, where=foreground)
        np.copyto(errors, -1, where=~here)  # never as wrong as any valid pixel
        values[c], steps = _extension(errors.ravel(), foreground.ravel())
        steps = steps.reshape(errors.shape)
        np.negative(steps, out=steps, where=foreground)
        slope[:, c] = steps
        present[c] = foreground.any()

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy sorts without the interpreter lock
        list(pool.map(row, range(classes)))
    return torch.from_numpy(values), torch.from_numpy(present)


def _extension(errors: np.ndarray, foreground: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and slopes of the Lovász extension of one class's Jaccard loss.

    Once all foreground pixels are among the mistakes the loss is 1, whatever else is: only pixels at
    least as wrong as the best foreground pixel have a slope, and need to be sorted.
    """
    slopes = np.zeros_like(errors)
    if not foreground.any():  # one mistake is as bad as any number
        worst = int(errors.argmax())
        slopes[worst] = errors[worst] > 0
        return max(0, errors[worst]), slopes
    involved = np.flatnonzero(errors >= errors[foreground].min())
    involved = involved[_descending(errors[involved])]
    positive = foreground[involved]
    found = np.cumsum(positive, dtype=np.int32)
    count = found[-1]
    union = (count + np.arange(1, len(found) + 1, dtype=np.int32) - found).astype(errors.dtype)
    steps = np.where(positive, 1, count - found).astype(errors.dtype)
    steps /= union
    steps /= np.where(positive, 1, union - 1)
    slopes[involved] = steps
    return (errors[involved] * steps).sum(dtype=np.float64), slopes


def _descending(errors: np.ndarray) -> np.ndarray:
    """Order of non-negative numbers from the largest."""
    if errors.dtype != np.float32:
        return np.argsort(errors)[::-1]
    # the bits of non-negative floats sort like integers: two radix passes, 15 and 16 bits
    bits = errors.view(np.uint32)
    low = np.argsort((bits & 0x7FFF).astype(np.uint16), kind="stable")
    high = np.argsort((bits >> 15).astype(np.uint16)[low], kind="stable")
    return low[high][::-1]
