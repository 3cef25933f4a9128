"""What crosses from files on disk to the loader: plain numpy containers, no tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DerivedTarget = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
"""``f(image (H, W, 3) uint8, mask (H, W) int, num_classes, ignore_index) -> array``.

Computed in loader workers on the augmented sample, only when a model or a loss lists it in its
``derived`` mapping. The leading axes of the result are collated into the batch.
"""


class DataError(Exception):
    """Bad input data; the message is one line that names the file, the fault, and the mend."""


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Class names in id order, with one display color each.

    Attributes:
        names: K class names; the position is the class id.
        palette: (K, 3) uint8 RGB colors.
    """

    names: tuple[str, ...]
    palette: np.ndarray


@dataclass(frozen=True, slots=True)
class Instances:
    """Objects of one image.

    Attributes:
        masks: (N, H, W) bool.
        labels: (N,) int64 class ids into the dataset's ``class_names``.
        boxes: (N, 4) float32, xyxy in pixels, right and bottom exclusive.
        iscrowd: (N,) bool, true for regions that stand for a group.
    """

    masks: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    iscrowd: np.ndarray


@dataclass(frozen=True, slots=True)
class Sample:
    """What a dataset returns, before augmentation.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 or int32 class ids, ``ignore_index`` where void.
        id: stable, unique name of the sample within its dataset.
        instances: the objects, where the data has them.
    """

    image: np.ndarray
    mask: np.ndarray
    id: str
    instances: Instances | None = None
