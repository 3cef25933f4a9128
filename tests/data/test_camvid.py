"""CamVid in the layouts in which it goes around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segtrail.data.datasets.camvid import CamVidDataset
from segtrail.data.tables import table
from segtrail.data.types import DataError
from tests.data.makers import color_mask, index_mask, picture

pytestmark = pytest.mark.filterwarnings("ignore:CamVid:UserWarning")

LABELS = table("camvid")["labels"]
COLORS = np.array([row["color"] for row in LABELS])
NAMES = [row["name"] for row in LABELS]
MASK = (np.arange(192) % 32).astype(np.uint8).reshape(12, 16)
GROUPS = {name: index for index, group in enumerate(table("camvid")["groups"]) for name in group["members"]}
MERGED = np.array([GROUPS.get(name, 255) for name in NAMES])[MASK]
FRAMES = {"train": "0001TP_006690", "val": "0016E5_07959", "test": "0001TP_008550"}


def make(root: Path, layout: str) -> None:
    for split, name in FRAMES.items():
        if layout == "original":
            picture(root / "701_StillsRaw_full" / f"{name}.png")
            color_mask(root / "LabeledApproved_full" / f"{name}_L.png", MASK, COLORS)
        elif layout == "fastai":
            picture(root / "images" / f"{name}.png")
            index_mask(root / "labels" / f"{name}_P.png", MASK)
            (root / "codes.txt").write_text("\n".join(NAMES))
        elif layout == "segnet":
            picture(root / "CamVid" / split / f"{name}.png")
            index_mask(
                root / "CamVid" / f"{split}annot" / f"{name}.png",
                np.where(MERGED == 255, 11, MERGED).astype(np.uint8),
            )
            line = f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n"
            (root / "CamVid" / f"{split}.txt").write_text(line)
        else:
            picture(root / split / f"{name}.png")
            color_mask(root / f"{split}_labels" / f"{name}_L.png", MASK, COLORS)


@pytest.mark.parametrize("layout", ["original", "fastai", "segnet", "folders"])
def test_every_layout_gives_the_same_11_classes_and_splits(tmp_path: Path, layout: str) -> None:
    make(tmp_path, layout)
    assert CamVidDataset.splits(root=str(tmp_path)) == ("train", "val", "test")
    for split, name in FRAMES.items():
        dataset = CamVidDataset(str(tmp_path), split)
        assert dataset.ids == [name]
        assert (dataset[0].mask == MERGED).all()


@pytest.mark.parametrize("layout", ["original", "fastai", "folders"])
def test_31_classes_and_void(tmp_path: Path, layout: str) -> None:
    make(tmp_path, layout)
    dataset = CamVidDataset(str(tmp_path), "train", classes=31)
    assert "Void" not in dataset.class_names
    assert len(dataset.class_names) == 31
    mask = dataset[0].mask
    assert (mask[NAMES.index("Void") == MASK] == 255).all()
    assert (mask[NAMES.index("Wall") == MASK] == dataset.class_names.index("Wall")).all()


def test_tables_hold_what_is_published() -> None:
    content = table("camvid")
    assert {split: len(names) for split, names in content["splits"].items()} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
    assert len(set(sum(content["splits"].values(), []))) == 701  # noqa: RUF017
    assert set(GROUPS) == set(NAMES) - {"Void"}
    assert LABELS[NAMES.index("Bicyclist")]["color"] == [0, 128, 192]  # some copies mistype it


def test_official_numbers_are_asserted(tmp_path: Path) -> None:
    make(tmp_path, "original")
    with pytest.warns(UserWarning, match="CamVid train: 1 samples of 367: a partial copy"):
        CamVidDataset(str(tmp_path), "train")


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no layout of CamVid"):
        CamVidDataset(str(tmp_path), "train")
    make(tmp_path, "segnet")
    with pytest.raises(DataError, match="SegNet's masks have 11 classes only"):
        CamVidDataset(str(tmp_path), "train", classes=31)
    (tmp_path / "CamVid" / "trainannot" / f"{FRAMES['train']}.png").unlink()
    with pytest.raises(DataError, match=r"006690\.png: image without a mask; expected .*trainannot"):
        CamVidDataset(str(tmp_path), "train")


def test_a_mistyped_color_is_named(tmp_path: Path) -> None:
    make(tmp_path, "original")
    wrong = COLORS.copy()
    wrong[NAMES.index("Bicyclist")] = (0, 128, 92)
    color_mask(tmp_path / "LabeledApproved_full" / f"{FRAMES['train']}_L.png", MASK, wrong)
    with pytest.raises(DataError, match=r"color \(0, 128, 92\) is no class"):
        CamVidDataset(str(tmp_path), "train")[0]
