"""Hausdorff-distance loss by soft erosions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segtrail.losses.base import Loss

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) / 5


class HausdorffERLoss(Loss):
    """Mean of ``sum_k k^alpha erode^k((p - q)^2)``, erosions of the error (Karimi and Salcudean, 2020).

    What survives many erosions is far from the labelled contour. An erosion is the mean over a pixel and
    its four neighbors, less 1/2, not below 0, and stretched to [0, 1] in each image and class. The error
    is 0 at void pixels. The value is no distance; pair it with Dice, as the paper does.

    Args:
        alpha: exponent of the weights.
        erosions: number of erosions.
    """

    def __init__(self, ignore_index: int | None = 255, alpha: float = 2.0, erosions: int = 10) -> None:
        super().__init__(ignore_index)
        if erosions < 1:
            raise ValueError(f"erosions is {erosions}; give at least 1")
        self.alpha = alpha
        self.erosions = erosions

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor, **derived: Tensor) -> Tensor:
        if labels.ndim == logits.ndim:
            error = (labels - logits.sigmoid()).square()
            known = valid
        else:
            probability = logits.softmax(1)
            index = labels.unsqueeze(1)
            error = probability.scatter(1, index, 1 - probability.gather(1, index)).square()
            known = valid.unsqueeze(1)
        error = error * known
        weights = [k**self.alpha for k in range(1, self.erosions + 1)]
        if error.device.type == "cpu":
            total = _erode_opencv(error, weights)
        else:
            total = _erode_batched(error, weights)
        return total / known.expand_as(error).sum().clamp(min=1)


def _erode_batched(error: Tensor, weights: list[float]) -> Tensor:
    """Weighted sum of all erosions of the planes of a (B, C, H, W) tensor."""
    planes = error
    total = error.new_zeros(())
    for weight in weights:
        mean = _CrossMean.apply(planes)
        planes = (mean - 0.5).masked_fill(mean < 0.5, 0)
        low, high = planes.amin((2, 3), keepdim=True), planes.amax((2, 3), keepdim=True)
        flat = high == low
        planes = (planes - torch.where(flat, 0, low)) / torch.where(flat, 1, high - low)
        total = total + weight * planes.sum()
    return total


class _CrossMean(torch.autograd.Function):
    """Mean over a pixel and its four neighbors, with zeros outside; it is its own adjoint.

    Sums rather than a convolution, whose factors a GPU may round to TF32.
    """

    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        total = planes.clone()
        total[..., 1:, :] += planes[..., :-1, :]
        total[..., :-1, :] += planes[..., 1:, :]
        total[..., 1:] += planes[..., :-1]
        total[..., :-1] += planes[..., 1:]
        return total.div_(5)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _CrossMean.apply(grad)


@torch.compiler.disable
def _erode_opencv(error: Tensor, weights: list[float]) -> Tensor:
    return _Erosions.apply(error, weights)


class _Erosions(torch.autograd.Function):
    """The same plane by plane, in cache, with its gradient, as long as a plane has something left."""

    @staticmethod
    def forward(ctx: Any, error: Tensor, weights: list[float]) -> Tensor:
        planes = error.flatten(0, 1).contiguous().numpy()
        gradient = torch.empty_like(error, memory_format=torch.contiguous_format)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # OpenCV works without the interpreter lock
            values = pool.map(_erode_plane, planes, gradient.flatten(0, 1).numpy(), [weights] * len(planes))
            total = sum(values)
        ctx.save_for_backward(gradient)
        return error.new_tensor(total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None


def _erode_plane(plane: np.ndarray, gradient: np.ndarray, weights: list[float]) -> float:
    """Value for one (H, W) plane; its gradient is written to ``gradient``."""
    value = 0.0
    steps = []
    for weight in weights:
        mean = cv2.filter2D(plane, -1, CROSS, borderType=cv2.BORDER_CONSTANT)
        passed = mean >= 0.5
        plane = np.where(passed, mean - 0.5, 0)
        low, high, where_low, where_high = cv2.minMaxLoc(plane)
        spread = high - low
        if spread > 0:
            plane = (plane - low) / spread
        value += weight * cv2.sumElems(plane)[0]
        steps.append((weight, passed, plane, spread, where_low, where_high))
        if high == 0:
            break
    gradient.fill(0)
    for weight, passed, eroded, spread, (x_low, y_low), (x_high, y_high) in reversed(steps):
        gradient += weight
        if spread > 0:
            gradient /= spread
            by_high = gradient.ravel() @ eroded.ravel()
            by_low = gradient.sum() - by_high
            gradient[y_high, x_high] -= by_high
            gradient[y_low, x_low] -= by_low
        gradient *= passed
        gradient[:] = cv2.filter2D(gradient, -1, CROSS, borderType=cv2.BORDER_CONSTANT)
    return value
