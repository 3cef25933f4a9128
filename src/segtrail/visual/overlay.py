"""Label maps drawn in color: alone, over their image, with outlines, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrail.visual.palette import VOID_COLOR


def colorize(label_map: np.ndarray, palette: np.ndarray, ignore_index: int = 255) -> np.ndarray:
    """Gives every class id its color.

    Args:
        label_map: (H, W) integer class ids.
        palette: (K, 3) uint8 RGB.
        ignore_index: the id drawn in ``VOID_COLOR``.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the label map holds an id that has no color.
    """
    label_map = np.asarray(label_map)
    void = label_map == ignore_index
    ids = np.where(void, 0, label_map)
    if ids.size and (ids.min() < 0 or ids.max() >= len(palette)):
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"label map holds id {bad}, but the palette has {len(palette)} colors (ids from 0)")
    colors = np.asarray(palette, np.uint8)[ids]
    colors[void] = VOID_COLOR
    return colors


def boundaries(label_map: np.ndarray, thickness: int = 1) -> np.ndarray:
    """Pixels on the edge between two ids, on both of its sides.

    Args:
        label_map: (H, W) integer ids.
        thickness: pixels on each side of the edge.

    Returns:
        (H, W) bool.
    """
    label_map = np.asarray(label_map)
    edge = np.zeros(label_map.shape, bool)
    for axis in (0, 1):
        changes = np.diff(label_map, axis=axis) != 0
        head, tail = [slice(None)] * 2, [slice(None)] * 2
        head[axis], tail[axis] = slice(None, -1), slice(1, None)
        edge[tuple(head)] |= changes
        edge[tuple(tail)] |= changes
    if thickness > 1:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thickness - 1,) * 2)
        edge = cv2.dilate(edge.astype(np.uint8), kernel).astype(bool)
    return edge


def overlay(
    image: np.ndarray,
    label_map: np.ndarray,
    palette: np.ndarray,
    *,
    opacity: float = 0.5,
    contour: int = 1,
    hidden: Sequence[int] = (),
    ignore_index: int = 255,
) -> np.ndarray:
    """Blends a label map over its image and outlines the classes.

    Args:
        image: (H, W, 3) uint8 RGB or (H, W) uint8 gray.
        label_map: (H, W) integer class ids.
        palette: (K, 3) uint8 RGB.
        opacity: weight of the colors, 0..1; outlines are opaque.
        contour: thickness of the outlines in pixels, 0 for none.
        hidden: ids that stay transparent, such as the background's. Void always does.
        ignore_index: the id of void.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: sizes differ, or an id has no color.
    """
    base = as_rgb(image)
    label_map = np.asarray(label_map)
    if base.shape[:2] != label_map.shape:
        raise ValueError(f"image is {base.shape[:2]} (H, W), label map is {label_map.shape}")
    colors = colorize(label_map, palette, ignore_index)
    shown = ~np.isin(label_map, [ignore_index, *hidden])
    blended = cv2.addWeighted(base, 1 - opacity, colors, opacity, 0)
    result = np.where(shown[..., None], blended, base)
    if contour:
        line = boundaries(label_map, contour) & shown
        result[line] = colors[line]
    return result


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W) gray or (H, W, 3) RGB, both uint8, as (H, W, 3) uint8."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"expected (H, W) or (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def legend(names: Sequence[str], palette: np.ndarray, width: int, text_size: int = 12) -> np.ndarray:
    """A white strip of color boxes and class names, in as many rows as its width needs.

    Args:
        names: K class names.
        palette: (K, 3) uint8 RGB.
        width: width of the strip in pixels; a longer name is cut off there.
        text_size: height of the letters in pixels.

    Returns:
        (H, width, 3) uint8.
    """
    font = ImageFont.load_default(text_size)
    box, gap, row_height = text_size, text_size // 2, text_size + text_size // 2
    places, x, y = [], gap, 0
    for name in names:
        item = box + gap + int(font.getlength(name))
        if x > gap and x + item > width:
            x, y = gap, y + row_height
        places.append((x, y))
        x += item + 2 * gap
    strip = Image.new("RGB", (width, y + row_height + gap), "white")
    draw = ImageDraw.Draw(strip)
    for name, color, (left, top) in zip(names, palette, places, strict=True):
        top += gap
        corners = (left, top, left + box - 1, top + box - 1)
        draw.rectangle(corners, fill=tuple(int(c) for c in color), outline=(96, 96, 96))
        draw.text((left + box + gap, top + box / 2), name, fill="black", font=font, anchor="lm")
    return np.asarray(strip)
