"""Targets derived from a mask: distances and edges, computed in loader workers after augmentation."""

from __future__ import annotations

import cv2
import numpy as np

VOID_EDGE = 255


def edges(
    image: np.ndarray, mask: np.ndarray, num_classes: int, ignore_index: int, radius: int = 2
) -> np.ndarray:
    """Pixels with another class within a disk around them, as in Gated-SCNN (Takikawa et al., 2019).

    The image's border is no edge, and void is no class: it makes no edges.

    Args:
        image: not used.
        mask: (H, W) class ids.
        num_classes: not used.
        ignore_index: label of void pixels.
        radius: of the disk, in pixels.

    Returns:
        (H, W) uint8: 1 at edges, 0 elsewhere, 255 at void pixels whatever ``ignore_index`` is.
    """
    span = np.arange(-radius, radius + 1)
    disk = (span[:, None] ** 2 + span**2 <= radius**2).astype(np.uint8)
    void = mask == ignore_index
    labels = mask.astype(np.uint8 if mask.dtype == np.uint8 else np.float32)
    top = np.iinfo(np.uint8).max if labels.dtype == np.uint8 else np.finfo(np.float32).max
    highest = cv2.dilate(np.where(void, labels.dtype.type(0), labels), disk)
    lowest = cv2.erode(np.where(void, labels.dtype.type(top), labels), disk)
    result = (highest != lowest).astype(np.uint8)
    result[void] = VOID_EDGE
    return result


def canny(
    image: np.ndarray,
    mask: np.ndarray,
    num_classes: int,
    ignore_index: int,
    low: float = 10,
    high: float = 100,
) -> np.ndarray:
    """Edges of the image after Canny (1986), the second input of Gated-SCNN's shape stream.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask, num_classes, ignore_index: not used.
        low, high: the thresholds of the hysteresis, on uint8 gradients.

    Returns:
        (H, W) uint8: 1 at edges, 0 elsewhere.
    """
    return (cv2.Canny(image, low, high) > 0).astype(np.uint8)


def signed_distance(image: np.ndarray, mask: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Signed distance to each class's region, as in the boundary loss (Kervadec et al., 2019).

    d outside the region and -(d - 1) inside, d being the Euclidean distance to the nearest pixel of
    the other side. 0 where there is no other side: classes without a pixel, and the only one present.
    Void belongs to no side and is 0.

    Args:
        image: not used.
        mask: (H, W) class ids.
        num_classes: K; 1 stands for the foreground of a mask of zeros and ones.
        ignore_index: label of void pixels.

    Returns:
        (K, H, W) float32, in pixels.
    """
    return _per_class(mask, num_classes, ignore_index, signed=True)


def contour_distance(image: np.ndarray, mask: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Unsigned distance to each class's contour, from either side, as in the Hausdorff loss.

    Args, void and absent classes as in :func:`signed_distance`.

    Returns:
        (K, H, W) float32, in pixels: d inside and outside.
    """
    return _per_class(mask, num_classes, ignore_index, signed=False)


def label_distance(image: np.ndarray, mask: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Distance of every pixel to the nearest pixel of another class.

    Args, as in :func:`signed_distance`.

    Returns:
        (H, W) float32, in pixels; 0 at void pixels and where there is only one class.
    """
    _, inside, _ = _distances(_void_to_minus_one(mask, ignore_index), max(2, num_classes))
    return inside


def _per_class(mask: np.ndarray, num_classes: int, ignore_index: int, signed: bool) -> np.ndarray:
    labels = _void_to_minus_one(mask, ignore_index)
    outside, inside, present = _distances(labels, max(2, num_classes))
    if signed:
        inside = np.where(inside > 0, 1 - inside, 0)
    for c in present:
        np.copyto(outside[c], inside, where=labels == c)
    return outside[1:] if num_classes == 1 else outside


def _void_to_minus_one(mask: np.ndarray, ignore_index: int) -> np.ndarray:
    labels = mask.astype(np.int32)
    labels[mask == ignore_index] = -1
    return labels


def _distances(labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the pixels of each class, by one transform for each class that is present.

    The distance from inside a region to its outside needs no transform of its own: it is the least of
    the distances to the other classes.

    Args:
        labels: (H, W) int32 class ids, negative for void.
        num_classes: K.

    Returns:
        (K, H, W) float32 distance to the nearest pixel of the class, 0 at void pixels and for absent
        classes; (H, W) float32 distance to the nearest pixel of another class, 0 at void pixels and if
        there is none; the ids of the classes that are present.
    """
    outside = np.zeros((num_classes, *labels.shape), np.float32)
    # the nearest class of a pixel is its own, at distance 0; the next one is what lies outside
    nearest, inside = np.full((2, *labels.shape), np.inf, np.float32)
    present = classes_present(labels)
    for c in present:
        distance = to_class(labels, c, outside[c])
        np.minimum(inside, np.maximum(nearest, distance), out=inside)
        np.minimum(nearest, distance, out=nearest)
    if len(present) < 2:
        inside[:] = 0
    known = labels >= 0
    if not known.all():
        outside *= known
        inside *= known
    return outside, inside, present


def classes_present(labels: np.ndarray) -> np.ndarray:
    """Ids of the classes with a pixel, ascending, of (H, W) integers of at least -1, which is void."""
    return np.flatnonzero(np.bincount(labels.ravel() + 1)[1:])


def to_class(labels: np.ndarray, c: int, out: np.ndarray) -> np.ndarray:
    """Euclidean distance of every pixel to the nearest one of class c, of which there is at least one.

    Args:
        labels: (H, W) integers.
        c: the class.
        out: (H, W) float32, written to.

    Returns:
        ``out``.
    """
    elsewhere = (labels != c).view(np.uint8)
    return cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE, dst=out, dstType=cv2.CV_32F)
