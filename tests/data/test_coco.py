"""COCO files: every kind of outline, gaps in the ids, crowds, panoptic segments, stuff."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segtrail.data.coco_index import open_index
from segtrail.data.datasets.coco import CocoDataset
from segtrail.data.datasets.coco_panoptic import CocoPanopticDataset
from segtrail.data.datasets.coco_stuff import CocoStuffDataset
from segtrail.data.tables import table
from segtrail.data.types import DataError
from tests.data.makers import index_mask, picture, write_json

pytestmark = [
    pytest.mark.filterwarnings("ignore:COCO:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # pycocotools with NumPy 2
]

SIZE = (40, 60)
SQUARE = [5.5, 5.5, 25.3, 5.5, 25.3, 30.2, 5.5, 30.2]
TRIANGLE = [30.0, 10.0, 55.0, 12.0, 40.0, 35.0]


def blob(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, columns] = 1
    return mask


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(SIZE), "counts": runs if flat[0] == 0 else [0, *runs]}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(SIZE), "counts": code["counts"].decode()}


def content() -> dict[str, Any]:
    shapes = [
        (9, 1, [SQUARE], 0),
        (9, 90, [TRIANGLE, [1.0, 1.0, 4.0, 1.0, 4.0, 4.0]], 0),
        (4, 13, compressed(blob(slice(8, 20), slice(3, 9))), 0),
        (4, 1, uncompressed(blob(slice(0, 30), slice(20, 60))), 1),
        (4, 90, uncompressed(blob(slice(5, 10), slice(25, 30))), 0),
    ]
    return {
        "images": [
            {"id": id_, "file_name": f"{id_:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for id_ in (9, 4, 7)
        ],
        "annotations": [
            {
                "id": 100 + n,
                "image_id": image,
                "category_id": category,
                "segmentation": shape,
                "iscrowd": crowd,
                "area": 500.0 + n,
                "bbox": [0, 0, 1, 1],
            }
            for n, (image, category, shape, crowd) in enumerate(shapes)
        ],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 1, "name": "person"},
            {"id": 13, "name": "stop sign"},
        ],
    }


def make(root: Path, split: str = "train", changed: dict[str, Any] | None = None) -> Path:
    everything = changed or content()
    for image in everything["images"]:
        picture(root / f"{split}2017" / image["file_name"], SIZE)
    return write_json(root / "annotations" / f"instances_{split}2017.json", everything)


def test_every_kind_of_outline_rasterizes_as_pycocotools_does(tmp_path: Path) -> None:
    path = make(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    index = open_index(path)
    assert index.image_ids.tolist() == [9, 4, 7]
    for place, image in enumerate(index.image_ids.tolist()):
        annotations = index.annotations(place)
        expected = coco.loadAnns(coco.getAnnIds(imgIds=image))
        assert index.annotation_ids[list(annotations)].tolist() == [row["id"] for row in expected]
        for mask, row in zip(index.masks(place, annotations), expected, strict=True):
            assert (mask == coco.annToMask(row)).all()
            assert mask.any()
    # The trap: filling rounded corners draws another outline.
    filled = cv2.fillPoly(
        np.zeros(SIZE, np.uint8), [np.array(TRIANGLE).reshape(-1, 2).round().astype(np.int32)], 1
    )
    assert (
        filled.astype(bool) != coco_mask.decode(coco_mask.frPyObjects([TRIANGLE], *SIZE))[..., 0].astype(bool)
    ).any()


def test_category_ids_with_gaps_become_contiguous(tmp_path: Path) -> None:
    make(tmp_path)
    dataset = CocoDataset(str(tmp_path), "train", instances=True)
    assert dataset.class_names == ("background", "person", "stop sign", "toothbrush")
    assert dataset.ids == ["000000000009", "000000000004", "000000000007"]
    first, second, empty = (dataset[i] for i in range(3))
    assert first.instances is not None
    assert first.instances.labels.tolist() == [1, 3]
    assert second.instances is not None
    assert second.instances.iscrowd.tolist() == [False, True, False]
    assert empty.instances is not None
    assert empty.instances.masks.shape == (0, *SIZE)
    assert not empty.mask.any()


def test_small_objects_lie_on_top_and_crowds_are_void(tmp_path: Path) -> None:
    make(tmp_path)
    mask = CocoDataset(str(tmp_path), "train")[1].mask
    expected = np.zeros(SIZE, np.uint8)
    expected[0:30, 20:60] = 255
    expected[8:20, 3:9] = 2
    expected[5:10, 25:30] = 3
    assert (mask == expected).all()


def test_voc_classes_overlap_void_and_small_training_images_left_out(tmp_path: Path) -> None:
    everything = content()
    for row in everything["annotations"]:
        row["area"] = 2000.0
    everything["categories"].append({"id": 16, "name": "bird"})
    everything["annotations"][2]["category_id"] = 16
    everything["annotations"][4]["category_id"] = 1
    make(tmp_path, changed=everything)
    make(tmp_path, "val", changed=everything)
    dataset = CocoDataset(str(tmp_path), "train", class_set="voc")
    assert len(dataset.class_names) == 21
    assert dataset.ids == ["000000000009", "000000000004"]  # the empty image is left out
    mask = dataset[1].mask
    assert (mask[5:10, 25:30] == 255).all()  # two persons
    assert (mask[12:15, 40:50] == 15).all()
    assert (mask[8:20, 3:9] == 3).all()
    assert len(CocoDataset(str(tmp_path), "val", class_set="voc")) == 3


def test_images_without_objects_are_kept_unless_asked(tmp_path: Path) -> None:
    make(tmp_path)
    assert len(CocoDataset(str(tmp_path), "train")) == 3
    assert len(CocoDataset(str(tmp_path), "train", skip_empty=True)) == 2


def test_one_file_of_your_own_split_by_fractions(tmp_path: Path) -> None:
    everything = content()
    everything["images"] = [
        {"id": n, "file_name": f"shots/{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(20)
    ]
    everything["annotations"] = [row | {"image_id": n} for n, row in enumerate(everything["annotations"])]
    for image in everything["images"]:
        picture(tmp_path / image["file_name"], SIZE)
    write_json(tmp_path / "export.json", everything)
    options = {"images": ".", "annotations": "export.json", "val_fraction": 0.25}
    assert CocoDataset.splits(root=str(tmp_path), **options) == ("train", "val")  # type: ignore[arg-type]
    parts = [CocoDataset(str(tmp_path), split, **options) for split in ("train", "val")]  # type: ignore[arg-type]
    assert sorted(parts[0].ids + parts[1].ids) == sorted(f"shots/{n}" for n in range(20))
    assert parts[1][0].image.shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=12), "annotation 100 has category 12"),
        (lambda c: c["annotations"][0].update(image_id=77), "annotation 100 names image 77"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "fewer than 3 points"),
        (lambda c: c["annotations"][2]["segmentation"].update(size=[5, 5]), "size .5, 5. in an image"),
        (lambda c: c["annotations"][3]["segmentation"].update(counts=[5, 5]), "runs of 10 pixels"),
        (lambda c: c.pop("categories"), "no list 'categories'"),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, change: Any, message: str) -> None:
    everything = content()
    change(everything)
    make(tmp_path, changed=everything)
    with pytest.raises(DataError, match=rf"instances_train2017\.json.*{message}"):
        CocoDataset(str(tmp_path), "train")


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances_train2017\.json: no such"):
        CocoDataset(str(tmp_path), "train")
    path = make(tmp_path)
    (tmp_path / "train2017" / "000000000009.jpg").unlink()
    with pytest.raises(DataError, match=r"000000000009\.jpg: cannot be read"):
        CocoDataset(str(tmp_path), "train")[0]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="not a readable JSON file"):
        CocoDataset(str(tmp_path), "train")


def test_annotations_without_an_outline_are_left_out(tmp_path: Path) -> None:
    everything = content()
    everything["annotations"][0]["segmentation"] = []
    with pytest.warns(UserWarning, match="1 annotations without an outline"):
        open_index(make(tmp_path, changed=everything))


def _open(path: str) -> int:
    return len(open_index(Path(path)))


def test_the_index_is_parsed_once_by_many_and_anew_after_a_change(tmp_path: Path) -> None:
    path = make(tmp_path)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_open, [str(path)] * 3) == [3] * 3
    assert isinstance(open_index(path).first, np.memmap)
    everything = content()
    everything["images"].pop()
    write_json(path, everything)
    assert len(open_index(path)) == 2


def test_panoptic_segments(tmp_path: Path) -> None:
    ids = np.full(SIZE, 0, np.int64)
    ids[5:20, 5:20], ids[25:, :] = 3226956, 70000  # ids need all three bytes
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    (tmp_path / "annotations" / "panoptic_val2017").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "annotations" / "panoptic_val2017" / "000000000005.png"), rgb[..., ::-1])
    picture(tmp_path / "val2017" / "000000000005.jpg", SIZE)
    everything = {
        "images": [{"id": 5, "file_name": "000000000005.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [
            {
                "image_id": 5,
                "file_name": "000000000005.png",
                "segments_info": [
                    {"id": 3226956, "category_id": 1, "iscrowd": 0},
                    {"id": 70000, "category_id": 184, "iscrowd": 0},
                ],
            }
        ],
        "categories": [
            {"id": 184, "name": "tree-merged", "isthing": 0},
            {"id": 1, "name": "person", "isthing": 1},
        ],
    }
    path = write_json(tmp_path / "annotations" / "panoptic_val2017.json", everything)
    assert CocoPanopticDataset.splits(root=str(tmp_path)) == ("val",)
    sample = CocoPanopticDataset(str(tmp_path), "val", instances=True)[0]
    assert (sample.mask == np.where(ids == 0, 255, np.where(ids == 70000, 1, 0))).all()
    assert sample.instances is not None
    assert sample.instances.labels.tolist() == [0]  # stuff is no object
    assert sample.instances.boxes.tolist() == [[5, 5, 20, 20]]
    everything["annotations"][0]["segments_info"].pop()  # type: ignore[index]
    write_json(path, everything)
    with pytest.raises(DataError, match="segment 70000 is not listed"):
        CocoPanopticDataset(str(tmp_path), "val")[0]


def test_stuff_values_skip_the_unused_ids(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[:10], mask[10:20], mask[20:30] = 12, 181, 255
    for split in ("train", "val"):
        picture(tmp_path / f"{split}2017" / "000000000005.jpg", SIZE)
        index_mask(tmp_path / "stuffthingmaps" / f"{split}2017" / "000000000005.png", mask)
    dataset = CocoStuffDataset(str(tmp_path), "train")
    assert len(dataset.class_names) == 171
    found = dataset[0].mask
    assert dataset.class_names[found[0, 0]] == "stop sign"
    assert (found[10:20] == 170).all()
    assert (found[20:30] == 255).all()
    mask[0, 0] = 11  # "street sign": never used, and not class 11
    index_mask(tmp_path / "stuffthingmaps" / "train2017" / "000000000005.png", mask)
    with pytest.raises(DataError, match="value 11 in 1 pixels, which stands for no class"):
        dataset[0]


def test_tables_hold_what_is_published() -> None:
    content = table("coco")
    assert content["counts"] == {"train": 118287, "val": 5000}
    assert sum(row["thing"] for row in content["categories"]) == 80
    assert len(content["categories"]) == 133
    names = {row["id"]: row["name"] for row in content["categories"]}
    voc = table("voc")["names"]
    spelled = {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    assert [names[id_] for id_ in content["voc_categories"][1:]] == [
        spelled.get(name, name) for name in voc[1:]
    ]
