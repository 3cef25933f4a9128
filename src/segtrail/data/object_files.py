"""Objects in the file that a run keeps of a sample, and as a label map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from segtrail.data.detections import Detections, Rle, decode


def objects_json(
    objects: Sequence[dict[str, Any]],
    size: tuple[int, int],
    class_names: Sequence[str],
    palette: np.ndarray,
    step: int,
) -> bytes:
    """Encodes the objects of one sample.

    Args:
        objects: COCO-like entries; their image id is left out.
        size: height and width of the image.
        class_names: in id order.
        palette: (K, 3) uint8.
        step: of training.
    """
    classes = [
        {"id": index, "name": name, "color": [int(channel) for channel in color]}
        for index, (name, color) in enumerate(zip(class_names, palette, strict=True))
    ]
    kept = [{key: value for key, value in entry.items() if key != "image_id"} for entry in objects]
    content = {"size": list(size), "step": step, "classes": classes, "objects": kept}
    return json.dumps(content, separators=(",", ":")).encode()


def paint(masks: Sequence[Rle], labels: Sequence[int], size: tuple[int, int], void: int) -> np.ndarray:
    """Makes a label map from objects, the first ones on top.

    Args:
        masks: run-length encodings.
        labels: their class ids.
        size: height and width.
        void: fills pixels without an object.

    Returns:
        (H, W) uint8, or int32 if an id does not fit.
    """
    largest = max([void, *labels])
    label_map = np.full(size, void, np.uint8 if 0 <= largest <= 255 and void >= 0 else np.int32)
    for mask, label in zip(reversed(masks), reversed(labels), strict=True):
        label_map[decode(mask)] = label
    return label_map


def label_map(detections: Detections, void: int) -> np.ndarray:
    """Paints detections, see :func:`paint`."""
    return paint(detections.masks, detections.labels.tolist(), detections.size, void)
