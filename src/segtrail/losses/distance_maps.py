"""Distance maps of label maps as tensors: by OpenCV on the CPU, by batched tensor operations elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from torch import Tensor

from segtrail.data import derived


def distances(labels: Tensor, valid: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Batched form of :func:`segtrail.data.derived.distances`.

    Args:
        labels: (N, H, W) int64 class ids.
        valid: (N, H, W) bool, false at void pixels.
        num_classes: K.

    Returns:
        (N, K, H, W) float32 distance to the nearest pixel of each class and (N, H, W) float32 distance
        to the nearest pixel of another class, with the zeros described there.
    """
    on_device = _distances_opencv if labels.device.type == "cpu" else _distances_batched
    return on_device(torch.where(valid, labels, -1), num_classes)


def signed_distances(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Batched :func:`segtrail.data.derived.signed_distance`, (B, C, H, W), for both kinds of labels."""
    return _per_class(labels, valid, num_classes, lambda inside: torch.where(inside > 0, 1 - inside, 0))


def contour_distances(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Batched :func:`segtrail.data.derived.contour_distance`, (B, C, H, W), for both kinds of labels."""
    return _per_class(labels, valid, num_classes, lambda inside: inside)


def label_distances(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Batched :func:`segtrail.data.derived.label_distance`, of the labels' shape."""
    if labels.ndim == 3:
        return distances(labels, valid, num_classes)[1]
    return distances(labels.flatten(0, 1), valid.flatten(0, 1), 2)[1].view(labels.shape)


def _per_class(
    labels: Tensor, valid: Tensor, num_classes: int, of_inside: Callable[[Tensor], Tensor]
) -> Tensor:
    independent = labels.ndim == 4
    planes = labels.flatten(0, 1) if independent else labels
    known = valid.flatten(0, 1) if independent else valid
    outside, inside = distances(planes, known, 2 if independent else num_classes)
    outside.scatter_(1, planes.unsqueeze(1), of_inside(inside).unsqueeze(1))
    return outside[:, 1].reshape(labels.shape) if independent else outside


@torch.compiler.disable
def _distances_opencv(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    outside = torch.zeros(len(labels), num_classes, *labels.shape[1:])
    inside = torch.empty(labels.shape)

    def image(label: np.ndarray, out: np.ndarray, of_others: np.ndarray) -> None:
        of_others[:] = derived.distances(label, num_classes, out)[1]

    # images side by side, so that OpenCV's own threads would only wait for each other
    opencv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # OpenCV releases the interpreter lock
            list(pool.map(image, labels.int().numpy(), outside.numpy(), inside.numpy()))
    finally:
        cv2.setNumThreads(opencv_threads)
    return outside, inside


def _distances_batched(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    classes = torch.arange(num_classes, device=labels.device)[:, None, None]
    sources = labels.unsqueeze(1) == classes
    outside = _euclidean(sources)
    inside = outside.masked_fill(sources, torch.inf).amin(1)
    void = labels < 0
    inside = inside.masked_fill(void | inside.isinf(), 0)
    return outside.masked_fill(void.unsqueeze(1) | outside.isinf(), 0), inside


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
