"""The contract of every dataset: split in, :class:`Sample` out, bad files named."""

from __future__ import annotations

import inspect
import os
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, TypedDict

import numpy as np

from segtrail.data.balance import rare_class_factors, repeat_factors
from segtrail.data.cache import FORMAT, SampleCache, cache_folder, digest, file_stamp, save_array
from segtrail.data.files import Exif, read_image
from segtrail.data.objects import boxes_of
from segtrail.data.types import ClassTable, DataError, Instances, Sample

OnError = Literal["raise", "skip"]
SPLITS = ("train", "val", "test")

# Options that do not change what a sample is.
_FLEETING = (
    "cache",
    "cache_gigabytes",
    "on_error",
    "repeat",
    "repeat_threshold",
    "rare_class_temperature",
)


class Common(TypedDict, total=False):
    """Options that every dataset passes on to :class:`SegmentationDataset`."""

    instances: bool
    on_error: OnError
    limit_samples: int | None
    exif: Exif
    decode_min_side: int | None
    cache: bool | str
    cache_gigabytes: float | None
    repeat: float
    repeat_threshold: float | None
    rare_class_temperature: float | None


class SkippedSamples(UserWarning):
    """Bad samples that were left out.

    Attributes:
        faults: one line for each.
    """

    def __init__(self, split: str, faults: Sequence[str]) -> None:
        listing = "\n  ".join(faults)
        super().__init__(f"skipped {len(faults)} bad samples of split {split!r}:\n  {listing}")
        self.faults = list(faults)


class SegmentationDataset(ABC):
    """Base of the datasets.

    A subclass prepares its own attributes, then calls ``super().__init__`` last with one id and one
    record a sample; what a record is, is the subclass's affair. It implements :meth:`read_image`
    and :meth:`read_mask`, and :meth:`read_instances` where the data has objects.

    Args:
        split: ``train``, ``val`` or ``test``.
        classes: names and colors, in id order.
        ids: stable, unique name of each sample.
        records: what the read methods need to know of each sample.
        ignore_index: value of void pixels in the masks that the dataset returns.
        instances: also return the objects of each image.
        on_error: ``skip`` reads every sample now and drops the bad ones with a warning that names
            each; ``raise`` lets :meth:`__getitem__` raise at the first one met.
        limit_samples: keep that many samples, evenly spaced over the split.
        exif: see :data:`segtrail.data.files.Exif`.
        decode_min_side: decode JPEG files of the train split at the smallest of 1, 1/2, 1/4, 1/8 of
            their size whose short side has that many pixels; the masks shrink with them. For crops
            and scales much smaller than the pictures.
        cache: keep decoded samples in a memory-mapped file, in this folder, or (true) in
            ``$SEGTRAIL_CACHE/decoded``.
        cache_gigabytes: cap on the size of that file; null leaves a twentieth of the disk free.
        repeat: show each training image that often an epoch; a fraction is drawn anew each time.
        repeat_threshold: show a training image more often the rarer its rarest class is by images, see
            :func:`segtrail.data.balance.repeat_factors`.
        rare_class_temperature: the same by pixels, see
            :func:`segtrail.data.balance.rare_class_factors`.

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
    repeat_factors: np.ndarray | None  # (N,) float64: what the training sampler repeats by
    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        # The call says what decoded samples depend on; unpickling makes none and restores it instead.
        if args or kwargs:
            self._arguments = inspect.signature(cls).bind(*args, **kwargs).arguments
        return self

    def __init__(
        self,
        *,
        split: str,
        classes: ClassTable,
        ids: Sequence[str],
        records: Sequence[Any],
        ignore_index: int = 255,
        instances: bool = False,
        on_error: OnError = "raise",
        limit_samples: int | None = None,
        exif: Exif = "ignore",
        decode_min_side: int | None = None,
        cache: bool | str = False,
        cache_gigabytes: float | None = None,
        repeat: float = 1.0,
        repeat_threshold: float | None = None,
        rare_class_temperature: float | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; it is 'raise' or 'skip'")
        if exif not in ("ignore", "apply"):
            raise ValueError(f"exif is {exif!r}; it is 'ignore' or 'apply'")
        if limit_samples is not None and limit_samples < 1:
            raise ValueError(f"limit_samples is {limit_samples}; it is null or at least 1")
        self.class_names, self.palette = tuple(classes.names), classes.palette
        self.ignore_index, self.split, self.instances = ignore_index, split, instances
        self.exif = exif
        self.decode_min_side = decode_min_side if split == "train" else None
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
        self._cache: SampleCache | None = None
        if limit_samples is not None and limit_samples < len(ids):
            self._keep(np.linspace(0, len(ids) - 1, limit_samples).round().astype(int))
        if on_error == "skip":
            self._drop_bad()
        if cache:
            folder = cache_folder() / "decoded" if cache is True else Path(cache).expanduser()
            self._cache = SampleCache(folder / self._cache_key(), self.ids, cache_gigabytes)
        self.repeat_factors = self._repeats(repeat, repeat_threshold, rare_class_temperature)

    def _repeats(self, times: float, threshold: float | None, temperature: float | None) -> np.ndarray | None:
        if times < 1:
            raise ValueError(f"repeat is {times}; it is at least 1 (limit_samples takes fewer)")
        if self.split != "train" or (times == 1 and threshold is None and temperature is None):
            return None
        factors = np.full(len(self), float(times))
        if threshold is not None:
            factors *= repeat_factors(self.class_counts(), threshold)
        if temperature is not None:
            factors *= rare_class_factors(self.class_counts(), temperature)
        return factors

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

    def load(self, path: Path) -> np.ndarray:
        """Decode a picture under the options ``exif`` and ``decode_min_side``."""
        return read_image(path, exif=self.exif, min_side=self.decode_min_side)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Sample at ``index``, checked.

        Raises:
            DataError: a file is broken, sizes differ, or a value is not a class id.
        """
        if self._cache is None:
            return self.read(index)
        stamp = file_stamp(self.sources(self.records[index]))
        sample = self._cache.get(index, stamp)
        if sample is None:
            sample = self.read(index)
            self._cache.put(index, stamp, sample)
        return sample

    def read(self, index: int) -> Sample:
        """Sample at ``index`` from its files, whatever is cached."""
        record = self.records[index]
        image = self.read_image(record)
        mask = self.mask(index)
        objects = self.read_instances(record) if self.instances else None
        if image.shape[:2] == mask.shape:
            return Sample(image, mask, self.ids[index], objects)
        if self.decode_min_side is None or not is_reduced(image.shape[:2], mask.shape):
            turned = image.shape[:2] == mask.shape[::-1]
            raise DataError(
                f"{self.describe(record)}: mask is {mask.shape[1]}x{mask.shape[0]} but the image is "
                f"{image.shape[1]}x{image.shape[0]}; "
                + ("try dataset.exif=apply" if turned else "export it at the image's size")
            )
        mask, objects = shrink(mask, objects, image.shape[:2])
        return Sample(image, mask, self.ids[index], objects)

    def mask(self, index: int) -> np.ndarray:
        """Checked mask at ``index`` alone: what statistics over classes need."""
        record = self.records[index]
        mask = self.read_mask(record)
        check_ids(mask, max(2, len(self.class_names)), self.ignore_index, self.describe(record))
        return mask

    def class_counts(self) -> np.ndarray:
        """Pixels of each class in each mask, (N, max(2, K)) int64; void is not counted.

        Masks are read once; the counts are kept in the cache until a file changes.
        """
        stamps = [file_stamp(self.sources(record)) for record in self.records]
        path = cache_folder() / "class_counts" / f"{digest(self._cache_key(), stamps)}.npy"
        if path.is_file():
            return np.load(path)
        classes = max(2, len(self.class_names))

        def count(index: int) -> np.ndarray:
            mask = self.mask(index)
            return np.bincount(mask[mask != self.ignore_index], minlength=classes)[:classes]

        with ThreadPoolExecutor(usable_cores()) as pool:
            counts = np.array(list(pool.map(count, range(len(self)))), np.int64)
        save_array(path, counts)
        return counts

    def _cache_key(self) -> str:
        options = {key: value for key, value in self._arguments.items() if key not in _FLEETING}
        options |= {
            key: value for key, value in self._arguments.get("common", {}).items() if key not in _FLEETING
        }
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return digest(
            FORMAT, name, sorted((key, value) for key, value in options.items() if key != "common"), self.ids
        )

    def _keep(self, indices: Sequence[int] | np.ndarray) -> None:
        self.ids = [self.ids[i] for i in indices]
        self.records = [self.records[i] for i in indices]

    def _drop_bad(self) -> None:
        with ThreadPoolExecutor(usable_cores()) as pool:  # decoding releases the interpreter lock
            faults = list(pool.map(self._fault, range(len(self))))
        good = [i for i, fault in enumerate(faults) if fault is None]
        if len(good) == len(self):
            return
        warnings.warn(SkippedSamples(self.split, [fault for fault in faults if fault]), stacklevel=4)
        if not good:
            raise DataError(f"every sample of split {self.split!r} is bad; the warning above names them")
        self._keep(good)

    def _fault(self, index: int) -> str | None:
        try:
            self.read(index)
        except DataError as error:
            return str(error)
        return None


def check_ids(mask: np.ndarray, num_classes: int, ignore_index: int, name: str) -> None:
    """Raise unless every value is a class id or ``ignore_index``.

    Raises:
        DataError: naming the first offending value and how many pixels have it.
    """
    if mask.dtype == np.uint8 and mask.max(initial=0) < num_classes:
        return  # by far the cheapest look
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


def is_reduced(small: Sequence[int], full: Sequence[int]) -> bool:
    """Whether ``small`` is a size at which a JPEG decoder gives a picture of size ``full``."""
    return any(tuple(small) == tuple(-(-side // factor) for side in full) for factor in (2, 4, 8))


def shrink(
    mask: np.ndarray, objects: Instances | None, size: tuple[int, int]
) -> tuple[np.ndarray, Instances | None]:
    """Mask and objects at another size (height, width), by nearest neighbor."""
    rows = ((np.arange(size[0]) + 0.5) * mask.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * mask.shape[1] / size[1]).astype(int)
    small = mask[rows[:, None], columns]
    if objects is None:
        return small, None
    masks = objects.masks[:, rows[:, None], columns]
    return small, replace(objects, masks=masks, boxes=boxes_of(masks))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def expect_count(name: str, split: str, found: int, official: int) -> None:
    """Warn unless a split has its official number of samples."""
    if found != official:
        what = "a partial copy" if found < official else "more than the official set"
        warnings.warn(f"{name} {split}: {found} samples of {official}: {what}", stacklevel=3)


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
