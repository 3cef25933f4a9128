"""Masks as polygons and label maps, and objects in annotation files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.data.detections import Detections, encode
from segtrail.data.object_files import label_map, objects_json, paint
from segtrail.data.polygons import polygons, to_coco_annotations, to_labelme


def rasterized(parts: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    encoded = coco_mask.frPyObjects([part.ravel().tolist() for part in parts], *size)
    return coco_mask.decode([coco_mask.merge(encoded)])[..., 0].astype(bool)


def special(kind: str) -> np.ndarray:
    mask = np.zeros((9, 9), bool)
    if kind == "pixel":
        mask[0, 0] = True
    elif kind == "two parts":
        mask[0, 0] = mask[5:8, 4:9] = True
    elif kind == "holes":
        mask[:] = True
        mask[4, 4] = mask[2, 6] = mask[6, 6:8] = False
    elif kind == "nested":
        mask[:] = True
        mask[2:7, 2:7] = False
        mask[4, 4] = True
    return mask


def detections(*masks: np.ndarray) -> Detections:
    count = len(masks)
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (count, 1))
    scores = np.linspace(0.9, 0.1, count, dtype=np.float32)
    return Detections(boxes, np.arange(count), scores, tuple(encode(mask) for mask in masks), (9, 9))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_polygons_give_the_masks_back() -> None:
    dataset = ShapesDataset("train", num_samples=12, size=64, num_classes=7, instances=True)  # rings too
    masks = [mask for index in range(12) for mask in dataset[index].instances.masks]
    masks += [special(kind) for kind in ("pixel", "two parts", "holes", "nested")]
    for mask in masks:
        np.testing.assert_array_equal(rasterized(polygons(mask), mask.shape), mask)
        simple = rasterized(polygons(mask, 0.5), mask.shape)
        if mask.sum() > 50:
            assert (simple & mask).sum() / (simple | mask).sum() > 0.85
    assert polygons(np.zeros((3, 3), bool)) == []


def test_labelme_keeps_parts_together() -> None:
    content = to_labelme(detections(special("two parts"), special("pixel")), ["a", "b"], "../photo.jpg")
    assert [(s["label"], s["group_id"]) for s in content["shapes"]] == [("a", 0), ("a", 0), ("b", None)]
    assert content["imagePath"] == "../photo.jpg"
    assert (content["imageHeight"], content["imageWidth"]) == (9, 9)
    json.dumps(content)


def test_coco_annotations() -> None:
    entries = to_coco_annotations(detections(special("two parts"), np.zeros((9, 9), bool)), 7, 100, [1, 2])
    assert len(entries) == 1  # nothing is left to annotate of an empty mask
    assert (entries[0]["id"], entries[0]["image_id"], entries[0]["category_id"]) == (100, 7, 1)
    assert entries[0]["bbox"] == [0, 0, 9, 8]
    assert entries[0]["area"] == 16


def test_label_map_has_the_best_on_top() -> None:
    found = detections(special("pixel"), special("holes"))
    painted = label_map(found, 255)
    assert painted[0, 0] == 0
    assert painted[0, 1] == 1
    assert painted[4, 4] == 255
    assert painted.dtype == np.uint8
    assert paint([], [], (2, 3), -1).dtype == np.int32


def test_file_of_objects() -> None:
    content = objects_json(
        [{"image_id": 3, "category_id": 1, "score": 0.5}],
        (4, 6),
        ["a", "b"],
        np.eye(2, 3, dtype=np.uint8),
        12,
    )
    read = json.loads(content)
    assert read["objects"] == [{"category_id": 1, "score": 0.5}]
    assert (read["size"], read["step"]) == ([4, 6], 12)
    assert read["classes"][1] == {"id": 1, "name": "b", "color": [0, 1, 0]}
