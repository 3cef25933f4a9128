"""Where the images and masks of a folder are, and how it is split."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from segtrail.data.datasets.base import SPLITS
from segtrail.data.files import IMAGE_SUFFIXES
from segtrail.data.pairing import (
    Pair,
    find_pairs,
    fraction_splits,
    list_files,
    read_csv,
    select_listed,
    split_folder,
)
from segtrail.data.types import DataError

SplitBy = Literal["auto", "folders", "lists", "csv", "fraction"]

IMAGE_FOLDERS = ("images", "imgs", "img", "JPEGImages", "image")
MASK_FOLDERS = ("masks", "labels", "annotations", "SegmentationClass", "gt", "mask", "label", "labelme")
MASK_SUFFIXES = IMAGE_SUFFIXES | {".npy"}
POLYGON_SUFFIXES = {"labelme": frozenset({".json"}), "yolo": frozenset({".txt"})}


@dataclass(frozen=True)
class Layout:
    """The files of a folder data set.

    Args:
        root: the folder.
        images, masks: sub-folders; None for the first that exists of the usual names.
        mask_kind: decides which suffixes masks have.
        split_by, csv, val_fraction, test_fraction, seed, group: as in
            :class:`~segtrail.data.datasets.folder.FolderDataset`.
    """

    root: Path
    images: str | None = None
    masks: str | None = None
    mask_kind: str = "auto"
    split_by: SplitBy = "auto"
    csv: str = "dataset.csv"
    val_fraction: float = 0.2
    test_fraction: float = 0.0
    seed: int = 0
    group: str | None = None
    _found: dict[str, tuple[list[Pair], list[str]]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def mode(self) -> str:
        """The way of splitting that is in force: folders, lists, csv or fraction."""
        if self.split_by != "auto":
            return self.split_by
        if (self.root / self.csv).is_file():
            return "csv"
        if list_files(self.root):
            return "lists"
        if not self._flat and split_folder(self.root, "train"):
            return "folders"
        inside = split_folder(self.root / self._name("images", self.root), "train")
        return "folders" if inside else "fraction"

    def splits(self) -> tuple[str, ...]:
        """Which of train, val and test exist."""
        if self.mode == "csv":
            found = set(read_csv(self.root / self.csv, self.root))
        elif self.mode == "lists":
            found = set(list_files(self.root))
        elif self.mode == "folders":
            found = {split for split in SPLITS if self._split_folders(split)}
        else:
            found = {"train"} | {
                split
                for split, share in (("val", self.val_fraction), ("test", self.test_fraction))
                if share > 0
            }
        return tuple(split for split in SPLITS if split in found)

    def pairs(self, split: str) -> tuple[list[Pair], list[str]]:
        """Pairs of a split, and one line for each file of it without a partner.

        Raises:
            DataError: the split does not exist or is empty.
        """
        if split not in self._found:
            if split not in self.splits():
                raise DataError(
                    f"{self.root}: no split {split!r}; found {', '.join(self.splits()) or 'none'}"
                )
            self._found[split] = self._read(split)
        pairs, faults = self._found[split]
        if not pairs and faults:
            raise DataError(faults[0])
        if not pairs:
            raise DataError(
                f"{self.root}: split {split!r} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        return pairs, faults

    def all_pairs(self) -> list[Pair]:
        """Pairs of every split."""
        if self.mode == "fraction":
            return find_pairs(*self._pair_of_folders(self.root), self.suffixes)[0]
        return [pair for split in self.splits() for pair in self.pairs(split)[0]]

    def _read(self, split: str) -> tuple[list[Pair], list[str]]:
        if self.mode == "csv":
            return read_csv(self.root / self.csv, self.root)[split], []
        if self.mode == "folders":
            folders = self._split_folders(split)
            assert folders is not None
            return find_pairs(*folders, self.suffixes)
        images, masks = self._pair_of_folders(self.root)
        pairs, faults = find_pairs(images, masks, self.suffixes)
        if self.mode == "lists":
            # A list chooses: files outside of it may well lack their partner.
            return select_listed(pairs, list_files(self.root)[split], faults), []
        if not pairs:
            return [], faults
        parts = fraction_splits(pairs, self.val_fraction, self.test_fraction, self.seed, self.group)
        return parts.get(split, []), faults

    @property
    def suffixes(self) -> frozenset[str]:
        """Suffixes of mask files."""
        if self.mask_kind == "auto":
            return MASK_SUFFIXES.union(*POLYGON_SUFFIXES.values())
        return POLYGON_SUFFIXES.get(self.mask_kind, MASK_SUFFIXES)

    @cached_property
    def _flat(self) -> bool:
        """Whether images and masks are the upper level, splits (if any) the lower."""
        candidates = (self.images,) if self.images else IMAGE_FOLDERS
        return any((self.root / name).is_dir() for name in candidates)

    def _split_folders(self, split: str) -> tuple[Path, Path] | None:
        if self._flat:
            images, masks = self._pair_of_folders(self.root)
            lower = split_folder(images, split), split_folder(masks, split)
            if lower[0] is None:
                return None
            if lower[1] is None:
                raise DataError(
                    f"{masks / lower[0].name}: no such folder, though {lower[0]} exists; add the masks"
                )
            return lower[0], lower[1]
        upper = split_folder(self.root, split)
        return self._pair_of_folders(upper) if upper else None

    def _pair_of_folders(self, parent: Path) -> tuple[Path, Path]:
        return parent / self._name("images", parent), parent / self._name("masks", parent)

    def _name(self, which: Literal["images", "masks"], parent: Path) -> str:
        given, usual = (self.images, IMAGE_FOLDERS) if which == "images" else (self.masks, MASK_FOLDERS)
        if given is None:
            given = next((name for name in usual if (parent / name).is_dir()), None)
            if given is None:
                raise DataError(
                    f"{parent}: no sub-folder of {which} (looked for {', '.join(usual)}); set dataset.{which}"
                )
        if not (parent / given).is_dir():
            raise DataError(f"{parent / given}: no such folder; set dataset.{which}")
        return given
