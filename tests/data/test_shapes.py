"""Procedural shapes."""

from __future__ import annotations

import numpy as np
import pytest

from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.data.types import DataError


def test_a_sample_is_a_function_of_seed_split_and_index() -> None:
    first, again = ShapesDataset("train")[5], ShapesDataset("train", num_samples=900)[5]
    assert (first.image == again.image).all()
    assert (first.mask == again.mask).all()
    for other in (ShapesDataset("val")[5], ShapesDataset("train", seed=1)[5], ShapesDataset("train")[6]):
        assert (first.image != other.image).any()


def test_objects_are_exact() -> None:
    dataset = ShapesDataset("train", size=(40, 64), num_classes=9, instances=True)
    seen = set()
    for sample in (dataset[i] for i in range(40)):
        objects = sample.instances
        assert objects is not None
        assert sample.image.shape == (40, 64, 3)
        assert (objects.masks.sum(axis=0) == (sample.mask > 0)).all()  # visible parts do not overlap
        for mask, label, box in zip(objects.masks, objects.labels, objects.boxes, strict=True):
            assert set(np.unique(sample.mask[mask])) == {label}
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            seen.add(int(label))
    assert seen == set(range(1, 9))


def test_any_number_by_split_and_more_than_255_classes() -> None:
    sizes = {"train": 7, "val": 2, "test": 1}
    assert [len(ShapesDataset(split, num_samples=sizes)) for split in ShapesDataset.splits()] == [7, 2, 1]
    many = ShapesDataset("train", num_classes=400, ignore_index=-1)
    assert len(set(many.class_names)) == 400
    assert many[0].mask.dtype == np.int32


def test_impossible_options() -> None:
    with pytest.raises(DataError, match="2 class_names"):
        ShapesDataset("train", num_classes=3, class_names=["a", "b"])
    with pytest.raises(DataError, match="ignore_index 2 is the id"):
        ShapesDataset("train", ignore_index=2)
    with pytest.raises(ValueError, match="too small"):
        ShapesDataset("train", size=4)
