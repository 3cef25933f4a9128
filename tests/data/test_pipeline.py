import functools

import numpy as np
import pytest
import torch

from segtrail.data.augmentation import Augmentation
from segtrail.data.datamodule import SegmentationDataModule
from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.data.pipeline import AugmentedDataset, Collate
from segtrail.data.types import DataError, Sample


class Noise:
    """Six random samples of two sizes; the last class is absent."""

    def __init__(self, split: str = "train") -> None:
        self.ids = [f"{split}/{index}" for index in range(6)]
        self.ignore_index = 255

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng(index)
        size = (20, 24) if index % 2 else (16, 28)
        mask = generator.integers(0, 3, size).astype(np.uint8)
        mask[:2] = 255
        return Sample(generator.integers(0, 256, (*size, 3), dtype=np.uint8), mask, self.ids[index])


def transforms() -> list:
    import albumentations as A

    return [
        A.RandomCrop(12, 12),
        A.HorizontalFlip(p=0.5),
        A.RandomBrightnessContrast(p=0.5),
        A.VerticalFlip(p=0.5),
    ]


def datamodule(workers: int, **options) -> SegmentationDataModule:
    return SegmentationDataModule(
        Noise,
        ("train", "val"),
        4,
        train_transforms=transforms(),
        batch_size=2,
        num_workers=workers,
        seed=5,
        **options,
    )


def epoch(module: SegmentationDataModule, number: int) -> list[dict]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    alone, with_workers = epoch(datamodule(0), 3), epoch(datamodule(2), 3)
    assert len(alone) == 3
    for one, other in zip(alone, with_workers, strict=True):
        assert one["ids"] == other["ids"]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])


def test_augmentation_differs_between_epochs_and_samples_but_repeats() -> None:
    sample = Noise()[0]
    augment = Augmentation(transforms())
    first = augment(sample.image, sample.mask, (0, 0, 0))
    again = augment(sample.image, sample.mask, (0, 0, 0))
    np.testing.assert_array_equal(first[0], again[0])
    different = [
        augment(sample.image, sample.mask, (0, e, i))[0] for e, i in ((1, 0), (0, 1), (2, 0), (0, 2))
    ]
    assert any(not np.array_equal(first[0], other) for other in different)


def test_transforms_of_a_sequence_are_not_correlated() -> None:
    import albumentations as A

    augment = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    corner = np.zeros((2, 2, 3), np.uint8)
    corner[0, 0] = 255
    places = {tuple(np.argwhere(augment(corner, corner[..., 0], (0, 0, i))[0][..., 0])[0]) for i in range(40)}
    assert len(places) == 4  # with one seed for both flips only two of the corners occur


def test_image_and_mask_move_together() -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.repeat(mask[..., None], 3, axis=2)
    import albumentations as A

    augment = Augmentation([A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5), A.Transpose(p=0.5)])
    for index in range(10):
        moved, moved_mask = augment(image, mask, (0, 0, index))
        np.testing.assert_array_equal(moved[..., 0], moved_mask)


def test_unequal_images_are_padded_with_void() -> None:
    dataset = AugmentedDataset(Noise(), Augmentation(), 4, {}, 0)
    batch = Collate(255)([dataset[0, 0], dataset[0, 1]])
    assert batch["image"].shape == (2, 3, 20, 28)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["sizes"].tolist() == [[16, 28], [20, 24]]
    assert (batch["mask"][0, 16:] == 255).all()
    assert (batch["mask"][1, :, 24:] == 255).all()
    np.testing.assert_array_equal(batch["image"][0, :, :16].permute(1, 2, 0), Noise()[0].image)


@pytest.mark.parametrize("order", [1, -1])
def test_masks_of_two_types_keep_their_ids(order: int) -> None:
    masks = [np.full((4, 4), 7, np.uint8), np.full((4, 4), 300, np.int32)][::order]
    image = np.zeros((4, 4, 3), np.uint8)
    batch = Collate(255)([{"image": image, "mask": mask, "id": "a", "index": 0} for mask in masks])
    assert [mask.unique().tolist() for mask in batch["mask"]] == [[7], [300]][::order]


def test_derived_targets_come_from_the_augmented_mask() -> None:
    def void(image: np.ndarray, mask: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
        assert image.shape[:2] == mask.shape == (12, 12)
        assert num_classes == 4
        return (mask == ignore_index)[None].astype(np.float32)

    module = datamodule(0, derived={"void": void})
    for batch in epoch(module, 0):
        assert torch.equal(batch["void"][:, 0].bool(), batch["mask"] == 255)


def test_class_counts_are_those_of_the_training_masks() -> None:
    make = functools.partial(ShapesDataset, num_samples=5, size=24)
    module = SegmentationDataModule(make, ("train", "val", "test"), 4, num_workers=0)
    dataset = make(split="train")
    expected = sum(np.bincount(dataset.mask(index).ravel(), minlength=4) for index in range(5))
    assert module.class_counts().tolist() == expected.tolist()


def test_a_failing_transform_names_the_sample() -> None:
    import albumentations as A

    dataset = AugmentedDataset(Noise(), Augmentation([A.RandomCrop(500, 500)]), 4, {}, 0)
    with pytest.raises(DataError, match="train/1: augmentation failed"):
        dataset[0, 1]


def test_an_unknown_split_is_told() -> None:
    with pytest.raises(DataError, match="no split 'test'; it has: train, val"):
        datamodule(0).dataset("test")
