"""Folders of images and masks in the ways that people keep them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segtrail.data.datasets.folder import FolderDataset
from segtrail.data.types import DataError
from tests.data.makers import color_mask, folder, ids, index_mask, palette_mask, picture, write_json

COLORS = np.array([[0, 0, 0], [200, 30, 30], [10, 220, 90]])


def whole(root: Path, **options: object) -> FolderDataset:
    return FolderDataset(str(root), "train", split_by="fraction", val_fraction=0.0, **options)  # type: ignore[arg-type]


def test_index_masks_read_back_exactly_with_void(tmp_path: Path) -> None:
    masks = folder(tmp_path)
    dataset = whole(tmp_path)
    assert dataset.class_names == ("class_0", "class_1", "class_2")
    assert dataset.ids == sorted(masks)
    for sample in (dataset[i] for i in range(len(dataset))):
        assert (sample.mask == masks[sample.id]).all()
        assert sample.image.shape == (12, 16, 3)


def test_palette_npy_and_16_bit_masks(tmp_path: Path) -> None:
    expected = {}
    for name in ("a", "b", "c"):
        picture(tmp_path / "images" / f"{name}.png")
    expected["a"] = palette_mask(tmp_path / "masks" / "a.png", ids())
    expected["b"] = index_mask(tmp_path / "masks" / "b.npy", ids().astype(np.int64))
    expected["c"] = index_mask(tmp_path / "masks" / "c.png", np.array(ids(void=False), np.uint16))
    dataset = whole(tmp_path)
    for sample in (dataset[i] for i in range(3)):
        assert (sample.mask == expected[sample.id]).all()


def test_masks_of_more_than_255_classes(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    mask = index_mask(tmp_path / "masks" / "a.png", np.arange(192, dtype=np.uint16).reshape(12, 16) * 2)
    dataset = whole(tmp_path, ignore_index=-1)
    assert len(dataset.class_names) == 383
    assert (dataset[0].mask == mask).all()
    with pytest.raises(DataError, match="ignore_index 255 is the id of class"):
        whole(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("label_colors.txt", "0 0 0\tground\n200 30 30\tcar\n10 220 90\ttree\n\n"),
        ("class_dict.csv", "name,r,g,b\nground,0,0,0\ncar,200,30,30\ntree,10,220,90\n"),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nground:0,0,0::\ncar:200,30,30::\ntree:10,220,90::\n",
        ),
    ],
)
def test_color_masks_by_class_file(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    picture(tmp_path / "images" / "a.png")
    mask = color_mask(tmp_path / "masks" / "a.png", ids(void=False), COLORS)
    dataset = whole(tmp_path)
    assert dataset.class_names == ("ground", "car", "tree")
    assert (dataset.palette == COLORS).all()
    assert (dataset[0].mask == mask).all()
    # Names that are left out are void; their order is the order of the ids.
    chosen = whole(tmp_path, class_names=["tree", "ground"])[0].mask
    assert (chosen == np.array([1, 255, 0])[mask]).all()
    assert (whole(tmp_path, void_classes=["car"])[0].mask == np.array([0, 255, 1])[mask]).all()


def test_color_masks_without_a_table_and_with_a_void_color(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    mask = color_mask(tmp_path / "masks" / "a.png", ids(void=False), COLORS)
    table = FolderDataset.class_table(root=str(tmp_path), void_values=[[200, 30, 30]])
    assert table.names == ("color_000000", "color_0adc5a")
    dataset = whole(tmp_path, class_names=table.names, void_values=[[200, 30, 30]])
    assert (dataset[0].mask == np.array([0, 255, 1])[mask]).all()


def test_unknown_color_is_named_with_the_nearest_class(tmp_path: Path) -> None:
    (tmp_path / "label_colors.txt").write_text("0 0 0 ground\n200 30 30 car\n")
    picture(tmp_path / "images" / "a.png")
    color_mask(
        tmp_path / "masks" / "a.png", ids(void=False), np.array([[0, 0, 0], [200, 30, 30], [199, 30, 30]])
    )
    with pytest.raises(DataError, match=r"a\.png: color \(199, 30, 30\).*nearest class is car"):
        whole(tmp_path)[0]


def test_binary_masks(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    mask = ids(classes=2, void=False)
    index_mask(tmp_path / "masks" / "a_mask.png", mask * 255)
    dataset = whole(tmp_path)
    assert dataset.class_names == ("background", "foreground")
    assert (dataset[0].mask == mask).all()
    assert whole(tmp_path, class_names=["object"])[0].mask.max() == 1  # one class: a binary model
    picture(tmp_path / "images" / "b.png")
    cv2.imwrite(str(tmp_path / "masks" / "b_mask.jpg"), cv2.blur(mask * 255, (3, 3)))
    with pytest.raises(DataError, match=r"b_mask\.jpg: value \d+ in a black-and-white mask.*threshold"):
        whole(tmp_path, mask_kind="binary")[1]
    assert set(np.unique(whole(tmp_path, mask_kind="binary", threshold=128)[1].mask)) <= {0, 1}


def test_reduce_zero_label_and_void_values(tmp_path: Path) -> None:
    masks = folder(tmp_path, 1, classes=4)
    shifted = whole(tmp_path, reduce_zero_label=True, class_names=["a", "b", "c"])[0].mask
    assert (
        shifted == np.where(masks["s00"] == 0, 255, np.where(masks["s00"] == 255, 255, masks["s00"] - 1))
    ).all()
    voided = whole(tmp_path, void_values=[3], class_names=["a", "b", "c"])[0].mask
    assert (voided == np.where(masks["s00"] == 3, 255, masks["s00"])).all()
    with pytest.raises(DataError, match="value 3 in .* stands for no class"):
        whole(tmp_path, reduce_zero_label=True, class_names=["a", "b"])[0]


def test_ids_saved_as_an_rgb_file(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    mask = ids()
    cv2.imwrite(str(tmp_path / "masks" / "x.png"), mask) if (tmp_path / "masks").mkdir() else None
    Image.fromarray(np.stack([mask] * 3, axis=2)).save(tmp_path / "masks" / "a.png")
    assert (whole(tmp_path, class_names=["a", "b", "c"])[0].mask == mask).all()


def test_labelme_outlines_give_masks_and_objects(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg", (20, 30))
    square = [[2, 2], [8, 2], [8, 8], [2, 8]]
    shapes = [
        {"label": "cat", "points": square, "shape_type": "polygon", "group_id": None},
        {"label": "dog", "points": [[12, 4], [20, 10]], "shape_type": "rectangle", "group_id": 1},
        {"label": "dog", "points": [[25, 15], [27, 15]], "shape_type": "circle", "group_id": 1},
        {"label": "__ignore__", "points": [[0, 15], [5, 19]], "shape_type": "rectangle"},
    ]
    content = {"shapes": shapes, "imageHeight": 20, "imageWidth": 30}
    write_json(tmp_path / "masks" / "a.json", content)
    dataset = whole(tmp_path, instances=True)
    assert dataset.class_names == ("background", "cat", "dog")
    sample = dataset[0]
    assert (sample.mask[2:9, 2:9] == 1).all()
    assert (sample.mask[4:11, 12:21] == 2).all()
    assert (sample.mask[15:, :6] == 255).all()
    assert sample.instances is not None
    assert sample.instances.labels.tolist() == [1, 2]  # the two dog shapes are one object
    assert sample.instances.boxes[0].tolist() == [2, 2, 9, 9]
    content["shapes"][0]["shape_type"] = "line"  # type: ignore[index]
    write_json(tmp_path / "masks" / "a.json", content)
    with pytest.raises(DataError, match=r"a\.json: 'line' with 4 points has no area"):
        whole(tmp_path)[0]


def test_yolo_outlines_rasterize_as_pycocotools_does(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg", (20, 40))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(
        "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n1 0.4 0.4 0.6 0.4 0.5 0.6\n"
    )
    (tmp_path / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n")
    dataset = whole(tmp_path, instances=True)
    assert dataset.class_names == ("background", "cat", "dog")
    sample = dataset[0]
    assert sample.instances is not None
    polygon = [[16.0, 8.0, 24.0, 8.0, 20.0, 12.0]]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygon, 20, 40))).astype(bool)
    assert (sample.instances.masks[1] == expected).all()
    assert (sample.mask[expected] == 2).all()
    for line, message in (
        ("0 0.5 0.5 0.2 0.2", "a box has 4"),
        ("7 0 0 1 0 1 1", "class 7"),
        ("0 1 1 30 1 9 9", "0..1"),
    ):
        (tmp_path / "labels" / "a.txt").write_text(line)
        with pytest.raises(DataError, match=rf"a\.txt, line 1.*{message}"):
            whole(tmp_path)[0]


@pytest.mark.parametrize("upper", [True, False])
def test_splits_by_folders_on_either_level(tmp_path: Path, upper: bool) -> None:
    for split, name in (("train", "a"), ("train", "b"), ("valid", "c")):
        base = (split, "{}") if upper else ("{}", split)
        for kind in ("images", "masks"):
            path = tmp_path.joinpath(*(part.format(kind) for part in base)) / f"{name}.png"
            picture(path) if kind == "images" else index_mask(path, ids())
    assert FolderDataset.splits(root=str(tmp_path)) == ("train", "val")
    assert FolderDataset(str(tmp_path), "train").ids == ["a", "b"]
    assert FolderDataset(str(tmp_path), "val").ids == ["c"]


def test_splits_by_lists_with_paths_of_another_machine(tmp_path: Path) -> None:
    folder(tmp_path, 4)
    (tmp_path / "train.txt").write_text("/home/me/images/s02.jpg /home/me/masks/s02.png\ns00\n")
    (tmp_path / "val.txt").write_text("images/s03.jpg\n")
    assert FolderDataset(str(tmp_path), "train").ids == ["s02", "s00"]
    assert FolderDataset(str(tmp_path), "val").ids == ["s03"]
    (tmp_path / "val.txt").write_text("s09\n")
    with pytest.raises(DataError, match=r"val\.txt, line 1: 's09'"):
        FolderDataset(str(tmp_path), "val")


def test_splits_by_table(tmp_path: Path) -> None:
    folder(tmp_path, 3)
    rows = ["image,mask,split", "images/s00.jpg,masks/s01.png,train", "images/s02.jpg,masks/s02.png,val"]
    (tmp_path / "dataset.csv").write_text("\n".join(rows))
    dataset = FolderDataset(str(tmp_path), "train")
    assert dataset.records[0].mask.name == "s01.png"
    assert FolderDataset.splits(root=str(tmp_path)) == ("train", "val")
    (tmp_path / "dataset.csv").write_text("image,mask\n")
    with pytest.raises(DataError, match="no column 'split'"):
        FolderDataset(str(tmp_path), "train")


def test_seeded_fraction_is_stable_and_keeps_groups_together(tmp_path: Path) -> None:
    for video in range(12):
        for frame in range(3):
            picture(tmp_path / "images" / f"v{video}_f{frame}.png")
            index_mask(tmp_path / "masks" / f"v{video}_f{frame}.png", ids())
    options = {
        "val_fraction": 0.3,
        "test_fraction": 0.2,
        "group": r"^(v\d+)_",
        "class_names": ["a", "b", "c"],
    }
    parts = {split: FolderDataset(str(tmp_path), split, **options).ids for split in ("train", "val", "test")}  # type: ignore[arg-type]
    assert sorted(name for part in parts.values() for name in part) == sorted(
        p.stem for p in (tmp_path / "images").iterdir()
    )
    videos = [{name.split("_")[0] for name in part} for part in parts.values()]
    assert sum(len(part) for part in videos) == len(set().union(*videos))
    picture(tmp_path / "images" / "v99_f0.png")
    index_mask(tmp_path / "masks" / "v99_f0.png", ids())
    again = FolderDataset(str(tmp_path), "val", **options).ids  # type: ignore[arg-type]
    assert set(parts["val"]) <= set(again)  # a new video moves no old one


def test_faults_name_file_and_remedy(tmp_path: Path) -> None:
    folder(tmp_path)
    mask = np.array(Image.open(tmp_path / "masks" / "s03.png"))
    mask[0, 0] = 77
    index_mask(tmp_path / "masks" / "s03.png", mask)
    cut = tmp_path / "images" / "s04.jpg"
    cut.write_bytes(cut.read_bytes()[:-90])
    index_mask(tmp_path / "masks" / "s05.png", ids((12, 15)))
    index_mask(tmp_path / "masks" / "s06.png", ids((16, 12)))
    names = ["a", "b", "c"]
    dataset = whole(tmp_path, class_names=names)
    for index, message in (
        (3, r"s03\.png: mask has id 77 in 1 pixels, but there are 3 classes"),
        (4, r"s04\.jpg: .*truncated"),
        (5, r"s05\.png: mask is 15x12 but the image is 16x12"),
        (6, r"s06\.png: .*try dataset\.exif=apply"),
    ):
        with pytest.raises(DataError, match=message):
            dataset[index]
    with pytest.warns(
        UserWarning, match=r"(?s)skipped 4 bad samples.*s03\.png.*s04\.jpg.*s05\.png.*s06\.png"
    ):
        assert len(whole(tmp_path, class_names=names, on_error="skip")) == 6
    (tmp_path / "masks" / "s07.png").unlink()
    with pytest.raises(DataError, match=r"s07\.jpg: image without a mask; expected .*masks/s07"):
        whole(tmp_path, class_names=names)
    (tmp_path / "images" / "s08.jpg").unlink()
    with (
        pytest.warns(UserWarning, match=r"(?s)skipped 2.*s07\.jpg.*s08\.png: mask without an image"),
        pytest.warns(UserWarning, match="skipped 4"),
    ):
        assert len(whole(tmp_path, class_names=names, on_error="skip")) == 4


def test_missing_folders_and_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/nope: no such folder; set dataset\.root"):
        FolderDataset("/nope", "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no sub-folder of masks"):
        FolderDataset(str(tmp_path), "train")
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="split 'train' has no images"):
        FolderDataset(str(tmp_path), "train")
    folder(tmp_path)
    with pytest.raises(DataError, match="no split 'test'; found train, val"):
        FolderDataset(str(tmp_path), "test")
    shutil.copy(tmp_path / "images" / "s00.jpg", tmp_path / "images" / "s00.png")
    with pytest.raises(DataError, match=r"s00\.png: same name as s00\.jpg"):
        FolderDataset(str(tmp_path), "train")


def test_class_files_with_mistakes(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    for text, message in (("a\nb\na\n", "'a' is listed twice"), ("\n", "no classes")):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(DataError, match=rf"classes\.txt: .*{message}"):
            FolderDataset.class_table(root=str(tmp_path))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match="no class 'd'; there are a, b, c"):
        whole(tmp_path, class_names=["a", "d"])


def test_nested_folders_keep_equal_stems_apart(tmp_path: Path) -> None:
    for city in ("x", "y"):
        picture(tmp_path / "images" / city / "a.png")
        index_mask(tmp_path / "masks" / city / "a_gt.png", ids())
    assert whole(tmp_path).ids == ["x/a", "y/a"]


def test_json_of_another_kind_is_explained(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    write_json(tmp_path / "masks" / "a.json", json.loads('{"images": [], "annotations": []}'))
    with pytest.raises(DataError, match="COCO files are read by dataset=coco"):
        whole(tmp_path)
