"""The contract of every dataset: split in, :class:`Sample` out, bad files named."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segtrail.data.types import ClassTable, DataError, Instances, Sample

OnError = Literal["raise", "skip"]
SPLITS = ("train", "val", "test")


class SegmentationDataset(ABC):
    """Base of the datasets.

    A subclass prepares its own attributes, then calls ``super().__init__`` last with one id and one
    record a sample; what a record is, is the subclass's affair. It implements :meth:`read_image`
    and :meth:`read_mask`, and :meth:`read_instances` where the data has objects.

    Args:
        split: ``train``, ``val`` or ``test``.
        classes: names and colors, in id order.
        ignore_index: value of void pixels in the masks that the dataset returns.
        ids: stable, unique name of each sample.
        records: what the read methods need to know of each sample.
        on_error: ``skip`` reads every sample now and drops the bad ones with a warning that names
            each; ``raise`` lets :meth:`__getitem__` raise at the first one met.
        limit_samples: keep that many samples, evenly spaced over the split.
        instances: also return the objects of each image.

    Raises:
        DataError: no samples, a name twice, or an ``ignore_index`` that is a class id.
        ValueError: an option out of range.
    """

    class_names: tuple[str, ...]
    palette: np.ndarray
    ignore_index: int
    split: str
    ids: list[str]
    records: Sequence[Any]

    def __init__(
        self,
        *,
        split: str,
        classes: ClassTable,
        ignore_index: int,
        ids: Sequence[str],
        records: Sequence[Any],
        on_error: OnError = "raise",
        limit_samples: int | None = None,
        instances: bool = False,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; it is 'raise' or 'skip'")
        if limit_samples is not None and limit_samples < 1:
            raise ValueError(f"limit_samples is {limit_samples}; it is null or at least 1")
        self.class_names, self.palette = tuple(classes.names), classes.palette
        self.ignore_index, self.split, self.instances = ignore_index, split, instances
        if 0 <= ignore_index < len(self.class_names):
            raise DataError(
                f"ignore_index {ignore_index} is the id of class {self.class_names[ignore_index]!r}; "
                f"set dataset.ignore_index to a value above {len(self.class_names) - 1} or to -1"
            )
        if not len(ids):
            raise DataError(f"split {split!r} of {type(self).__name__} has no samples")
        if len(set(ids)) != len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise DataError(f"sample {twice!r} appears twice in split {split!r}; rename or remove one")
        self.ids, self.records = list(ids), records
        if limit_samples is not None and limit_samples < len(ids):
            self._keep(np.linspace(0, len(ids) - 1, limit_samples).round().astype(int))
        if on_error == "skip":
            self._drop_bad()

    @classmethod
    @abstractmethod
    def class_table(cls, *args: Any, **config: Any) -> ClassTable:
        """Names and colors for this configuration (the constructor's keys without ``split``)."""

    @classmethod
    @abstractmethod
    def splits(cls, *args: Any, **config: Any) -> tuple[str, ...]:
        """Which of train, val and test exist for this configuration."""

    @abstractmethod
    def read_image(self, record: Any) -> np.ndarray:
        """Picture of one record.

        Shape:
            (H, W, 3) uint8 RGB.
        """

    @abstractmethod
    def read_mask(self, record: Any) -> np.ndarray:
        """Class ids of one record, without decoding the picture where possible.

        Shape:
            (H, W) uint8 or int32.
        """

    def read_instances(self, record: Any) -> Instances | None:
        """Objects of one record; None where the data has none."""
        return None

    def describe(self, record: Any) -> str:
        """What an error message should call this record: the mask's file, where there is one."""
        return f"{type(self).__name__} record {record!r}"

    def sources(self, record: Any) -> tuple[Path, ...]:
        """Files that this record is read from; what caches are keyed by."""
        return ()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Sample at ``index``, checked.

        Raises:
            DataError: a file is broken, sizes differ, or a value is not a class id.
        """
        record = self.records[index]
        image = self.read_image(record)
        mask = self.mask(index)
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"{self.describe(record)}: mask is {mask.shape[1]}x{mask.shape[0]} but the image is "
                f"{image.shape[1]}x{image.shape[0]}; export it at the image's size"
            )
        objects = self.read_instances(record) if self.instances else None
        return Sample(image, mask, self.ids[index], objects)

    def mask(self, index: int) -> np.ndarray:
        """Checked mask at ``index`` alone: what statistics over classes need."""
        record = self.records[index]
        mask = self.read_mask(record)
        check_ids(mask, max(2, len(self.class_names)), self.ignore_index, self.describe(record))
        return mask

    def _keep(self, indices: Sequence[int] | np.ndarray) -> None:
        self.ids = [self.ids[i] for i in indices]
        self.records = [self.records[i] for i in indices]

    def _drop_bad(self) -> None:
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            faults = list(pool.map(self._fault, range(len(self))))
        good = [i for i, fault in enumerate(faults) if fault is None]
        if len(good) == len(self):
            return
        listing = "\n  ".join(fault for fault in faults if fault is not None)
        warnings.warn(
            f"skipped {len(self) - len(good)} bad samples of split {self.split!r}:\n  {listing}", stacklevel=4
        )
        if not good:
            raise DataError(f"every sample of split {self.split!r} is bad; the warning above names them")
        self._keep(good)

    def _fault(self, index: int) -> str | None:
        try:
            self[index]
        except DataError as error:
            return str(error)
        return None


def check_ids(mask: np.ndarray, num_classes: int, ignore_index: int, name: str) -> None:
    """Raise unless every value is a class id or ``ignore_index``.

    Raises:
        DataError: naming the first offending value and how many pixels have it.
    """
    wrong = (mask >= num_classes) & (mask != ignore_index)
    if mask.dtype != np.uint8:
        wrong |= (mask < 0) & (mask != ignore_index)
    if wrong.any():
        value = int(mask[wrong][0])
        raise DataError(
            f"{name}: mask has id {value} in {int((mask == value).sum())} pixels, but there are "
            f"{num_classes} classes (ids 0 to {num_classes - 1}, void {ignore_index}); fix the mask or "
            f"add the class"
        )


def require_folder(root: str | Path, key: str = "dataset.root") -> Path:
    """Path of an existing folder.

    Raises:
        DataError: there is no such folder.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; set {key} to where the data lies")
    return path


def color_map(count: int) -> np.ndarray:
    """(count, 3) uint8 colors of the PASCAL VOC scheme: the id's bits, dealt to R, G and B in turn."""
    ids = np.arange(count)
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colors
