"""Your own data: images and masks in folders, in whatever way they come."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from segtrail.data.datasets.base import Common, SegmentationDataset, SkippedSamples, require_folder
from segtrail.data.discovery import Scheme, find_scheme
from segtrail.data.layout import Layout, SplitBy
from segtrail.data.masks import BinaryMasks, ColorMasks, IndexMasks
from segtrail.data.outlines import LabelmeMasks, YoloMasks
from segtrail.data.pairing import Pair
from segtrail.data.types import ClassTable, DataError, Instances

MaskKind = Literal["auto", "index", "color", "binary", "labelme", "yolo"]


class FolderDataset(SegmentationDataset):
    """Images and masks of the same stem.

    The layout is found by itself: a folder of images and one of masks, split by sub-folders on either
    level (``images/train`` or ``train/images``), by list files (``train.txt``), by ``dataset.csv``, or
    by a seeded fraction. So are the classes, from any file that
    :data:`~segtrail.data.class_files.CLASS_FILES` names, or from the masks.

    Args:
        root: the folder.
        split: ``train``, ``val`` or ``test``.
        images, masks: names of the two sub-folders; null for the usual ones.
        class_names: in id order; null to find them.
        class_file: list of classes, below ``root``; null to find it.
        mask_kind: ``index`` (also palette PNG and .npy), ``color`` (RGB by the class file), ``binary``
            (0 and 255), ``labelme`` (JSON), ``yolo`` (outlines in text files), or ``auto`` to look.
        void_values: values of index masks, or RGB colors of color masks, that mean void;
            ``ignore_index`` always does.
        void_classes: classes of the class file that mean void.
        reduce_zero_label: value 0 is void and class ids start at 1, as in ADE20K.
        threshold: of binary masks; null demands 0 and 255 exactly.
        split_by: ``folders``, ``lists``, ``csv``, ``fraction``; ``auto`` takes the first that is there.
        csv: table with the columns image, mask, split, below ``root``.
        val_fraction, test_fraction, seed: of the seeded fraction.
        group: regular expression on the id; samples with equal match stay in one split.
        ignore_index, common: see :class:`SegmentationDataset`. Outlines give objects.

    Raises:
        DataError: an image without a mask, no such folder or split, unknown classes.
    """

    def __init__(
        self,
        root: str,
        split: str,
        *,
        images: str | None = None,
        masks: str | None = None,
        class_names: Sequence[str] | None = None,
        class_file: str | None = None,
        mask_kind: MaskKind = "auto",
        void_values: Sequence[Any] = (),
        void_classes: Sequence[str] = (),
        reduce_zero_label: bool = False,
        threshold: int | None = None,
        split_by: SplitBy = "auto",
        csv: str = "dataset.csv",
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 0,
        group: str | None = None,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        folder = require_folder(root)
        layout = Layout(
            folder, images, masks, mask_kind, split_by, csv, val_fraction, test_fraction, seed, group
        )
        pairs, faults = layout.pairs(split)
        if faults and common.get("on_error", "raise") == "raise":
            raise DataError(faults[0] + (f" ({len(faults)} such files)" if len(faults) > 1 else ""))
        if faults:
            warnings.warn(SkippedSamples(split, faults), stacklevel=2)
        scheme = find_scheme(layout, class_names, class_file, void_classes, [*void_values, ignore_index])
        self._outlines: LabelmeMasks | YoloMasks | None = None
        if scheme.kind == "labelme":
            self._outlines = LabelmeMasks(scheme.table.names, ignore_index)
        elif scheme.kind == "yolo":
            self._outlines = YoloMasks(scheme.table.names, ignore_index, common.get("exif", "ignore"))
        else:
            self._values = _reader(scheme, void_values, reduce_zero_label, threshold, ignore_index)
        super().__init__(
            split=split,
            classes=scheme.table,
            ignore_index=ignore_index,
            ids=[pair.id for pair in pairs],
            records=pairs,
            **common,
        )

    @classmethod
    def class_table(
        cls,
        *,
        root: str,
        class_names: Sequence[str] | None = None,
        class_file: str | None = None,
        void_values: Sequence[Any] = (),
        void_classes: Sequence[str] = (),
        ignore_index: int = 255,
        **config: Any,
    ) -> ClassTable:
        layout = _layout(require_folder(root), config)
        return find_scheme(layout, class_names, class_file, void_classes, [*void_values, ignore_index]).table

    @classmethod
    def splits(cls, *, root: str, **config: Any) -> tuple[str, ...]:
        return _layout(require_folder(root), config).splits()

    def read_image(self, record: Pair) -> np.ndarray:
        return self.load(record.image)

    def read_mask(self, record: Pair) -> np.ndarray:
        if self._outlines is None:
            return self._values(record.mask)
        mask = self._outlines.mask(record.mask, record.image)
        return mask.astype(np.uint8) if mask.min() >= 0 and mask.max() < 256 else mask

    def read_instances(self, record: Pair) -> Instances | None:
        return self._outlines.objects(record.mask, record.image) if self._outlines else None

    def describe(self, record: Pair) -> str:
        return str(record.mask)

    def sources(self, record: Pair) -> tuple[Path, ...]:
        return (record.image, record.mask)


def _layout(folder: Path, config: dict[str, Any]) -> Layout:
    keys = (
        "images",
        "masks",
        "mask_kind",
        "split_by",
        "csv",
        "val_fraction",
        "test_fraction",
        "seed",
        "group",
    )
    return Layout(folder, **{name: config[name] for name in keys if name in config})


def _reader(
    scheme: Scheme,
    void_values: Sequence[int | Sequence[int]],
    reduce_zero_label: bool,
    threshold: int | None,
    ignore_index: int,
) -> Callable[[Path], np.ndarray]:
    if scheme.kind == "binary":
        return BinaryMasks(threshold)
    if scheme.kind == "color":
        void_colors: list[Sequence[int]] = [entry.color for entry in scheme.void if entry.color]
        void_colors += [value for value in void_values if not isinstance(value, int)]
        return ColorMasks(scheme.table.palette, void_colors, ignore_index, scheme.table.names)
    void_ids = [entry.value for entry in scheme.void]
    return IndexMasks(
        {entry.value: index for index, entry in enumerate(scheme.entries)},
        void=[*void_ids, *(value for value in void_values if isinstance(value, int))],
        ignore_index=ignore_index,
        reduce_zero_label=reduce_zero_label,
    )
