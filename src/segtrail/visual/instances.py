"""Single objects drawn over their image: masks, boxes, and labels that do not cover one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrail.visual.overlay import as_rgb
from segtrail.visual.palette import default_palette

_CELL = 4  # pixels of the grid on which free places for labels are looked for


def draw_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: Iterable[np.ndarray],
    labels: Sequence[int],
    scores: Sequence[float] | None,
    names: Sequence[str],
    palette: np.ndarray | None = None,
    *,
    opacity: float = 0.45,
    min_side: int = 640,
) -> np.ndarray:
    """Draws objects with colors by class or, without a palette, by object.

    Small images are enlarged by a whole factor, so that the labels can be read. A label that finds no
    place near its object moves to the nearest free one and is tied to the object by a line; when the
    picture is full, the lowest scores stay without.

    Args:
        image: (H, W, 3) uint8 RGB or (H, W) uint8 gray.
        boxes: (N, 4) xyxy.
        masks: N arrays (H, W) bool, which may be made one by one.
        labels: N class ids.
        scores: N scores, or None for the truth.
        names: class names in id order.
        palette: (K, 3) uint8 colors of the classes.
        opacity: of the masks, 0..1.
        min_side: the shorter side of the result is at least about this long.

    Returns:
        (H', W', 3) uint8, where H' and W' are H and W times a whole number.
    """
    base = as_rgb(image)
    scale = max(1, round(min_side / max(1, min(base.shape[:2]))))
    size = (base.shape[1] * scale, base.shape[0] * scale)
    canvas = cv2.resize(base, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else base.copy()
    colors = _colors(labels, palette)
    line = max(1, round(min(size) / 400))
    outlines = []
    for mask, color in zip(masks, colors, strict=True):
        outlines.append(_tint(canvas, mask, color, scale, opacity))
    order = range(len(colors) - 1, -1, -1)  # the best last, on top
    for index in order:
        cv2.drawContours(canvas, outlines[index], -1, _rgb(colors[index]), line, cv2.LINE_AA)
    scaled = np.asarray(boxes, np.float64).reshape(-1, 4) * scale
    for index in order:
        left, top, right, bottom = (round(float(value)) for value in scaled[index])
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), _rgb(colors[index]), line)
    texts = [
        names[label] if scores is None else f"{names[label]} {scores[index]:.2f}"
        for index, label in enumerate(labels)
    ]
    return _write(canvas, scaled, texts, colors)


def _colors(labels: Sequence[int], palette: np.ndarray | None) -> np.ndarray:
    if palette is not None:
        return np.asarray(palette, np.uint8)[np.asarray(labels, np.int64)].reshape(-1, 3)
    distinct = default_palette(32)
    return distinct[np.arange(len(labels)) % len(distinct)]


def _rgb(color: np.ndarray) -> tuple[int, int, int]:
    return int(color[0]), int(color[1]), int(color[2])


def _tint(
    canvas: np.ndarray, mask: np.ndarray, color: np.ndarray, scale: int, opacity: float
) -> list[np.ndarray]:
    """Blends one mask into the canvas, in place, and returns its outlines in canvas pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    crop = np.asarray(mask[top:bottom, left:right], np.uint8)
    if scale > 1:
        crop = crop.repeat(scale, axis=0).repeat(scale, axis=1)
    region = canvas[top * scale : bottom * scale, left * scale : right * scale]
    inside = crop.astype(bool)
    region[inside] = np.rint(region[inside] * (1 - opacity) + color * opacity).astype(np.uint8)
    offset = (int(left * scale), int(top * scale))
    return list(cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=offset)[0])


def _write(canvas: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colors: np.ndarray) -> np.ndarray:
    """Writes the texts near their boxes."""
    text_size = max(12, round(min(canvas.shape[:2]) / 40))
    font = ImageFont.load_default(text_size)
    extents = [(int(font.getlength(text)) + text_size // 2, text_size + text_size // 3) for text in texts]
    places = place_labels(boxes, extents, canvas.shape[:2])
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for index, place in enumerate(places):
        if place is None:
            continue
        (left, top), (width, height), color = place, extents[index], _rgb(colors[index])
        tie = _tie((left, top, left + width, top + height), boxes[index])
        if tie is not None:
            draw.line(tie, fill=color, width=max(1, text_size // 12))
    for index, place in enumerate(places):
        if place is None:
            continue
        (left, top), (width, height), color = place, extents[index], _rgb(colors[index])
        draw.rectangle((left, top, left + width - 1, top + height - 1), fill=color)
        ink = "black" if np.dot(color, (0.299, 0.587, 0.114)) > 140 else "white"
        draw.text((left + text_size // 4, top + height / 2), texts[index], fill=ink, font=font, anchor="lm")
    return np.asarray(picture)


def place_labels(
    boxes: np.ndarray, extents: Sequence[tuple[int, int]], size: tuple[int, int]
) -> list[tuple[int, int] | None]:
    """Finds places for labels that overlap neither one another nor the border.

    Args:
        boxes: (N, 4) xyxy of the objects, the most important first.
        extents: width and height of each label.
        size: height and width of the picture.

    Returns:
        Left and top of each label; None where the picture has no room left.
    """
    height, width = size
    taken = np.zeros((height // _CELL + 1, width // _CELL + 1), np.uint8)
    places: list[tuple[int, int] | None] = []
    for box, (wide, high) in zip(boxes, extents, strict=True):
        place = _beside(box, wide, high, size, taken) or _nearest_free(box, wide, high, size, taken)
        places.append(place)
        if place is not None:
            taken[_cells(place, wide, high)] = 1
    return places


def _cells(place: tuple[int, int], wide: int, high: int) -> tuple[slice, slice]:
    left, top = place
    return (
        slice(top // _CELL, (top + high - 1) // _CELL + 1),
        slice(left // _CELL, (left + wide - 1) // _CELL + 1),
    )


def _beside(
    box: np.ndarray, wide: int, high: int, size: tuple[int, int], taken: np.ndarray
) -> tuple[int, int] | None:
    """The first free place at the box: above, within at the top, below, then the same at its right."""
    left, top, right, bottom = (round(float(value)) for value in box)
    for x in (left, right - wide):
        for y in (top - high, top, bottom, bottom - high):
            fits = 0 <= x <= size[1] - wide and 0 <= y <= size[0] - high
            if fits and not taken[_cells((x, y), wide, high)].any():
                return x, y
    return None


def _nearest_free(
    box: np.ndarray, wide: int, high: int, size: tuple[int, int], taken: np.ndarray
) -> tuple[int, int] | None:
    """The free place nearest to the middle of the box, on the grid."""
    rows, columns = -(-high // _CELL), -(-wide // _CELL)
    most_rows, most_columns = (size[0] - high) // _CELL + 1, (size[1] - wide) // _CELL + 1
    if most_rows < 1 or most_columns < 1:
        return None
    # Sums over every window, by the difference of cumulative sums.
    sums = cv2.integral(taken)
    window = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    free = window[:most_rows, :most_columns] == 0
    if not free.any():
        return None
    ys, xs = np.nonzero(free)
    center = (box[:2] + box[2:]) / 2
    distance = (xs * _CELL + wide / 2 - center[0]) ** 2 + (ys * _CELL + high / 2 - center[1]) ** 2
    best = int(distance.argmin())
    return int(xs[best]) * _CELL, int(ys[best]) * _CELL


def _tie(label: tuple[int, int, int, int], box: np.ndarray) -> tuple[float, float, float, float] | None:
    """The line from a label to its box, where they do not touch."""
    left, top, right, bottom = label
    x = float(np.clip((left + right) / 2, box[0], box[2]))
    y = float(np.clip((top + bottom) / 2, box[1], box[3]))
    touches = left - 1 <= x <= right + 1 and top - 1 <= y <= bottom + 1
    return None if touches else ((left + right) / 2, (top + bottom) / 2, x, y)
