"""What the values of a mask file mean: one small reader for each kind of mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from segtrail.data.files import read_labels
from segtrail.data.types import DataError


class IndexMasks:
    """Values stand for class ids.

    Args:
        table: class id of each value in the file; empty if they are the same.
        void: values in the file that mean void; ``ignore_index`` always does.
        ignore_index: what void becomes.
        reduce_zero_label: 0 is void and every value is one more than in ``table``, as in ADE20K.
    """

    def __init__(
        self,
        table: Mapping[int, int],
        *,
        void: Iterable[int] = (),
        ignore_index: int = 255,
        reduce_zero_label: bool = False,
    ) -> None:
        table = dict(table)
        if reduce_zero_label:
            table = {value + 1: index for value, index in table.items()} | {0: ignore_index}
        table = {ignore_index: ignore_index} | table | dict.fromkeys(void, ignore_index)
        moved = {value for value, index in table.items() if value != index}
        # Where an id moves, a value that the table does not name could pass for another class.
        self._strict = any(table[value] != ignore_index for value in moved) or any(
            value in table.values() for value in moved
        )
        self._table, self._moves = table, bool(moved)
        small = all(0 <= index < 256 for index in table.values())
        self._unknown = next((index for index in range(255, -1, -1) if index not in table.values()), -1)
        self._lookup: np.ndarray = np.arange(
            256, dtype=np.uint8 if small and self._unknown >= 0 else np.int32
        )
        if self._strict:
            self._lookup[:] = self._unknown
        for value, index in table.items():
            if 0 <= value < 256:
                self._lookup[value] = index

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8 or int32 class ids.

        Raises:
            DataError: a color mask, or a value that the table does not name.
        """
        labels = read_labels(path)
        if labels.ndim == 3:
            if not is_grey(labels):
                raise DataError(
                    f"{path}: a color mask where class ids were expected; set dataset.mask_kind=color"
                )
            labels = labels[..., 0].copy()
        return self.map(labels, path)

    def map(self, labels: np.ndarray, path: Path | str) -> np.ndarray:
        """Class ids of decoded values; ``path`` is what messages call them."""
        if not self._moves:
            return labels
        mapped = self._map(labels)
        if self._strict and (mapped == self._unknown).any():
            value = int(labels[mapped == self._unknown][0])
            raise DataError(
                f"{path}: mask has the value {value} in {int((labels == value).sum())} pixels, which stands "
                f"for no class; fix the mask or the class table"
            )
        return mapped

    def _map(self, labels: np.ndarray) -> np.ndarray:
        if labels.dtype == np.uint8:
            return cv2.LUT(labels, self._lookup) if self._lookup.dtype == np.uint8 else self._lookup[labels]
        mapped = np.full(labels.shape, self._unknown, np.int32) if self._strict else labels.copy()
        for value, index in self._table.items():
            mapped[labels == value] = index
        return mapped


class ColorMasks:
    """RGB colors stand for classes.

    Args:
        colors: (K, 3) uint8.
        void: colors that mean void.
        ignore_index: what void becomes.
        names: what to call the classes in messages.
        ids: class id of each color; its position if None.
    """

    def __init__(
        self,
        colors: np.ndarray,
        void: Sequence[Sequence[int]] = (),
        ignore_index: int = 255,
        names: Sequence[str] = (),
        ids: Sequence[int] | None = None,
    ) -> None:
        small = len(colors) <= 254 and 0 <= ignore_index <= 255
        self._unknown = 254 if small and ignore_index == 255 else 255 if small else -(2**31)
        # One entry for each of 2^24 colors: 16 MB, and 4 to 100 times as fast as comparing or searching.
        self._lookup = np.full(1 << 24, self._unknown, np.uint8 if small else np.int32)
        self._colors, self._names = np.asarray(colors, np.int64), list(names)
        for color in void:
            self._lookup[pack_colors(np.array(color))] = ignore_index
        self._lookup[pack_colors(self._colors)] = np.arange(len(colors)) if ids is None else ids

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) class ids.

        Raises:
            DataError: a color that is none of the classes', naming it and the nearest class.
        """
        picture = read_labels(path)
        if picture.ndim == 2:
            raise DataError(f"{path}: an index mask where colors were expected; set dataset.mask_kind=index")
        packed = pack_colors(picture)
        labels = self._lookup[packed]
        unknown = labels == self._unknown
        if unknown.any():
            color = picture[unknown][0]
            distance = np.abs(self._colors - color).sum(axis=1)
            nearest = int(distance.argmin())
            name = self._names[nearest] if self._names else f"id {nearest}"
            why = (
                "is it a JPEG or smoothed mask?"
                if path.suffix.lower() in (".jpg", ".jpeg")
                else "add it to the class table"
            )
            raise DataError(
                f"{path}: color {tuple(color.tolist())} is no class ({int(unknown.sum())} pixels of unknown "
                f"colors, the nearest class is {name}); {why}"
            )
        return labels


def pack_colors(colors: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 RGB as one int32 each: 0xRRGGBB."""
    wide = colors.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


class BinaryMasks:
    """0 is background; 255 (or 1) is foreground.

    Args:
        threshold: values from it on are foreground; mends JPEG and smoothed masks.
    """

    def __init__(self, threshold: int | None = None) -> None:
        self._threshold = threshold

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8 of 0 and 1.

        Raises:
            DataError: another value and no threshold.
        """
        labels = read_labels(path)
        if labels.ndim == 3:
            labels = labels[..., 0] if (labels == labels[..., :1]).all() else labels
        if labels.ndim == 3:
            raise DataError(
                f"{path}: a color mask where black and white were expected; set dataset.mask_kind=color"
            )
        if self._threshold is not None:
            return (labels >= self._threshold).astype(np.uint8)
        foreground = (labels == 255) | (labels == 1)
        wrong = labels[(labels != 0) & ~foreground]
        if wrong.size:
            raise DataError(
                f"{path}: value {int(wrong.flat[0])} in a black-and-white mask ({wrong.size} such pixels); "
                f"set dataset.threshold=128 if it was smoothed or saved as JPEG"
            )
        return foreground.astype(np.uint8)


def is_grey(picture: np.ndarray) -> bool:
    """Whether the channels are equal everywhere: ids that were saved as an RGB file."""
    return bool((picture == picture[..., :1]).all())
