"""Class-aware crops and mosaics."""

from __future__ import annotations

import random

import albumentations as A
import numpy as np
import pytest

from segtrail.data.augmentation import Augmentation
from segtrail.data.crops import ClassAwareCrop
from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.data.instances import InstanceAugmentation, InstanceSamples
from segtrail.data.mixing import mosaic


def scene() -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((60, 80), np.uint8)
    mask[:30] = 1
    mask[50:52, 70:72] = 2
    return np.repeat(mask[..., None] * 100, 3, axis=2), mask


def test_crops_cap_one_class_and_stay_in_step() -> None:
    image, mask = scene()
    crop = Augmentation([ClassAwareCrop([20, 20], max_share=0.75, tries=200)])
    for index in range(30):
        part, labels = crop(image, mask, (0, 0, index))
        assert labels.shape == (20, 20)
        assert (part[..., 0] == labels * 100).all()
        assert np.bincount(labels.ravel()).max() <= 0.75 * 400


def test_crops_find_rare_classes() -> None:
    image, mask = scene()
    always = Augmentation([ClassAwareCrop([16, 16], max_share=1, rare_classes=[2, 9], rare_share=1)])
    never = Augmentation([ClassAwareCrop([16, 16], max_share=1)])
    assert all((always(image, mask, (i,))[1] == 2).any() for i in range(30))
    assert sum(bool((never(image, mask, (i,))[1] == 2).any()) for i in range(30)) < 15


def test_crops_of_small_pictures_are_padded_with_void() -> None:
    image, mask = scene()
    part, labels = Augmentation([ClassAwareCrop([70, 100], ignore_index=7)])(image, mask, (0,))
    assert part.shape == (70, 100, 3)
    assert (labels[:60, :80] == mask).all()
    assert (labels[60:] == 7).all()


def test_crops_are_a_function_of_the_key_and_take_object_masks() -> None:
    image, mask = scene()
    crop = Augmentation([ClassAwareCrop([20, 20])])
    assert (crop(image, mask, (1, 2))[1] == crop(image, mask, (1, 2))[1]).all()
    compose = A.Compose([ClassAwareCrop([20, 20])])
    compose.set_random_state(np.random.default_rng(0), random.Random(0))
    result = compose(image=image, mask=mask, masks=np.stack([mask == 1, mask == 2]).astype(np.uint8))
    assert (np.asarray(result["masks"])[0] == (result["mask"] == 1)).all()


def test_impossible_crops() -> None:
    with pytest.raises(ValueError, match="max_share 0"):
        ClassAwareCrop([10, 10], max_share=0)


def test_mosaic_keeps_image_mask_and_objects_in_step() -> None:
    dataset = ShapesDataset("train", size=(40, 50), instances=True, noise=0)
    generator = np.random.default_rng(0)
    for start in range(0, 40, 4):
        samples = [dataset[start + i] for i in range(4)]
        whole = mosaic(samples, (64, 72), 255, generator)
        assert whole.image.shape == (64, 72, 3)
        assert whole.id == samples[0].id
        objects = whole.instances
        assert objects is not None
        assert objects.masks.shape[1:] == (64, 72)
        labeled = (whole.mask > 0) & (whole.mask < 255)
        assert (objects.masks.any(axis=0) <= labeled).all()
        for mask, label, box in zip(objects.masks, objects.labels, objects.boxes, strict=True):
            assert set(np.unique(whole.mask[mask])) == {label}
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert (whole.image[whole.mask == 255] == 0).all()


def test_mosaic_of_samples_without_objects() -> None:
    samples = [ShapesDataset("train", size=32)[i] for i in range(4)]
    whole = mosaic(samples, (32, 32), -1, np.random.default_rng(0))
    assert whole.instances is None
    assert whole.mask.dtype == np.int32
    with pytest.raises(ValueError, match="4 samples, not 3"):
        mosaic(samples[:3], (32, 32), 255, np.random.default_rng(0))


def test_the_instance_loader_mixes_by_its_own_key() -> None:
    dataset = ShapesDataset("train", size=32, instances=True)
    loader = InstanceSamples(dataset, InstanceAugmentation(), mosaic=1.0)
    first, again, later = loader[0, 5], loader[0, 5], loader[1, 5]
    assert (first["image"] == again["image"]).all()
    assert (first["image"] != later["image"]).any()
    assert (first["targets"]["masks"].sum(dim=(1, 2)) > 0).all()
