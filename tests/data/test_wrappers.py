"""Datasets made of other datasets."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from segtrail.data.datasets.concat import ConcatDataset
from segtrail.data.datasets.remap import RemappedDataset
from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.data.types import DataError

SHAPES = {
    "_target_": "segtrail.data.datasets.shapes.ShapesDataset",
    "_partial_": True,
    "num_classes": 5,
    "size": 48,
}
CLASSES = {"round": ["plain_disk", "dots_ring"], "other": "stripes_square"}


def shapes(split: str = "train", **options: object) -> ShapesDataset:
    return ShapesDataset(split, num_classes=5, size=48, **options)  # type: ignore[arg-type]


def test_merged_and_dropped_classes_in_masks_and_objects() -> None:
    original = shapes(instances=True)
    dataset = RemappedDataset("train", SHAPES, CLASSES, instances=True)
    assert dataset.class_names == ("round", "other")
    assert (dataset.palette == original.palette[[1, 2]]).all()
    assert dataset.ids == original.ids
    lookup = np.array([255, 0, 1, 255, 0])
    for index in range(20):
        old, new = original[index], dataset[index]
        assert (new.mask == lookup[old.mask]).all()
        assert old.instances is not None
        assert new.instances is not None
        kept = lookup[old.instances.labels] != 255
        assert (new.instances.labels == lookup[old.instances.labels[kept]]).all()
        assert (new.instances.masks == old.instances.masks[kept]).all()
        assert (dataset.mask(index) == new.mask).all()


def test_a_list_keeps_and_rest_collects() -> None:
    kept = RemappedDataset("val", SHAPES, ["stripes_square", "ground"])
    assert kept.class_names == ("stripes_square", "ground")
    rest = RemappedDataset("val", SHAPES, {"ground": "ground", "any": []}, rest="any")
    assert all((rest[i].mask == (shapes("val")[i].mask > 0)).all() for i in range(10))


def test_void_outside_of_8_bits_stays_void() -> None:
    dataset = RemappedDataset("train", SHAPES | {"ignore_index": -1}, ["ground"])
    sample = dataset[0]
    assert (sample.mask == np.where(shapes()[0].mask == 0, 0, -1)).all()


def test_class_table_and_splits_need_no_samples() -> None:
    assert RemappedDataset.class_table(dataset=SHAPES, classes=CLASSES).names == ("round", "other")
    assert RemappedDataset.splits(dataset=SHAPES, classes=CLASSES) == ("train", "val", "test")
    factory = partial(ShapesDataset, num_classes=5, size=48)
    assert (
        RemappedDataset("train", factory, CLASSES)[0].mask
        == RemappedDataset("train", SHAPES, CLASSES)[0].mask
    ).all()


@pytest.mark.parametrize(
    ("classes", "rest", "message"),
    [
        ({"a": ["disc"]}, None, "classes.a: no class 'disc'; there are ground"),
        ({"a": ["ground"], "b": ["ground"]}, None, "'ground' is in both 'a' and 'b'"),
        ({}, None, "classes is empty"),
        ({"a": "ground"}, "b", "rest is 'b'"),
    ],
)
def test_mistakes_in_a_remapping(classes: dict[str, list[str]], rest: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RemappedDataset("train", SHAPES, classes, rest=rest)


def test_concatenation_keeps_order_ids_and_weights() -> None:
    few = SHAPES | {"num_samples": 3, "seed": 1, "repeat": 4}
    dataset = ConcatDataset("train", {"a": SHAPES, "b": few, "c": None}, limit_samples=None)
    assert len(dataset) == 67
    assert dataset.ids[63:65] == ["a/train-00063", "b/train-00000"]
    assert (dataset[64].image == shapes(seed=1, num_samples=3)[0].image).all()
    assert dataset[64].id == "b/train-00000"
    assert (dataset.mask(66) == shapes(seed=1, num_samples=3)[2].mask).all()
    assert dataset.repeat_factors is not None
    assert dataset.repeat_factors.tolist() == [1] * 64 + [4] * 3
    assert (dataset.class_counts()[:64] == shapes().class_counts()).all()


def test_concatenation_of_unequal_datasets() -> None:
    with pytest.raises(DataError, match="make them equal with dataset=remap"):
        ConcatDataset("train", {"a": SHAPES, "b": SHAPES | {"num_classes": 3}})
    with pytest.raises(DataError, match="differ in ignore_index"):
        ConcatDataset("train", {"a": SHAPES, "b": SHAPES | {"ignore_index": 99}})
    with pytest.raises(DataError, match="at least one dataset"):
        ConcatDataset("train", {"a": None})
