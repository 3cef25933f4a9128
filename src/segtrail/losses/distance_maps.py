"""Distance maps of label maps as tensors: by OpenCV on the CPU, by batched tensor operations elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import torch
from torch import Tensor

from segtrail.data import derived


def signed_distances(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Batched :func:`segtrail.data.derived.signed_distance`, (B, C, H, W), for both kinds of labels."""
    return _both_sides(labels, valid, num_classes, lambda inside: torch.where(inside > 0, 1 - inside, 0))


def contour_distances(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Batched :func:`segtrail.data.derived.contour_distance`, (B, C, H, W), for both kinds of labels."""
    return _both_sides(labels, valid, num_classes, lambda inside: inside)


def label_distances(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Batched :func:`segtrail.data.derived.label_distance`, of the labels' shape."""
    planes, known = labels.flatten(0, -3), valid.flatten(0, -3)
    outside = _to_classes(planes, known, num_classes if labels.ndim == 3 else 2)
    return (_to_others(outside, planes) * known).view(labels.shape)


def _both_sides(
    labels: Tensor, valid: Tensor, num_classes: int, of_inside: Callable[[Tensor], Tensor]
) -> Tensor:
    independent = labels.ndim == 4
    planes, known = labels.flatten(0, -3), valid.flatten(0, -3)
    outside = _to_classes(planes, known, 2 if independent else num_classes)
    inside = _to_others(outside, planes)
    outside.scatter_(1, planes.unsqueeze(1), of_inside(inside).unsqueeze(1))
    outside.nan_to_num_(posinf=0).mul_(known.unsqueeze(1))
    return outside[:, 1].reshape(labels.shape) if independent else outside


def _to_others(outside: Tensor, labels: Tensor) -> Tensor:
    """(N, H, W) distance to the nearest pixel of another class, 0 if there is none.

    Changes the pixels' distance to their own class in ``outside``.
    """
    return outside.scatter_(1, labels.unsqueeze(1), torch.inf).amin(1).nan_to_num_(posinf=0)


def _to_classes(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """(N, K, H, W) float32 distance of every pixel to the nearest one of each class, inf if absent."""
    on_device = _to_classes_opencv if labels.device.type == "cpu" else _to_classes_batched
    return on_device(torch.where(valid, labels, -1), num_classes)


@torch.compiler.disable
def _to_classes_opencv(labels: Tensor, num_classes: int) -> Tensor:
    result = torch.full((len(labels), num_classes, *labels.shape[1:]), torch.inf)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(torch.get_num_threads())
    try:
        for image, planes in zip(labels.int().numpy(), result.numpy(), strict=True):
            for c in derived.classes_present(image):
                derived.to_class(image, c, planes[c])
    finally:
        cv2.setNumThreads(threads)
    return result


def _to_classes_batched(labels: Tensor, num_classes: int) -> Tensor:
    classes = torch.arange(num_classes, device=labels.device)[:, None, None]
    return _euclidean(labels.unsqueeze(1) == classes)


def _euclidean(sources: Tensor) -> Tensor:
    """Distance of every pixel to the nearest true one, inf if there is none; (..., H, W) float32.

    Separable and exact: the distance along the column first, then the least over the row's columns of
    its square plus the square of the way there.
    """
    height, width = sources.shape[-2:]
    row = torch.arange(height, device=sources.device, dtype=torch.float32)[:, None]
    above = torch.where(sources, row, -torch.inf).cummax(-2).values
    below = torch.where(sources, row, torch.inf).flip(-2).cummin(-2).values.flip(-2)
    column = torch.minimum(row - above, below - row).square()
    position = torch.arange(width, device=sources.device, dtype=torch.float32)
    squared = torch.full_like(column, torch.inf)
    for j in range(width):
        squared = torch.minimum(squared, column[..., j : j + 1] + (position - j).square())
    return squared.sqrt()
