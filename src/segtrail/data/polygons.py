"""Masks as polygons, and objects as the annotation files that people correct."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from segtrail.data.detections import Detections


def polygons(mask: np.ndarray, tolerance: float = 0.0) -> list[np.ndarray]:
    """Outlines of a mask's connected parts; a hole is joined to its outline by a cut.

    The outlines run a quarter of a pixel within the pixels' edges, so that a rasterizer that looks at the
    pixels' centers, such as pycocotools', gives the mask back if the tolerance is 0.

    Args:
        mask: (H, W) bool.
        tolerance: pixels by which an outline may be simplified; fewer points are easier to correct.

    Returns:
        One (P, 2) float64 array of x, y for each part, in pixels.
    """
    doubled = np.asarray(mask, np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tree is None:
        return []
    parts = []
    for index, (_, _, child, parent) in enumerate(tree[0]):
        if parent >= 0:
            continue
        outline = _simplified(contours[index], tolerance)
        while child >= 0:
            # A hole is outlined by the pixels around it: where its edge is to be cut.
            outline = _joined(outline, _simplified(contours[child], tolerance))
            child = tree[0][child][0]
        parts.append((outline + 0.5) / 2)
    return parts


def _simplified(contour: np.ndarray, tolerance: float) -> np.ndarray:
    """(P, 2) points, at least three."""
    points = contour[:, 0].astype(np.float64)
    if tolerance:
        simple = cv2.approxPolyDP(contour, 2 * tolerance, closed=True)[:, 0].astype(np.float64)
        points = simple if len(simple) >= 3 else points
    return points


def _joined(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One polygon that runs along the outline, over a cut around the hole, and back."""
    distance = ((outline[:, None] - hole[None]) ** 2).sum(-1)
    here, there = np.unravel_index(distance.argmin(), distance.shape)
    around = np.concatenate([hole[there:], hole[: there + 1]])
    return np.concatenate([outline[: here + 1], around, outline[here:]])


def to_labelme(
    detections: Detections, class_names: Sequence[str], image_path: str, tolerance: float = 0.5
) -> dict[str, Any]:
    """Returns a labelme file's content; the parts of one object share a group id.

    Args:
        detections: the objects of one image.
        class_names: in id order.
        image_path: of the image, relative to the file.
        tolerance: see :func:`polygons`.
    """
    shapes = []
    for number, (_, label, score, _) in enumerate(detections):
        parts = polygons(detections.mask(number), tolerance)
        shapes += [
            {
                "label": class_names[label],
                "points": part.round(2).tolist(),
                "group_id": number if len(parts) > 1 else None,
                "description": f"score {score:.3f}",
                "shape_type": "polygon",
                "flags": {},
            }
            for part in parts
        ]
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": detections.size[0],
        "imageWidth": detections.size[1],
    }


def to_coco_annotations(
    detections: Detections,
    image_id: int,
    first_id: int,
    category_ids: Sequence[int],
    tolerance: float = 0.5,
) -> list[dict[str, Any]]:
    """Returns entries of a COCO annotation file, with polygons, as annotation tools read them.

    Args:
        detections: the objects of one image.
        image_id: of the image.
        first_id: of the first entry.
        category_ids: of the classes, in id order.
        tolerance: see :func:`polygons`.
    """
    entries: list[dict[str, Any]] = []
    for number, (_, label, score, _) in enumerate(detections):
        mask = detections.mask(number)
        parts = polygons(mask, tolerance)
        if not parts:
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        entries.append(
            {
                "id": first_id + len(entries),
                "image_id": image_id,
                "category_id": category_ids[label],
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "area": int(mask.sum()),
                "segmentation": [part.round(2).ravel().tolist() for part in parts],
                "iscrowd": 0,
                "score": round(score, 6),
            }
        )
    return entries
