"""COCO-Stuff: 171 classes of things and stuff, as label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from segtrail.data.datasets.base import (
    Common,
    SegmentationDataset,
    color_map,
    expect_count,
    require_folder,
)
from segtrail.data.datasets.coco import first_folder, usual_image_folders
from segtrail.data.files import IMAGE_SUFFIXES
from segtrail.data.masks import IndexMasks
from segtrail.data.pairing import Pair, find_pairs
from segtrail.data.tables import table
from segtrail.data.types import ClassTable, DataError


class CocoStuffDataset(SegmentationDataset):
    """COCO-Stuff 164k: ``stuffthingmaps/<split>2017`` beside the images; 255 is void.

    The value in a PNG is the id in the data set's ``labels.txt`` less one; eleven of the 182 never
    occur, and the others become 0 to 170 in their order.

    Args:
        root: folder with ``stuffthingmaps/`` and the images.
        split: ``train`` or ``val``.
        class_names: null, or the 171 names.
        ignore_index: value of void pixels.
        common: see :class:`SegmentationDataset`. The label maps have no objects.
    """

    def __init__(
        self,
        root: str,
        split: str,
        *,
        class_names: Sequence[str] | None = None,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        folder = require_folder(root)
        classes = self.class_table()
        if class_names is not None and tuple(class_names) != classes.names:
            raise DataError("class names of COCO-Stuff are its 171; choose among them with dataset=remap")
        if split not in ("train", "val"):
            raise DataError(f"COCO-Stuff has no split {split!r}; it has train, val")
        images = first_folder(usual_image_folders(folder, split))
        masks = first_folder([folder / place / f"{split}2017" for place in ("stuffthingmaps", "annotations")])
        pairs, faults = find_pairs(images, masks, IMAGE_SUFFIXES)
        if not pairs:
            raise DataError(faults[0] if faults else f"{images}: no images in it")
        expect_count("COCO-Stuff", split, len(pairs), table("coco")["counts"][split])
        rows = table("coco")["stuff"]
        self._read = IndexMasks(
            {row["value"]: index for index, row in enumerate(rows)}, void=[255], ignore_index=ignore_index
        )
        super().__init__(
            split=split,
            classes=classes,
            ids=[pair.id for pair in pairs],
            records=pairs,
            ignore_index=ignore_index,
            **common,
        )

    @classmethod
    def class_table(cls, **config: Any) -> ClassTable:
        names = [row["name"] for row in table("coco")["stuff"]]
        return ClassTable(tuple(names), color_map(len(names)))

    @classmethod
    def splits(cls, *, root: str, **config: Any) -> tuple[str, ...]:
        folder = require_folder(root) / "stuffthingmaps"
        found = tuple(split for split in ("train", "val") if (folder / f"{split}2017").is_dir())
        if not found:
            raise DataError(
                f"{folder}/train2017: no such folder; unpack stuffthingmaps_trainval2017.zip there"
            )
        return found

    def read_image(self, record: Pair) -> np.ndarray:
        return self.load(record.image)

    def read_mask(self, record: Pair) -> np.ndarray:
        return self._read(record.mask)

    def describe(self, record: Pair) -> str:
        return str(record.mask)

    def sources(self, record: Pair) -> tuple[Path, ...]:
        return (record.image, record.mask)
