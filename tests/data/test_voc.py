"""PASCAL VOC and SBD in their own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from segtrail.data.datasets.voc import VocDataset
from segtrail.data.tables import table
from segtrail.data.types import DataError
from tests.data.makers import color_mask, ids, index_mask, palette_mask, picture

pytestmark = pytest.mark.filterwarnings("ignore:VOC:UserWarning")


def write_list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def make(root: Path, year: int = 2012, **lists: list[str]) -> dict[str, np.ndarray]:
    """``VOCdevkit/VOC<year>`` with two objects (classes 15 and 7) in each mask and a void border."""
    base = root / "VOCdevkit" / f"VOC{year}"
    masks = {}
    for split, names in lists.items():
        write_list(base / "ImageSets" / "Segmentation" / f"{split}.txt", names)
        for name in names:
            picture(base / "JPEGImages" / f"{name}.jpg")
            objects = np.zeros((12, 16), np.uint8)
            objects[2:6, 2:6], objects[3:9, 9:15], objects[0] = 1, 2, 255
            palette_mask(base / "SegmentationObject" / f"{name}.png", objects)
            masks[name] = palette_mask(
                base / "SegmentationClass" / f"{name}.png",
                np.array([0, 15, 7], np.uint8)[np.where(objects == 255, 0, objects)]
                | np.where(objects == 255, 255, 0).astype(np.uint8),
            )
    return masks


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_ids_void_and_objects_read_back(tmp_path: Path, below: str) -> None:
    masks = make(tmp_path, train=["2007_000032", "2007_000039"], val=["2007_000033"])
    dataset = VocDataset(str(tmp_path / below), "train", instances=True)
    assert dataset.splits(root=str(tmp_path / below)) == ("train", "val")
    assert dataset.ids == ["2007_000032", "2007_000039"]
    for sample in (dataset[0], dataset[1]):
        assert (sample.mask == masks[sample.id]).all()
        assert sample.instances is not None
        assert sample.instances.labels.tolist() == [15, 7]
        assert sample.instances.boxes.tolist() == [[2, 2, 6, 6], [9, 3, 15, 9]]
    other = VocDataset(str(tmp_path / below), "train", ignore_index=-1)[0].mask
    assert (other == np.where(masks["2007_000032"] == 255, -1, masks["2007_000032"].astype(int))).all()


def test_classes_are_the_21_in_their_order() -> None:
    classes = VocDataset.class_table()
    assert classes.names[:2] == ("background", "aeroplane")
    assert classes.names[-1] == "tvmonitor"
    assert classes.palette[[1, 15]].tolist() == [[128, 0, 0], [192, 128, 128]]


def test_2007_has_a_labeled_test_split_and_2012_has_none(tmp_path: Path) -> None:
    make(tmp_path, 2007, train=["000032"], test=["000068"])
    assert VocDataset.splits(root=str(tmp_path), year=2007) == ("train", "test")
    make(tmp_path, 2012, train=["2007_000032"])
    write_list(tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt", ["2008_000006"])
    assert VocDataset.splits(root=str(tmp_path)) == ("train",)
    with pytest.raises(DataError, match="no split 'test'; found train"):
        VocDataset(str(tmp_path), "test")


def make_sbd(root: Path, train: list[str], val: list[str]) -> dict[str, np.ndarray]:
    write_list(root / "train.txt", train)
    write_list(root / "val.txt", val)
    masks = {}
    for name in train + val:
        masks[name] = ids(classes=3, void=False)
        record = np.zeros((1, 1), dtype=[("Segmentation", object)])
        record["Segmentation"][0, 0] = masks[name]
        (root / "cls").mkdir(exist_ok=True)
        savemat(root / "cls" / f"{name}.mat", {"GTcls": record})
        objects = np.zeros((1, 1), dtype=[("Segmentation", object), ("Categories", object)])
        objects["Segmentation"][0, 0], objects["Categories"][0, 0] = (
            masks[name],
            np.array([[9], [4]], np.uint8),
        )
        (root / "inst").mkdir(exist_ok=True)
        savemat(root / "inst" / f"{name}.mat", {"GTinst": objects})
    return masks


def test_trainaug_joins_sbd_without_val_and_keeps_original_masks(tmp_path: Path) -> None:
    original = make(tmp_path, train=["a", "b"], val=["v"])
    base = tmp_path / "VOCdevkit" / "VOC2012"
    sbd = make_sbd(tmp_path / "benchmark_RELEASE" / "dataset", ["a", "c", "v"], ["d"])
    for name in ("c", "d"):
        picture(base / "JPEGImages" / f"{name}.jpg")
    dataset = VocDataset(str(tmp_path), "train", train_set="trainaug", instances=True)
    assert dataset.ids == ["a", "b", "c", "d"]
    assert (dataset[0].mask == original["a"]).all()  # not SBD's, which has no border
    assert (dataset[2].mask == sbd["c"]).all()
    objects = dataset[3].instances
    assert objects is not None
    assert objects.labels.tolist() == [9, 4]
    assert (objects.masks[1] == (sbd["d"] == 2)).all()
    palette = {
        name: palette_mask(base / "SegmentationClassAug" / f"{name}.png", ids()) for name in ("c", "d")
    }
    assert (VocDataset(str(tmp_path), "train", train_set="trainaug")[2].mask == palette["c"]).all()


def test_official_numbers_are_asserted(tmp_path: Path) -> None:
    make(tmp_path, train=["a"], val=["v"])
    with pytest.warns(UserWarning, match="VOC 2012 train: 1 samples of 1464: a partial copy"):
        VocDataset(str(tmp_path), "train")
    counts = table("voc")["counts"]
    assert counts["2012"] == {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582}


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no VOC2012/JPEGImages"):
        VocDataset(str(tmp_path), "train")
    make(tmp_path, train=["a", "b"])
    base = tmp_path / "VOCdevkit" / "VOC2012"
    write_list(base / "ImageSets" / "Segmentation" / "val.txt", ["v"])
    with pytest.raises(DataError, match=r"trainaug needs SBD.*dataset\.sbd_root"):
        VocDataset(str(tmp_path), "train", train_set="trainaug")
    color_mask(
        base / "SegmentationClass" / "a.png", ids(void=False), np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]])
    )
    with pytest.raises(DataError, match=r"a\.png: an RGB picture, not a palette PNG"):
        VocDataset(str(tmp_path), "train")[0]
    index_mask(base / "SegmentationClass" / "b.png", np.full((12, 16), 38, np.uint8))  # grey value of a color
    with pytest.raises(DataError, match=r"b\.png: mask has id 38"):
        VocDataset(str(tmp_path), "train")[1]
    (base / "JPEGImages" / "a.jpg").unlink()
    assert VocDataset(str(tmp_path), "train").ids == ["b"]  # with the warning of a partial copy
    (base / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.jpg: this image.* missing, as are all others"):
        VocDataset(str(tmp_path), "train")
