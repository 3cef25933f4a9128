"""Cityscapes in its own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segtrail.data.datasets.cityscapes import CityscapesDataset
from segtrail.data.tables import table
from segtrail.data.types import DataError
from tests.data.makers import index_mask, picture

pytestmark = pytest.mark.filterwarnings("ignore:Cityscapes:UserWarning")

LABEL_IDS = np.arange(34, dtype=np.uint8)[np.arange(12 * 16).reshape(12, 16) % 34]


def make(root: Path, split: str, names: list[str], kind: str = "gtFine", city: str = "ulm") -> None:
    for name in names:
        stem = f"{city}_{name}"
        picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        index_mask(root / kind / split / city / f"{stem}_{kind}_labelIds.png", LABEL_IDS)


def train_ids(mask: np.ndarray) -> np.ndarray:
    lookup = {label["id"]: label["train_id"] for label in table("cityscapes")["labels"]}
    return np.vectorize(lookup.__getitem__)(mask)


def test_label_ids_become_train_ids_and_void(tmp_path: Path) -> None:
    make(tmp_path, "train", ["000000_000019", "000001_000019"])
    make(tmp_path, "val", ["000002_000019"])
    dataset = CityscapesDataset(str(tmp_path), "train")
    assert CityscapesDataset.splits(root=str(tmp_path)) == ("train", "val")
    assert dataset.ids == ["ulm/ulm_000000_000019", "ulm/ulm_000001_000019"]
    assert (dataset[0].mask == train_ids(LABEL_IDS)).all()
    assert dataset[0].mask.dtype == np.uint8
    assert (
        CityscapesDataset(str(tmp_path), "train", ignore_index=-1)[0].mask
        == np.where(train_ids(LABEL_IDS) == 255, -1, train_ids(LABEL_IDS))
    ).all()


def test_classes_are_the_19_evaluated_ones() -> None:
    classes = CityscapesDataset.class_table()
    assert len(classes.names) == 19
    assert classes.names[0] == "road"
    assert classes.names[-1] == "bicycle"
    assert classes.palette[0].tolist() == [128, 64, 128]


def test_train_id_files_are_used_where_they_exist(tmp_path: Path) -> None:
    make(tmp_path, "train", ["000000_000019"])
    mask = np.where(np.arange(192).reshape(12, 16) % 20 == 19, 255, np.arange(192).reshape(12, 16) % 20)
    index_mask(
        tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelTrainIds.png", mask.astype(np.uint8)
    )
    assert (CityscapesDataset(str(tmp_path), "train")[0].mask == mask).all()
    by_label = CityscapesDataset(str(tmp_path), "train", mask_ids="labelIds")[0].mask
    assert (by_label == train_ids(LABEL_IDS)).all()


def test_instance_ids_and_crowds(tmp_path: Path) -> None:
    make(tmp_path, "train", ["000000_000019"])
    values = np.full((12, 16), 7, np.uint16)  # road
    values[:3, :3] = 26000  # a car
    values[4:6, 4:9] = 26001  # another
    values[8:, :4] = 24  # a group of persons
    values[8:, 8:] = 29000  # a caravan: it has instances but is not evaluated
    index_mask(tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_instanceIds.png", values)
    objects = CityscapesDataset(str(tmp_path), "train", instances=True)[0].instances
    assert objects is not None
    names = CityscapesDataset.class_table().names
    assert [names[label] for label in objects.labels] == ["person", "car", "car"]
    assert objects.iscrowd.tolist() == [True, False, False]
    assert objects.boxes.tolist() == [[0, 8, 4, 12], [0, 0, 3, 3], [4, 4, 9, 6]]


def test_coarse_labels_with_the_extra_frames(tmp_path: Path) -> None:
    make(tmp_path, "train", ["000000_000019"], "gtCoarse")
    make(tmp_path, "train_extra", ["000009_000019"], "gtCoarse", city="bonn")
    make(tmp_path, "val", ["000002_000019"])
    assert len(CityscapesDataset(str(tmp_path), "train", labels="coarse")) == 1
    extra = CityscapesDataset(str(tmp_path), "train", labels="coarse", train_extra=True)
    assert extra.ids == ["ulm/ulm_000000_000019", "bonn/bonn_000009_000019"]
    assert (extra[1].mask == train_ids(LABEL_IDS)).all()
    assert len(CityscapesDataset(str(tmp_path), "val", labels="coarse")) == 1  # the fine ones
    with pytest.raises(ValueError, match="labels=coarse"):
        CityscapesDataset(str(tmp_path), "train", train_extra=True)


def test_official_numbers_are_asserted(tmp_path: Path) -> None:
    make(tmp_path, "train", ["000000_000019"])
    with pytest.warns(UserWarning, match="Cityscapes train: 1 samples of 2975: a partial copy"):
        CityscapesDataset(str(tmp_path), "train")
    assert table("cityscapes")["counts"]["val"] == 500


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"leftImg8bit/train: no such folder; unpack leftImg8bit_trainvaltest\.zip"
    ):
        CityscapesDataset(str(tmp_path), "train")
    make(tmp_path, "train", ["000000_000019"])
    with pytest.raises(DataError, match="no split 'test' with labels"):
        CityscapesDataset(str(tmp_path), "test")
    with pytest.raises(DataError, match=r"gtFine/val: no such folder|leftImg8bit/val: no such folder"):
        CityscapesDataset(str(tmp_path), "val")
    mask = tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
    index_mask(mask, np.full((12, 16), 99, np.uint8))
    with pytest.raises(DataError, match="value 99 in 192 pixels, which stands for no class"):
        CityscapesDataset(str(tmp_path), "train")[0]
    mask.unlink()
    with pytest.raises(DataError, match=r"leftImg8bit\.png: image without a mask; expected .*labelIds\.png"):
        CityscapesDataset(str(tmp_path), "train")
