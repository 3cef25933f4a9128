"""Detected objects of one image, their masks run-length encoded: small in memory, fit for COCO's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as coco_mask

Rle = dict[str, Any]
"""``{"size": [height, width], "counts": str}``, column-major, as in COCO's results files."""


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects found in one image.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels of the image.
        labels: (N,) int64 class ids.
        scores: (N,) float32, falling.
        masks: N run-length encodings of the image's size.
        size: height and width of the image.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: tuple[Rle, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.masks)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int, float, Rle]]:
        """Yields box, label, score and mask of each object."""
        return zip(self.boxes, self.labels.tolist(), self.scores.tolist(), self.masks, strict=True)

    def mask(self, index: int) -> np.ndarray:
        """Returns one object's mask, (H, W) bool."""
        return decode(self.masks[index])

    def above(self, score: float) -> Detections:
        """Returns those that score at least so much."""
        return self.pick(np.flatnonzero(self.scores >= score))

    def pick(self, indices: Sequence[int] | np.ndarray) -> Detections:
        """Returns the objects at the given positions."""
        rows = np.asarray(indices, np.int64)
        masks = tuple(self.masks[row] for row in rows)
        return Detections(self.boxes[rows], self.labels[rows], self.scores[rows], masks, self.size)

    @classmethod
    def from_model(
        cls, found: Mapping[str, Any], size: tuple[int, int], threshold: float = 0.5
    ) -> Detections:
        """Takes what :class:`~segtrail.models.mask_rcnn.MaskRCNN` returns for one image.

        Args:
            found: arrays (tensors on the CPU) boxes, labels, scores, and masks as (N, m, m)
                probabilities within the boxes.
            size: height and width of the image.
            threshold: probability from which a pixel belongs to the object.
        """
        boxes, probabilities = np.asarray(found["boxes"], np.float32), np.asarray(found["masks"], np.float32)
        masks = tuple(
            encode_crop(*paste(mask, box, size, threshold), size)
            for mask, box in zip(probabilities, boxes, strict=True)
        )
        labels, scores = np.asarray(found["labels"], np.int64), np.asarray(found["scores"], np.float32)
        return cls(boxes, labels, scores, masks, size)


def paste(
    probabilities: np.ndarray, box: np.ndarray, size: tuple[int, int], threshold: float
) -> tuple[np.ndarray, int, int]:
    """Stretches a square mask over its box and cuts it at the image's border.

    The arithmetic is that of torchvision's ``paste_masks_in_image``: one cell of zeros around the mask,
    a box rounded towards zero, bilinear interpolation.

    Args:
        probabilities: (m, m) float.
        box: (4,) xyxy.
        size: height and width of the image.
        threshold: from which a pixel belongs to the object.

    Returns:
        The cut mask, (h, w) bool, and its left and top in the image.
    """
    cells = probabilities.shape[-1]
    half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32((cells + 2) / cells)
    center = (box[2:] + box[:2]) * np.float32(0.5)
    left, top = (int(value) for value in center - half)
    right, bottom = (int(value) for value in center + half)
    extent = (max(right - left + 1, 1), max(bottom - top + 1, 1))
    stretched = cv2.resize(np.pad(probabilities, 1), extent, interpolation=cv2.INTER_LINEAR)
    rows = slice(max(-top, 0), max(size[0] - top, 0))
    columns = slice(max(-left, 0), max(size[1] - left, 0))
    return stretched[rows, columns] >= threshold, max(left, 0), max(top, 0)


def encode(mask: np.ndarray) -> Rle:
    """Encodes one (H, W) mask."""
    return encode_crop(np.asarray(mask, bool), 0, 0, mask.shape[:2])


def encode_crop(crop: np.ndarray, left: int, top: int, size: tuple[int, int]) -> Rle:
    """Encodes a mask that is nonzero only within a crop; costs grow with the crop, not with the image.

    Args:
        crop: (h, w) bool.
        left, top: place of the crop in the image.
        size: height and width of the image.
    """
    height, width = size
    # Column-major, with a zero before and after: runs begin where neighbors differ.
    flat = np.zeros(crop.shape[1] * height + 2, bool)
    flat[1:-1].reshape(-1, height)[:, top : top + crop.shape[0]] = crop.T
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + left * height
    edges = np.concatenate([[0], changes, [height * width]])
    counts = edges[1:] - edges[:-1]
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [int(height), int(width)], "counts": rle["counts"].decode("ascii")}


def decode(rle: Rle) -> np.ndarray:
    """Returns the mask, (H, W) bool."""
    return np.ascontiguousarray(coco_mask.decode(rle)).astype(bool)


def to_coco(
    detections: Detections, image_id: int | str, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Returns entries of a COCO results file: image_id, category_id, bbox as xywh, score, segmentation.

    Args:
        detections: the objects of one image.
        image_id: of the image.
        category_ids: of the classes, in id order; None takes the class ids themselves.
    """
    return [
        {
            "image_id": image_id,
            "category_id": int(label if category_ids is None else category_ids[label]),
            "bbox": [round(float(v), 2) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": round(score, 6),
            "segmentation": rle,
        }
        for box, label, score, rle in detections
    ]
