"""Objects of an image: boxes, pieces, and the two ways from objects to a semantic mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from segtrail.data.types import Instances


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """(N, 4) float32 xyxy boxes, right and bottom exclusive, of (N, H, W) masks; zeros if empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def make_instances(
    masks: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[int],
    iscrowd: Sequence[bool],
    size: Sequence[int],
) -> Instances:
    """Objects from one mask each; ``size`` (height, width) matters where there are none."""
    stacked = np.array(masks, bool).reshape(-1, *size)
    return Instances(stacked, np.array(labels, np.int64), boxes_of(stacked), np.array(iscrowd, bool))


def connected_objects(mask: np.ndarray, class_ids: Iterable[int], smallest: int) -> Instances:
    """Connected pieces (8 neighbors) of the given classes with at least ``smallest`` pixels."""
    masks: list[np.ndarray] = []
    labels: list[int] = []
    for class_id in class_ids:
        count, pieces, stats, _ = cv2.connectedComponentsWithStats((mask == class_id).astype(np.uint8))
        for piece in range(1, count):
            if stats[piece, cv2.CC_STAT_AREA] >= smallest:
                masks.append(pieces == piece)
                labels.append(class_id)
    return make_instances(masks, labels, [False] * len(masks), mask.shape)


def paint_large_to_small(objects: Instances, background: int, ignore_index: int) -> np.ndarray:
    """Semantic mask in which small objects lie on top of large ones; crowds are void.

    Returns:
        (H, W) int32 class ids.
    """
    mask = np.full(objects.masks.shape[1:], background, np.int32)
    areas = objects.masks.sum(axis=(1, 2))
    # Crowds first: a single object inside of one is known.
    order = np.lexsort((-areas, ~objects.iscrowd))
    for index in order:
        mask[objects.masks[index]] = ignore_index if objects.iscrowd[index] else objects.labels[index]
    return mask


def paint_overlap_void(objects: Instances, background: int, ignore_index: int) -> np.ndarray:
    """Semantic mask in which pixels of several objects are void.

    Returns:
        (H, W) int32 class ids.
    """
    mask = np.full(objects.masks.shape[1:], background, np.int32)
    for object_mask, label in zip(objects.masks, objects.labels, strict=True):
        mask[object_mask] = label
    mask[objects.masks.sum(axis=0) > 1] = ignore_index
    return mask
