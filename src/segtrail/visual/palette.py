"""Class colors: one per class id, the same for every number of classes."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

VOID_COLOR = (224, 224, 192)
"""Color of pixels without a class, as in PASCAL VOC."""

# Okabe & Ito, "Color Universal Design" (2008), without black; neighbors in the order differ most.
OKABE_ITO = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
# Viénot, Brettel & Mollon 1999: what a protanope and a deuteranope see, on linear RGB.
_PROTANOPIA = ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0))
_DEUTERANOPIA = ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0))


def default_palette(num_classes: int) -> np.ndarray:
    """Colors that stay apart for most color-blind viewers too.

    Starts with the seven colors of Okabe and Ito and goes on with the color that is farthest, in
    CIELAB and under the worst of normal vision, protanopia and deuteranopia, from all before it.
    A palette of K colors is the start of every longer one.

    Args:
        num_classes: K, at most 1000.

    Returns:
        (K, 3) uint8 RGB.

    Raises:
        ValueError: ``num_classes`` is out of range.
    """
    _check_count(num_classes, 1000)
    size = next(size for size in (32, 256, 1000) if num_classes <= size)
    return _farthest_colors(size)[:num_classes].copy()


def voc_palette(num_classes: int) -> np.ndarray:
    """The color map of PASCAL VOC: the bits of the class id dealt out to the bits of R, G and B.

    Args:
        num_classes: K, at most 256; class 0 is black.

    Returns:
        (K, 3) uint8 RGB.

    Raises:
        ValueError: ``num_classes`` is out of range.
    """
    _check_count(num_classes, 256)
    ids = np.arange(num_classes)[:, None]
    channels = np.arange(3)
    colors = np.zeros((num_classes, 3), np.uint8)
    for bit in range(3):  # three bits of the id a channel, the lowest becomes the highest
        colors |= (((ids >> (3 * bit + channels)) & 1) << (7 - bit)).astype(np.uint8)
    return colors


def _check_count(num_classes: int, most: int) -> None:
    if not 1 <= num_classes <= most:
        raise ValueError(f"a palette has 1 to {most} colors, got num_classes={num_classes}")


@cache
def _farthest_colors(count: int) -> np.ndarray:
    levels = np.linspace(0, 255, 11).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    colorful = np.ptp(grid.astype(int), axis=1) >= 50  # grays are kept for void and for images
    bright = _views(grid)[0, :, 0] >= 30  # an outline in it still shows over a dark image
    candidates = np.concatenate([np.array(OKABE_ITO, np.uint8), grid[colorful & bright]])
    views = _views(candidates)
    chosen = list(range(len(OKABE_ITO)))
    distance = np.min([_distance(views, index) for index in chosen], axis=0)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, _distance(views, chosen[-1]))
    return candidates[chosen]


def _views(colors: np.ndarray) -> np.ndarray:
    """(3, N, 3) CIELAB of (N, 3) uint8 colors: seen normally and by two kinds of dichromats."""
    srgb = colors.astype(np.float32) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = [linear, linear @ np.array(_PROTANOPIA).T, linear @ np.array(_DEUTERANOPIA).T]
    pixels = np.stack(seen).clip(0, 1).astype(np.float32)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_LRGB2LAB))


def _distance(views: np.ndarray, index: int) -> np.ndarray:
    return np.linalg.norm(views - views[:, index : index + 1], axis=2).min(axis=0)
