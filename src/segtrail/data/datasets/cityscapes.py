"""Cityscapes: street scenes of 2048x1024 with 19 evaluated classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from segtrail.data.datasets.base import Common, SegmentationDataset, expect_count, require_folder
from segtrail.data.files import read_labels
from segtrail.data.masks import IndexMasks
from segtrail.data.objects import make_instances
from segtrail.data.tables import table
from segtrail.data.types import ClassTable, DataError, Instances

_IMAGE_ENDING = "_leftImg8bit.png"


@dataclass(frozen=True, slots=True)
class CityscapesRecord:
    """One frame; ``mask`` holds label ids, or train ids where ``train_ids`` is true."""

    image: Path
    mask: Path
    train_ids: bool


class CityscapesDataset(SegmentationDataset):
    """The folder as unpacked: ``leftImg8bit/`` and ``gtFine/`` (or ``gtCoarse/``), by split and city.

    Label ids become the 19 train ids, everything else void. The masks of the test split are dummies,
    so there is no such split.

    Args:
        root: the folder with ``leftImg8bit``.
        split: ``train`` or ``val``.
        labels: ``fine``, or ``coarse`` for the train split (val is always fine).
        train_extra: with coarse labels, add the 19998 frames of ``train_extra``.
        mask_ids: read ``labelIds`` or ``labelTrainIds`` files; ``auto`` takes the latter where they
            exist.
        class_names: null, or the 19 names.
        ignore_index: value of void pixels.
        common: see :class:`SegmentationDataset`. Objects come from ``instanceIds``; regions without
            single objects are crowds.
    """

    def __init__(
        self,
        root: str,
        split: str,
        *,
        labels: Literal["fine", "coarse"] = "fine",
        train_extra: bool = False,
        mask_ids: Literal["auto", "labelIds", "labelTrainIds"] = "auto",
        class_names: Sequence[str] | None = None,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        folder = require_folder(root)
        if split not in ("train", "val"):
            raise DataError(f"{folder}: no split {split!r} with labels in Cityscapes; it has train, val")
        if train_extra and labels != "coarse":
            raise ValueError("train_extra has coarse labels only: set dataset.labels=coarse")
        classes = self.class_table()
        if class_names is not None and tuple(class_names) != classes.names:
            raise DataError(
                f"class names of Cityscapes are {list(classes.names)}; choose among them with dataset=remap"
            )
        kind = "gtCoarse" if labels == "coarse" and split == "train" else "gtFine"
        parts = ["train", "train_extra"] if split == "train" and train_extra else [split]
        records: list[CityscapesRecord] = []
        for part in parts:
            found = _find(folder, kind, part, mask_ids)
            expect_count("Cityscapes", part, len(found), table("cityscapes")["counts"][part])
            records += found
        train_of = {label["id"]: label["train_id"] for label in table("cityscapes")["labels"]}
        kept = {value: train for value, train in train_of.items() if train != 255}
        void = [value for value in train_of if value not in kept]
        self._label_ids = IndexMasks(kept, void=[*void, 255], ignore_index=ignore_index)
        self._train_ids = IndexMasks({}, void=[255], ignore_index=ignore_index)
        self._things = {
            label["id"]: label["train_id"]
            for label in table("cityscapes")["labels"]
            if label["instances"] and label["train_id"] != 255
        }
        super().__init__(
            split=split,
            classes=classes,
            ids=[f"{record.image.parent.name}/{_stem(record.image)}" for record in records],
            records=records,
            ignore_index=ignore_index,
            **common,
        )

    @classmethod
    def class_table(cls, **config: Any) -> ClassTable:
        labels = [label for label in table("cityscapes")["labels"] if label["train_id"] != 255]
        labels.sort(key=lambda label: label["train_id"])
        return ClassTable(
            tuple(label["name"] for label in labels), np.array([label["color"] for label in labels], np.uint8)
        )

    @classmethod
    def splits(cls, *, root: str, **config: Any) -> tuple[str, ...]:
        folder = require_folder(root) / "leftImg8bit"
        found = tuple(split for split in ("train", "val") if (folder / split).is_dir())
        if not found:
            raise DataError(
                f"{folder}/train: no such folder; unpack leftImg8bit_trainvaltest.zip into {root}"
            )
        return found

    def read_image(self, record: CityscapesRecord) -> np.ndarray:
        return self.load(record.image)

    def read_mask(self, record: CityscapesRecord) -> np.ndarray:
        return (self._train_ids if record.train_ids else self._label_ids)(record.mask)

    def read_instances(self, record: CityscapesRecord) -> Instances:
        ending = record.mask.name.rsplit("_", 1)[1]
        values = read_labels(record.mask.with_name(record.mask.name.replace(ending, "instanceIds.png")))
        masks, labels, crowds = [], [], []
        for value in np.unique(values).tolist():
            label = value // 1000 if value >= 1000 else value
            if label in self._things:
                masks.append(values == value)
                labels.append(self._things[label])
                crowds.append(value < 1000)
        return make_instances(masks, labels, crowds, values.shape)

    def describe(self, record: CityscapesRecord) -> str:
        return str(record.mask)

    def sources(self, record: CityscapesRecord) -> tuple[Path, ...]:
        return (record.image, record.mask)


def _stem(image: Path) -> str:
    return image.name.removesuffix(_IMAGE_ENDING)


def _find(root: Path, kind: str, part: str, mask_ids: str) -> list[CityscapesRecord]:
    folder = root / "leftImg8bit" / part
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; unpack leftImg8bit_trainvaltest.zip into {root}")
    if not (root / kind / part).is_dir():
        archive = "gtFine_trainvaltest.zip" if kind == "gtFine" else "gtCoarse.zip"
        raise DataError(f"{root / kind / part}: no such folder; unpack {archive} into {root}")
    records = []
    for image in sorted(folder.glob(f"*/*{_IMAGE_ENDING}")):
        base = root / kind / part / image.parent.name / f"{_stem(image)}_{kind}"
        by_ids = {name: Path(f"{base}_{name}.png") for name in ("labelTrainIds", "labelIds")}
        wanted = ("labelTrainIds", "labelIds") if mask_ids == "auto" else (mask_ids,)
        mask_kind = next((name for name in wanted if by_ids[name].is_file()), None)
        if mask_kind is None:
            expected = by_ids[wanted[-1]]
            raise DataError(f"{image}: image without a mask; expected {expected}")
        records.append(CityscapesRecord(image, by_ids[mask_kind], mask_kind == "labelTrainIds"))
    if not records:
        raise DataError(
            f"{folder}: no */*{_IMAGE_ENDING} in it; unpack leftImg8bit_trainvaltest.zip into {root}"
        )
    return records
