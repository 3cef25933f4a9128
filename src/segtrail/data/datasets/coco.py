"""COCO: objects from polygons and run-length codes, panoptic segments, and COCO-Stuff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Unpack

import numpy as np

from segtrail.data.coco_index import CocoIndex, open_index
from segtrail.data.datasets.base import (
    SPLITS,
    Common,
    SegmentationDataset,
    color_map,
    expect_count,
    require_folder,
)
from segtrail.data.objects import make_instances, paint_large_to_small, paint_overlap_void
from segtrail.data.outlines import BACKGROUNDS
from segtrail.data.pairing import Pair, fraction_splits
from segtrail.data.tables import table
from segtrail.data.types import ClassTable, DataError, Instances

ClassSet = Literal["file", "voc"]

_SMALLEST_VOC_AREA = 1000  # a training image needs that many kept pixels, as in torchvision's reference


class CocoDataset(SegmentationDataset):
    """Images with the objects of a COCO instances file, COCO's own or one of yours.

    The semantic mask is made from the objects. With ``class_set=file`` (background and the file's
    categories) they are painted from large to small and crowds are void. With ``class_set=voc`` the
    21 classes of VOC remain, pixels of several objects are void, and training images with less than
    1000 kept pixels are left out, as torchvision's reference training does. There is no official rule.

    Args:
        root: folder of images and annotations.
        split: ``train``, ``val`` or ``test``.
        images: folder of the images below ``root`` by split; one name for all; null for
            ``<split>2017`` or ``images/<split>2017``.
        annotations: JSON file below ``root`` by split; one name for all, which is then split by seeded
            fractions; null for ``annotations/instances_<split>2017.json``.
        class_set: see above.
        class_names: null, or the names as :meth:`class_table` gives them.
        skip_empty: leave training images without objects out.
        val_fraction, test_fraction, seed, group: as in
            :class:`~segtrail.data.datasets.folder.FolderDataset`, with one annotation file.
        ignore_index: value of void pixels.
        common: see :class:`SegmentationDataset`.
    """

    def __init__(
        self,
        root: str,
        split: str,
        *,
        images: str | Mapping[str, str] | None = None,
        annotations: str | Mapping[str, str] | None = None,
        class_set: ClassSet = "file",
        class_names: Sequence[str] | None = None,
        skip_empty: bool = False,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 0,
        group: str | None = None,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        folder = require_folder(root)
        self._index = open_index(_annotation_file(folder, annotations, split))
        classes, self._class_of = _classes(self._index, class_set)
        if class_names is not None and tuple(class_names) != classes.names:
            raise DataError(
                f"{self._index.path} has the classes {list(classes.names)}; choose among them with "
                f"dataset=remap"
            )
        self._class_set = class_set
        self._background = next(
            (i for i, name in enumerate(classes.names) if name in BACKGROUNDS), ignore_index
        )
        self._void = ignore_index
        self._images = _image_folder(folder, images, split)
        chosen = list(range(len(self._index)))
        if isinstance(annotations, str):
            ids = {_id(self._index, image): image for image in chosen}
            pairs = [Pair(id_, Path(id_), Path(id_)) for id_ in sorted(ids)]
            parts = fraction_splits(pairs, val_fraction, test_fraction, seed, group)
            if split not in parts:
                raise DataError(f"{self._index.path}: no split {split!r}; set dataset.{split}_fraction")
            chosen = [ids[pair.id] for pair in parts[split]]
        elif annotations is None and split in table("coco")["counts"]:
            expect_count("COCO", split, len(chosen), table("coco")["counts"][split])
        if split == "train" and (skip_empty or class_set == "voc"):
            least = _SMALLEST_VOC_AREA if class_set == "voc" else 0
            chosen = [image for image in chosen if self._kept_area(image) > least]
        super().__init__(
            split=split,
            classes=classes,
            ids=[_id(self._index, image) for image in chosen],
            records=chosen,
            ignore_index=ignore_index,
            **common,
        )

    @classmethod
    def class_table(
        cls,
        *,
        root: str,
        annotations: str | Mapping[str, str] | None = None,
        class_set: ClassSet = "file",
        **config: Any,
    ) -> ClassTable:
        if class_set == "voc":
            return _voc_table()
        folder = require_folder(root)
        split = cls.splits(root=root, annotations=annotations, **config)[0]
        return _classes(open_index(_annotation_file(folder, annotations, split)), class_set)[0]

    @classmethod
    def splits(
        cls,
        *,
        root: str,
        annotations: str | Mapping[str, str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        **config: Any,
    ) -> tuple[str, ...]:
        folder = require_folder(root)
        if isinstance(annotations, str):
            shares = {"train": 1.0, "val": val_fraction, "test": test_fraction}
            return tuple(split for split in SPLITS if shares[split] > 0)
        found = tuple(split for split in SPLITS if _annotation_file(folder, annotations, split).is_file())
        if not found:
            raise DataError(
                f"{_annotation_file(folder, annotations, 'train')}: no such file; unpack the annotations"
            )
        return found

    def read_image(self, record: int) -> np.ndarray:
        return self.load(self._images / self._index.file_name(record))

    def read_mask(self, record: int) -> np.ndarray:
        paint = paint_overlap_void if self._class_set == "voc" else paint_large_to_small
        mask = paint(self.read_instances(record), self._background, self._void)
        fits = len(self.class_names) <= 255 and 0 <= self._void < 256
        return mask.astype(np.uint8) if fits else mask

    def read_instances(self, record: int) -> Instances:
        places = [place for place in self._index.annotations(record) if self._kept(place)]
        masks = self._index.masks(record, places)
        return make_instances(
            masks,
            [self._class_of[int(self._index.categories[place])] for place in places],
            [bool(self._index.iscrowd[place]) for place in places],
            masks.shape[1:],
        )

    def describe(self, record: int) -> str:
        return f"{self._index.path}: image {self._index.file_name(record)}"

    def sources(self, record: int) -> tuple[Path, ...]:
        return (self._images / self._index.file_name(record), self._index.path)

    def _kept(self, place: int) -> bool:
        return int(self._index.categories[place]) in self._class_of

    def _kept_area(self, image: int) -> float:
        places = [place for place in self._index.annotations(image) if self._kept(place)]
        return float(self._index.areas[places].sum())


def _id(index: CocoIndex, image: int) -> str:
    return PurePosixPath(index.file_name(image)).with_suffix("").as_posix()


def _annotation_file(root: Path, annotations: str | Mapping[str, str] | None, split: str) -> Path:
    if isinstance(annotations, str):
        return root / annotations
    if annotations is not None:
        return root / annotations.get(split, f"no annotations for {split}")
    return root / "annotations" / f"instances_{split}2017.json"


def _image_folder(root: Path, images: str | Mapping[str, str] | None, split: str) -> Path:
    if images is not None:
        places = [root / (images if isinstance(images, str) else images.get(split, ""))]
    else:
        places = [
            root / f"{split}2017",
            root / "images" / f"{split}2017",
            root / "images" / split,
            root / "images",
        ]
    return first_folder(places)


def usual_image_folders(root: Path, split: str) -> list[Path]:
    """Where the images of a split of COCO 2017 may be."""
    return [root / f"{split}2017", root / "images" / f"{split}2017"]


def first_folder(places: Sequence[Path], key: str = "dataset.images") -> Path:
    """The first of the folders that exists.

    Raises:
        DataError: none does.
    """
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise DataError(f"{places[0]}: no such folder; unpack it or set {key}")
    return found


def _voc_table() -> ClassTable:
    names = table("voc")["names"]
    return ClassTable(tuple(names), color_map(len(names)))


def _classes(index: CocoIndex, class_set: ClassSet) -> tuple[ClassTable, dict[int, int]]:
    """Table, and class id of each category id that is kept."""
    if class_set == "voc":
        order = table("coco")["voc_categories"]
        return _voc_table(), {category: class_id for class_id, category in enumerate(order) if class_id}
    categories = sorted(index.category_table, key=lambda category: category["id"])
    own = [category["name"] for category in categories if category["name"] in BACKGROUNDS]
    names = [category["name"] for category in categories if category["name"] not in own]
    if len(set(names)) != len(names):
        raise DataError(f"{index.path}: two categories share a name")
    official = {row["id"]: row["color"] for row in table("coco")["categories"]}
    by_name = {row["name"]: row["color"] for row in table("coco")["categories"]}
    colors = color_map(len(names) + 1)
    class_of = {}
    for category in categories:
        class_id = 0 if category["name"] in own else names.index(category["name"]) + 1
        class_of[category["id"]] = class_id
        if (
            class_id
            and category["name"] in by_name
            and official.get(category["id"]) == by_name[category["name"]]
        ):
            colors[class_id] = by_name[category["name"]]
    return ClassTable(((own or ["background"])[0], *names), colors), class_of
