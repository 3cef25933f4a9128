"""Run-length encoding and pasting against pycocotools and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segtrail.data.detections import Detections, decode, encode, encode_crop, paste, to_coco


@pytest.mark.parametrize("kind", ["noise", "empty", "full", "corner", "last column", "one pixel"])
def test_encoding_is_pycocotools(kind: str) -> None:
    mask = np.random.default_rng(0).random((13, 7)) < 0.5 if kind == "noise" else np.zeros((13, 7), bool)
    if kind == "full":
        mask[:] = True
    elif kind == "corner":
        mask[-3:, -2:] = True
    elif kind == "last column":
        mask[:, -1] = True
    elif kind == "one pixel":
        mask[0, 0] = True
    expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    rle = encode(mask)
    assert rle == {"size": [13, 7], "counts": expected["counts"].decode()}
    np.testing.assert_array_equal(decode(rle), mask)


def test_encoding_a_crop_is_encoding_the_image() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        height, width = generator.integers(1, 20, 2)
        top, left = generator.integers(0, height), generator.integers(0, width)
        crop = (
            generator.random(
                (generator.integers(1, height - top + 1), generator.integers(1, width - left + 1))
            )
            < 0.7
        )
        mask = np.zeros((height, width), bool)
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        assert encode_crop(crop, int(left), int(top), (int(height), int(width))) == encode(mask)


def test_pasting_is_torchvisions() -> None:
    generator = torch.Generator().manual_seed(0)
    size = (40, 50)
    corner = torch.rand(30, 2, generator=generator) * torch.tensor([45.0, 35.0]) - 4
    extent = torch.rand(30, 2, generator=generator) * 30
    extent[:3] = 0.5  # smaller than a pixel
    boxes = torch.cat([corner, corner + extent], 1)
    masks = torch.rand(30, 28, 28, generator=generator)
    expected = paste_masks_in_image(masks[:, None], boxes, size)[:, 0]
    for index in range(30):
        box = boxes[index].numpy()
        for threshold in (0.3, 0.5):
            crop, left, top = paste(masks[index].numpy(), box, size, threshold)
            image = np.zeros(size, bool)
            image[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
            certain = (expected[index].numpy() - threshold).__abs__() > 1e-5
            np.testing.assert_array_equal(image[certain], (expected[index].numpy() >= threshold)[certain])


def test_from_model_and_to_coco() -> None:
    found = {
        "boxes": torch.tensor([[2.0, 3.0, 12.0, 9.0], [0.0, 0.0, 1.0, 1.0], [-9.0, -9.0, -5.0, -5.0]]),
        "labels": torch.tensor([2, 1, 1]),
        "scores": torch.tensor([0.9, 0.4, 0.3]),
        "masks": torch.ones(3, 28, 28),
    }
    detections = Detections.from_model(found, (20, 30))
    assert len(detections) == 3
    assert detections.mask(0)[3:9, 2:12].all()
    assert not detections.mask(2).any()
    assert len(detections.above(0.5)) == 1
    entry = to_coco(detections, "photo", category_ids=[0, 7, 44])[0]
    assert (entry["category_id"], entry["bbox"], entry["image_id"]) == (44, [2.0, 3.0, 10.0, 6.0], "photo")
    empty = Detections.from_model({key: value[:0] for key, value in found.items()}, (20, 30))
    assert len(empty) == 0
    assert to_coco(empty, 1) == []


def test_thousand_objects() -> None:
    boxes = np.random.default_rng(0).uniform(0, 500, (1000, 4)).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + 9
    found = {
        "boxes": boxes,
        "labels": np.zeros(1000),
        "scores": np.linspace(1, 0, 1000),
        "masks": np.ones((1000, 28, 28)),
    }
    detections = Detections.from_model(found, (512, 512))
    assert len({rle["counts"] for rle in detections.masks}) > 900
