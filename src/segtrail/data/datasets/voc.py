"""PASCAL VOC 2007 and 2012, with the Semantic Boundaries Dataset as further training masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from segtrail.data.datasets.base import (
    Common,
    SegmentationDataset,
    color_map,
    expect_count,
    require_folder,
)
from segtrail.data.files import read_labels
from segtrail.data.objects import make_instances
from segtrail.data.tables import table
from segtrail.data.types import ClassTable, DataError, Instances

TrainSet = Literal["train", "trainval", "trainaug"]

_BORDER = 255


@dataclass(frozen=True, slots=True)
class VocRecord:
    """One image; ``boundaries`` is true where the mask comes from the Semantic Boundaries Dataset."""

    id: str
    image: Path
    mask: Path
    boundaries: bool


class VocDataset(SegmentationDataset):
    """VOC as unpacked: ``JPEGImages``, palette masks in ``SegmentationClass``, border pixels void.

    ``trainaug`` is (SBD train and val, VOC train) without VOC val: 10582 images, of which 1464 have the
    original masks. Its masks come from ``SegmentationClassAug`` where that is there, else from the
    ``.mat`` files of SBD (Hariharan et al., ICCV 2011). Masks of SBD have no void border.

    Args:
        root: the folder above ``VOCdevkit``, that one, or ``VOC2012`` itself.
        split: ``train``, ``val``, or ``test`` (which only 2007 has labels for).
        year: 2012 or 2007.
        train_set: what the train split is.
        sbd_root: folder with ``cls/`` and ``train.txt`` of SBD; null for ``root``'s neighbor of the
            usual names. Only for ``trainaug``.
        class_names: null, or the 21 names.
        ignore_index: value of void pixels.
        common: see :class:`SegmentationDataset`. Objects come from ``SegmentationObject``.
    """

    def __init__(
        self,
        root: str,
        split: str,
        *,
        year: int = 2012,
        train_set: TrainSet = "train",
        sbd_root: str | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        files = _Files(require_folder(root), year, Path(sbd_root).expanduser() if sbd_root else None)
        if split not in files.splits():
            raise DataError(
                f"{files.folder}: no split {split!r}; found {', '.join(files.splits()) or 'none'}"
            )
        if train_set not in ("train", "trainval", "trainaug"):
            raise ValueError(f"train_set is {train_set!r}; it is train, trainval or trainaug")
        classes = self.class_table()
        if class_names is not None and tuple(class_names) != classes.names:
            raise DataError(
                f"class names of VOC are {list(classes.names)}; choose among them with dataset=remap"
            )
        subset = train_set if split == "train" else split
        records = files.records(subset)
        official = table("voc")["counts"].get(str(year), {}).get(subset)
        if official is not None:
            expect_count(f"VOC {year}", subset, len(records), official)
        super().__init__(
            split=split,
            classes=classes,
            ids=[record.id for record in records],
            records=records,
            ignore_index=ignore_index,
            **common,
        )

    @classmethod
    def class_table(cls, **config: Any) -> ClassTable:
        names = table("voc")["names"]
        return ClassTable(tuple(names), color_map(len(names)))

    @classmethod
    def splits(cls, *, root: str, year: int = 2012, **config: Any) -> tuple[str, ...]:
        return _Files(require_folder(root), year, None).splits()

    def read_image(self, record: VocRecord) -> np.ndarray:
        return self.load(record.image)

    def read_mask(self, record: VocRecord) -> np.ndarray:
        mask = _read_mat(record.mask)[0] if record.mask.suffix == ".mat" else _read_index(record.mask)
        return _with_void(mask, self.ignore_index)

    def read_instances(self, record: VocRecord) -> Instances:
        if record.mask.suffix == ".mat":
            numbers, labels = _read_mat(record.mask.parent.parent / "inst" / record.mask.name)
        else:
            numbers = _read_index(record.mask.parent.parent / "SegmentationObject" / f"{record.id}.png")
            labels = _majority_labels(numbers, _read_index(record.mask), record.mask)
        found = [number for number in range(1, len(labels) + 1) if (numbers == number).any()]
        return make_instances(
            [numbers == number for number in found],
            [int(labels[number - 1]) for number in found],
            [False] * len(found),
            numbers.shape,
        )

    def describe(self, record: VocRecord) -> str:
        return str(record.mask)

    def sources(self, record: VocRecord) -> tuple[Path, ...]:
        return (record.image, record.mask)


def _read_index(path: Path) -> np.ndarray:
    labels = read_labels(path)
    if labels.ndim == 3:
        raise DataError(f"{path}: an RGB picture, not a palette PNG; unpack the original archive again")
    return labels


def _with_void(mask: np.ndarray, ignore_index: int) -> np.ndarray:
    if ignore_index == _BORDER:
        return mask
    mask = mask if 0 <= ignore_index < 256 else mask.astype(np.int32)
    return np.where(mask == _BORDER, np.array(ignore_index, mask.dtype), mask)


def _majority_labels(numbers: np.ndarray, mask: np.ndarray, path: Path) -> list[int]:
    """Class of each object: the most frequent class id under it."""
    labels = []
    for number in range(1, int(numbers[numbers != _BORDER].max(initial=0)) + 1):
        under = mask[(numbers == number) & (mask != _BORDER)]
        counts = np.bincount(under, minlength=2)
        counts[0] = 0
        if len(under) and not counts.any():
            raise DataError(f"{path}: object {number} of SegmentationObject lies on background only")
        labels.append(int(counts.argmax()))
    return labels


def _read_mat(path: Path) -> tuple[np.ndarray, list[int]]:
    """Segmentation of an SBD file, and the categories of its objects (empty in ``cls``)."""
    from scipy.io import loadmat  # a slow import that few need

    try:
        content = loadmat(path, mat_dtype=False)
        record = content["GTcls" if "GTcls" in content else "GTinst"][0]
        segmentation = record["Segmentation"][0].astype(np.uint8)
        names = record.dtype.names or ()
        categories = record["Categories"][0].ravel().astype(int).tolist() if "GTinst" in content else []
        assert "Segmentation" in names
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: not a mask of the Semantic Boundaries Dataset ({error})") from error
    return segmentation, categories


@dataclass
class _Files:
    """The folders of one year."""

    root: Path
    year: int
    sbd_root: Path | None

    @cached_property
    def folder(self) -> Path:
        name = f"VOC{self.year}"
        places = [
            self.root,
            self.root / name,
            self.root / "VOCdevkit" / name,
            self.root / "TrainVal" / "VOCdevkit" / name,
        ]
        for place in places:
            if (place / "JPEGImages").is_dir() and (place.name == name or place == self.root):
                return place
        raise DataError(f"{self.root}: no {name}/JPEGImages in it or in VOCdevkit; unpack VOCtrainval there")

    @property
    def lists(self) -> Path:
        return self.folder / "ImageSets" / "Segmentation"

    def splits(self) -> tuple[str, ...]:
        found = [split for split in ("train", "val", "test") if (self.lists / f"{split}.txt").is_file()]
        # The test list of 2012 comes without masks: those are on the evaluation server.
        return tuple(split for split in found if split != "test" or self._has_mask(self._ids(split)[0]))

    def records(self, subset: str) -> list[VocRecord]:
        """Images of ``subset`` whose files are here.

        Raises:
            DataError: none are.
        """
        ids = self._augmented_ids() if subset == "trainaug" else self._ids(subset)
        original = set(self._ids("train")) if subset == "trainaug" else set(ids)
        records = []
        for id_ in ids:
            mask = self._mask(id_, id_ in original)
            image = self.folder / "JPEGImages" / f"{id_}.jpg"
            if mask is not None and image.is_file():
                records.append(VocRecord(id_, image, mask, id_ not in original))
        if not records:
            raise DataError(
                f"{self.folder / 'JPEGImages' / ids[0]}.jpg: this image, its mask in SegmentationClass, or "
                f"both are missing, as are all others of {subset}; unpack the archives here"
            )
        return records

    def _mask(self, id_: str, original: bool) -> Path | None:
        places = [self.folder / "SegmentationClass" / f"{id_}.png"]
        if not original:
            places = [self.folder / "SegmentationClassAug" / f"{id_}.png"]
            if self._sbd is not None:
                places.append(self._sbd / "cls" / f"{id_}.mat")
        return next((place for place in places if place.is_file()), None)

    def _has_mask(self, id_: str) -> bool:
        return self._mask(id_, original=True) is not None

    def _ids(self, subset: str) -> list[str]:
        return _read_list(self.lists / f"{subset}.txt")

    def _augmented_ids(self) -> list[str]:
        listed = self.lists / "trainaug.txt"
        if listed.is_file():
            return _read_list(listed)
        if self._sbd is None:
            raise DataError(
                f"{self.folder}: trainaug needs SBD: set dataset.sbd_root to its folder with cls/ and "
                f"train.txt, or add SegmentationClassAug/ and {listed}"
            )
        boundaries = [id_ for part in ("train", "val") for id_ in _read_list(self._sbd / f"{part}.txt")]
        return sorted({*boundaries, *self._ids("train")} - set(self._ids("val")))

    @cached_property
    def _sbd(self) -> Path | None:
        bases = (
            [self.sbd_root] if self.sbd_root else [self.root, self.folder.parent, self.folder.parent.parent]
        )
        for base in bases:
            for below in ("", "sbd", "SBD", "benchmark_RELEASE/dataset", "dataset"):
                if (base / below / "cls").is_dir() and (base / below / "train.txt").is_file():
                    return base / below
        if self.sbd_root:
            raise DataError(f"{self.sbd_root}: no cls/ and train.txt of SBD in it; set dataset.sbd_root")
        return None


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text().split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); it comes with the archive") from error
    # mmsegmentation's lists hold "image mask" pairs of paths: the stem of the first is the id.
    ids = [Path(line.split()[0]).stem for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path}: empty list")
    return ids
