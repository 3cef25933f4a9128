"""CamVid: 701 frames of driving, in the layouts in which it goes around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from segtrail.data.class_files import read_class_file
from segtrail.data.datasets.base import SPLITS, Common, SegmentationDataset, expect_count, require_folder
from segtrail.data.masks import ColorMasks, IndexMasks
from segtrail.data.pairing import Pair
from segtrail.data.tables import table
from segtrail.data.types import ClassTable, DataError

# Names of the same class by other authors.
_SYNONYMS = {"Pavement": "Sidewalk", "Pole": "Column_Pole", "Sign": "SignSymbol", "Unlabelled": "Void"}


class CamVidDataset(SegmentationDataset):
    """CamVid with 11 or 31 classes; ``Void`` is void.

    Four layouts are recognized: the original (``701_StillsRaw_full`` and ``LabeledApproved_full``, RGB
    colors), fastai's (``images``, ``labels``, ``codes.txt``, ids), SegNet's (``train``, ``trainannot``,
    480x360, 11 ids) and folders with ``class_dict.csv`` (``train``, ``train_labels``, RGB colors). The
    splits are SegNet's 367, 101 and 233 frames in each.

    Args:
        root: the folder, or the one above SegNet's ``CamVid``.
        split: ``train``, ``val`` or ``test``.
        classes: 11 merged classes, or the 31 original ones (which SegNet's layout lacks).
        class_names: null, or the names that belong to ``classes``.
        ignore_index: value of void pixels.
        common: see :class:`SegmentationDataset`. The data has no objects.
    """

    def __init__(
        self,
        root: str,
        split: str,
        *,
        classes: Literal[11, 31] = 11,
        class_names: Sequence[str] | None = None,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"CamVid has no split {split!r}; it has {', '.join(SPLITS)}")
        files = _Files.find(require_folder(root))
        names = self.class_table(classes=classes)
        if class_names is not None and tuple(class_names) != names.names:
            raise DataError(
                f"the {classes} classes of CamVid are {list(names.names)}; choose with dataset=remap"
            )
        if files.layout == "segnet" and classes != 11:
            raise DataError(f"{files.root}: SegNet's masks have 11 classes only; get the original for 31")
        self._read = _reader(files, classes, ignore_index)
        pairs = files.pairs(split)
        expect_count("CamVid", split, len(pairs), len(table("camvid")["splits"][split]))
        super().__init__(
            split=split,
            classes=names,
            ids=[pair.id for pair in pairs],
            records=pairs,
            ignore_index=ignore_index,
            **common,
        )

    @classmethod
    def class_table(cls, *, classes: int = 11, **config: Any) -> ClassTable:
        if classes not in (11, 31):
            raise ValueError(f"classes is {classes}; CamVid has 11 or 31")
        content = table("camvid")
        rows = (
            content["groups"]
            if classes == 11
            else [r for r in content["labels"] if r["name"] != content["void"]]
        )
        return ClassTable(
            tuple(row["name"] for row in rows), np.array([row["color"] for row in rows], np.uint8)
        )

    @classmethod
    def splits(cls, *, root: str, **config: Any) -> tuple[str, ...]:
        files = _Files.find(require_folder(root))
        return tuple(split for split in SPLITS if files.exists(split))

    def read_image(self, record: Pair) -> np.ndarray:
        return self.load(record.image)

    def read_mask(self, record: Pair) -> np.ndarray:
        return self._read(record.mask)

    def describe(self, record: Pair) -> str:
        return str(record.mask)

    def sources(self, record: Pair) -> tuple[Path, ...]:
        return (record.image, record.mask)


def _reader(files: _Files, classes: int, ignore_index: int) -> IndexMasks | ColorMasks:
    if files.layout == "segnet":
        return IndexMasks({}, void=[11], ignore_index=ignore_index)
    class_of = _class_of(classes)
    if files.layout == "fastai":
        codes = files.root / "codes.txt"
        names = [_SYNONYMS.get(entry.name, entry.name) for entry in read_class_file(codes)]
        unknown = sorted(set(names) - class_of.keys())
        if unknown:
            raise DataError(f"{codes}: {unknown[0]!r} is no class of CamVid")
        values = {value: class_of[name] for value, name in enumerate(names)}
        void = [value for value, index in values.items() if index is None]
        kept = {value: index for value, index in values.items() if index is not None}
        return IndexMasks(kept, void=void, ignore_index=ignore_index)
    rows = [(row["color"], class_of[row["name"]]) for row in table("camvid")["labels"]]
    known = [(color, index) for color, index in rows if index is not None]
    return ColorMasks(
        np.array([color for color, _ in known]),
        void=[color for color, index in rows if index is None],
        ignore_index=ignore_index,
        ids=[index for _, index in known],
    )


def _class_of(classes: int) -> dict[str, int | None]:
    """Class id of each of the 32 original names; None for void."""
    content = table("camvid")
    names = [row["name"] for row in content["labels"]]
    if classes == 11:
        groups = {name: index for index, group in enumerate(content["groups"]) for name in group["members"]}
        return {name: groups.get(name) for name in names}
    kept = [name for name in names if name != content["void"]]
    return {name: kept.index(name) if name in kept else None for name in names}


@dataclass(frozen=True)
class _Files:
    """A recognized layout."""

    root: Path
    layout: Literal["original", "fastai", "segnet", "folders"]

    @classmethod
    def find(cls, root: Path) -> _Files:
        for place in (root, root / "CamVid", root / "camvid"):
            if (place / "trainannot").is_dir():
                return cls(place, "segnet")
            if (place / "labels").is_dir() and (place / "codes.txt").is_file():
                return cls(place, "fastai")
            if (place / "LabeledApproved_full").is_dir():
                return cls(place, "original")
            if (place / "train_labels").is_dir():
                return cls(place, "folders")
        raise DataError(
            f"{root}: no layout of CamVid; expected trainannot/, codes.txt with labels/, "
            f"LabeledApproved_full/ or train_labels/"
        )

    def exists(self, split: str) -> bool:
        return self.layout in ("original", "fastai") or (self.root / split).is_dir()

    def pairs(self, split: str) -> list[Pair]:
        """Frames of a split, in order of their name.

        Raises:
            DataError: no frames, or a frame without a mask.
        """
        images, masks, ending = {
            "original": ("701_StillsRaw_full", "LabeledApproved_full", "_L"),
            "fastai": ("images", "labels", "_P"),
            "segnet": (split, f"{split}annot", ""),
            "folders": (split, f"{split}_labels", "_L"),
        }[self.layout]
        if not (self.root / images).is_dir():
            raise DataError(f"{self.root / images}: no such folder; unpack the images there")
        found = {path.stem: path for path in sorted((self.root / images).glob("*.png"))}
        if self.layout in ("original", "fastai"):
            found = {stem: found[stem] for stem in table("camvid")["splits"][split] if stem in found}
        pairs = []
        for stem, image in sorted(found.items()):
            mask = self.root / masks / f"{stem}{ending}.png"
            if not mask.is_file():
                raise DataError(f"{image}: image without a mask; expected {mask}")
            pairs.append(Pair(stem, image, mask))
        if not pairs:
            raise DataError(f"{self.root / images}: no frames of split {split!r} in it")
        return pairs
