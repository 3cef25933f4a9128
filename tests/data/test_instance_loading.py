"""Objects through the loader: in step with the image, pasted, batched by shape, and awkward ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image

from segtrail.data.datasets.shapes import ShapesDataset, boxes_of
from segtrail.data.detections import decode
from segtrail.data.instances import (
    AspectRatioSampler,
    InstanceAugmentation,
    InstanceDataModule,
    InstanceSamples,
    aspect_ratio_groups,
    collate,
    paste_objects,
)
from segtrail.data.types import DataError, Instances, Sample


def objects(masks: np.ndarray, labels: list[int], crowd: list[bool] | None = None) -> Instances:
    iscrowd = np.array(crowd or [False] * len(labels), bool)
    return Instances(masks, np.array(labels, np.int64), boxes_of(masks), iscrowd)


@dataclass
class Listed:
    """A dataset of given samples."""

    samples: list[Sample]
    ignore_index: int = 255
    ids: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def sample(instances: Instances | None, size: tuple[int, int] = (20, 30), value: int = 50) -> Sample:
    return Sample(np.full((*size, 3), value, np.uint8), np.zeros(size, np.uint8), "only", instances)


def module(**options: Any) -> InstanceDataModule:
    def make(split: str, instances: bool) -> ShapesDataset:
        return ShapesDataset(split, num_samples=8, size=48, instances=instances)

    found = {"dataset": make, "splits": ("train", "val"), "num_classes": 4, "num_workers": 0, "batch_size": 2}
    return InstanceDataModule(**(found | options))


def test_boxes_and_masks_follow_the_image() -> None:
    """The image is painted with the masks: after any augmentation they must still coincide."""
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 5:25, 10:40] = True
    masks[1, 30:55, 50:75] = True
    image = np.zeros((60, 80, 3), np.uint8)
    image[..., 0], image[..., 1] = masks[0] * 255, masks[1] * 255
    transforms = [
        A.HorizontalFlip(p=0.5),
        A.RandomScale((-0.3, 0.3), interpolation=0, p=1),
        A.Affine(rotate=20, interpolation=0, p=1),
        A.PadIfNeeded(50, 50, border_mode=0, fill_mask=255, p=1),  # as for label maps
        A.RandomCrop(30, 40),
    ]
    augmentation = InstanceAugmentation(transforms)
    seen = 0
    for key in range(20):
        painted, moved = augmentation.sample(
            Sample(image, masks[0].astype(np.uint8), "s"), objects(masks, [1, 2]), (0, 0, key)
        )
        assert painted.shape[:2] == moved.masks.shape[1:]
        np.testing.assert_array_equal(moved.boxes, boxes_of(moved.masks))
        for mask, label in zip(moved.masks, moved.labels, strict=True):
            np.testing.assert_array_equal(painted[..., label - 1] > 127, mask)
            seen += 1
        again, _ = augmentation.sample(
            Sample(image, masks[0].astype(np.uint8), "s"), objects(masks, [1, 2]), (0, 0, key)
        )
        np.testing.assert_array_equal(again, painted)
    assert 10 < seen < 40  # cropped away sometimes, not always


def test_items_hold_what_torchvision_wants() -> None:
    loader = module()
    loader.trainer = None
    batch = next(iter(loader.train_dataloader()))
    assert batch["image"][0].dtype == torch.uint8
    assert batch["image"][0].shape == (3, 48, 48)
    target = batch["targets"][0]
    count = len(target["labels"])
    assert target["boxes"].shape == (count, 4)
    assert target["boxes"].dtype == torch.float32
    assert target["masks"].shape == (count, 48, 48)
    assert target["masks"].dtype == torch.uint8
    assert target["labels"].dtype == torch.int64
    assert batch["truth"] == [[], []]
    evaluated = next(iter(loader.val_dataloader()))
    entry = evaluated["truth"][0][0]
    mask = evaluated["targets"][0]["masks"][0].numpy().astype(bool)
    np.testing.assert_array_equal(decode(entry["segmentation"]), mask)
    assert entry["area"] == mask.sum()
    assert evaluated["ids"] == ["val-00000", "val-00001"]
    assert evaluated["indices"].tolist() == [0, 1]


def test_images_without_objects_crowds_and_one_pixel() -> None:
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 3:9, 4:8] = True
    masks[1, 0, 0] = True
    masks[2, 10:, :] = True
    mixed = objects(masks, [1, 2, 3], [False, False, True])
    dataset = Listed([sample(mixed), sample(objects(np.zeros((0, 20, 30), bool), []))])
    plain, flip = InstanceAugmentation(), InstanceAugmentation([A.HorizontalFlip(p=1)])
    for augmentation in (plain, flip):
        training = InstanceSamples(dataset, augmentation)[0, 0]
        assert training["targets"]["labels"].tolist() == [1, 2]  # torchvision has no crowds
        boxes = training["targets"]["boxes"]
        assert (boxes[:, 2:] - boxes[:, :2]).min() == 1
        truth = InstanceSamples(dataset, augmentation, training=False)[0, 0]["truth"]
        assert [item["iscrowd"] for item in truth] == [0, 0, 1]
        empty = InstanceSamples(dataset, augmentation)[0, 1]
        assert empty["targets"]["boxes"].shape == (0, 4)
        assert empty["targets"]["masks"].shape == (0, 20, 30)
    batch = collate([InstanceSamples(dataset, plain)[0, index] for index in (0, 1)])
    assert batch["sizes"].tolist() == [[20, 30], [20, 30]]


def test_a_dataset_without_objects_is_told() -> None:
    with pytest.raises(DataError, match="has no objects") as caught:
        InstanceSamples(Listed([sample(None)]), InstanceAugmentation())[0, 0]
    assert "\n" not in str(caught.value)


def test_thousand_objects() -> None:
    masks = np.zeros((1000, 40, 40), bool)
    masks[np.arange(1000), np.arange(1000) // 40, np.arange(1000) % 40] = True
    dataset = Listed([sample(objects(masks, [1] * 1000), (40, 40))])
    item = InstanceSamples(dataset, InstanceAugmentation([A.HorizontalFlip(p=1)]), training=False)[0, 0]
    assert item["targets"]["boxes"].shape == (1000, 4)
    assert len(item["truth"]) == 1000


def test_pasting_hides_what_is_below() -> None:
    below = np.zeros((3, 20, 30), bool)
    below[0, 2:12, 2:12] = True  # half hidden
    below[1, 5:8, 8:11] = True  # hidden
    below[2, 15:18, 20:25] = True
    above = np.zeros((2, 16, 16), bool)
    above[0, 0:14, 7:16] = True
    above[1, 15, 0] = True
    image, source = np.full((20, 30, 3), 50, np.uint8), np.full((16, 16, 3), 200, np.uint8)
    pasted, found = paste_objects(
        image, objects(below, [1, 2, 3]), source, objects(above, [4, 5]), min_visible=0.1
    )
    assert found.labels.tolist() == [1, 3, 4, 5]
    assert (pasted[found.masks[2] | found.masks[3]] == 200).all()
    assert (pasted[found.masks[0]] == 50).all()
    assert (found.masks.sum(0) <= 1).all()
    np.testing.assert_array_equal(found.boxes, boxes_of(found.masks))
    assert (image == 50).all()


def test_copy_paste_adds_objects_and_is_a_function_of_the_epoch() -> None:
    dataset = ShapesDataset("train", num_samples=12, size=48, instances=True)
    plain = InstanceSamples(dataset, InstanceAugmentation())
    pasting = InstanceSamples(dataset, InstanceAugmentation(), copy_paste=1.0)
    count = [len(plain[0, i]["targets"]["labels"]) for i in range(12)]
    more = [len(pasting[0, i]["targets"]["labels"]) for i in range(12)]
    assert sum(more) > sum(count)
    torch.testing.assert_close(pasting[3, 5]["image"], pasting[3, 5]["image"])
    assert any(not torch.equal(pasting[0, i]["image"], pasting[1, i]["image"]) for i in range(12))


def test_batches_are_of_one_group() -> None:
    groups = np.random.default_rng(0).integers(0, 3, 101)
    sampler = AspectRatioSampler(groups, batch_size=4, seed=0)
    order = sampler.order(0)
    assert sorted(order) == list(range(101))
    mixed = sum(len(set(groups[order[i : i + 4]])) > 1 for i in range(0, 100, 4))
    assert mixed <= 3
    assert not np.array_equal(order, sampler.order(1))
    np.testing.assert_array_equal(order, AspectRatioSampler(groups, 4, 0).order(0))
    ranks = [list(AspectRatioSampler(groups, 2, 0, rank, 2)) for rank in range(2)]
    both = [index for pair in zip(*ranks, strict=True) for _, index in pair]
    assert len(both) == len(set(both)) == 100


def test_groups_come_from_the_files(tmp_path: Path) -> None:
    class OnDisk(Listed):
        records = tuple(range(6))

        def sources(self, record: int) -> tuple[Path, ...]:
            return (tmp_path / f"{record}.png",)

    for index, size in enumerate([(10, 20), (20, 10), (10, 10)] * 2):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
    groups = aspect_ratio_groups(OnDisk([sample(None)] * 6), 3)
    assert groups.tolist() == [2, 0, 1, 2, 0, 1]  # by height / width
    assert set(aspect_ratio_groups(OnDisk([sample(None)] * 6), 1)) == {0}
    assert set(aspect_ratio_groups(Listed([sample(None)] * 6), 3)) == {0}


def test_counts_are_those_that_the_mask_head_sees() -> None:
    loader = module()
    outside, inside = loader.class_counts().tolist()
    found = [loader.dataset("train")[index].instances for index in range(8)]
    assert inside == sum(int(item.masks.sum()) for item in found)
    area = sum(float((item.boxes[:, 2:] - item.boxes[:, :2]).prod(1).sum()) for item in found)
    assert outside == area - inside > 0


def test_wrong_options_are_told() -> None:
    with pytest.raises(ValueError, match="copy_paste=2"):
        module(copy_paste=2)
