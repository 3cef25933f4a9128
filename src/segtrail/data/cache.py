"""Decoded samples in one memory-mapped file, shared by epochs, workers, ranks and runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segtrail.data.types import DataError, Instances, Sample

FORMAT = 1  # part of the key: raise it whenever the bytes change

_HEADER = 8  # int64: stamp, index, height, width, mask item size, objects, and two spare
_GROWTH = 1 << 28  # the file grows in such steps; it is sparse, so the rest costs no disk
_RESERVE = 0.05  # of the disk stays free
_ALIGN = 64


def cache_folder() -> Path:
    """``$SEGTRAIL_CACHE``, or ``~/.cache/segtrail``."""
    return Path(os.environ.get("SEGTRAIL_CACHE") or "~/.cache/segtrail").expanduser()


def digest(*parts: Any) -> str:
    """Short, stable name of anything that JSON can write."""
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=16).hexdigest()


def file_stamp(paths: Sequence[Path]) -> int:
    """Number that changes when a file's size or modification time does; never 0."""
    facts = [(status.st_size, status.st_mtime_ns) for status in (path.stat() for path in paths)]
    return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=7).digest(), "big") + 1


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array so that a reader sees all of it or nothing; without a place to write, do nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.save(file, array)
        Path(file.name).replace(path)
    except OSError as error:
        warnings.warn(f"{path}: not cached ({error.strerror}); set SEGTRAIL_CACHE", stacklevel=2)


class SampleCache:
    """Samples by index, appended as they are first decoded.

    A sample whose files have changed since is decoded again. Several processes may read and write at
    once: space is handed out under a lock, and a record counts only when its header is right. When
    the cap or the disk is full, what is there serves on and the rest is decoded each time.

    Args:
        folder: where the two files lie.
        ids: names of the samples.
        max_gigabytes: cap on the size of the file.
    """

    def __init__(self, folder: Path, ids: Sequence[str], max_gigabytes: float | None = None) -> None:
        self._ids, self._folder = ids, folder
        self._limit = None if max_gigabytes is None else int(max_gigabytes * 1e9)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot write the cache here ({error.strerror}); set SEGTRAIL_CACHE"
            ) from error
        self._open()

    def _open(self) -> None:
        self._full = False
        self._thread_lock = threading.Lock()
        self._file = os.open(self._folder / "samples.bin", os.O_RDWR | os.O_CREAT)
        table = os.open(self._folder / "table.bin", os.O_RDWR | os.O_CREAT)
        # Row 0 holds the end of what is written; row i + 1 stamp and place of sample i.
        os.ftruncate(table, 16 * (len(self._ids) + 1))
        self._lock = table
        self._table = np.memmap(self._folder / "table.bin", np.int64, "r+", shape=(len(self._ids) + 1, 2))
        self._bytes = np.zeros(0, np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        return {"_ids": self._ids, "_folder": self._folder, "_limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def get(self, index: int, stamp: int) -> Sample | None:
        """The sample, or None if it is not there."""
        found, place = self._table[index + 1].tolist()
        if found != stamp:
            return None
        header = self._copy(place, _HEADER * 8).view(np.int64)
        if header[:2].tolist() != [stamp, index]:
            return None
        height, width, item, objects = header[2:6].tolist()
        pixels, place = height * width, place + _HEADER * 8
        image = self._copy(place, pixels * 3).reshape(height, width, 3)
        place += _padded(pixels * 3)
        mask = (
            self._copy(place, pixels * item).view(np.uint8 if item == 1 else np.int32).reshape(height, width)
        )
        if objects < 0:
            return Sample(image, mask, self._ids[index])
        place += _padded(pixels * item)
        labels = self._copy(place, objects * 8).view(np.int64)
        boxes = self._copy(place + objects * 8, objects * 16).view(np.float32).reshape(objects, 4)
        crowd = self._copy(place + objects * 24, objects).view(bool)
        bits = self._copy(place + objects * 25, objects * -(-pixels // 8)).reshape(objects, -1)
        masks = np.unpackbits(bits, axis=1, count=pixels).view(bool).reshape(objects, height, width)
        return Sample(image, mask, self._ids[index], Instances(masks, labels, boxes, crowd))

    def put(self, index: int, stamp: int, sample: Sample) -> None:
        """Append the sample, unless there is no room."""
        objects = sample.instances
        count = -1 if objects is None else len(objects.labels)
        header = np.array([stamp, index, *sample.mask.shape, sample.mask.itemsize, count, 0, 0], np.int64)
        chunks = [_bytes(header)]
        for array in (sample.image, sample.mask):
            chunks += [_bytes(array), np.zeros(_padded(array.nbytes) - array.nbytes, np.uint8)]
        if objects is not None:
            bits = np.packbits(objects.masks.reshape(count, -1), axis=1)
            chunks += map(_bytes, (objects.labels, objects.boxes, objects.iscrowd, bits))
        size = sum(map(len, chunks))
        place = self._allocate(_padded(size))
        if place is not None and os.pwritev(self._file, [chunk.data for chunk in chunks], place) == size:
            self._table[index + 1] = (stamp, place)

    def _allocate(self, size: int) -> int | None:
        if self._full:
            return None
        with self._thread_lock:
            fcntl.lockf(self._lock, fcntl.LOCK_EX)
            try:
                place = int(self._table[0, 0])
                end = place + size
                disk = shutil.disk_usage(self._folder)
                if (
                    self._limit is not None and end > self._limit
                ) or disk.free - size < _RESERVE * disk.total:
                    self._full = True
                    warnings.warn(
                        f"{self._folder}: the cache of decoded samples is full at {place / 1e9:.1f} GB; "
                        f"the rest is decoded each time",
                        stacklevel=2,
                    )
                    return None
                if end > os.fstat(self._file).st_size:
                    os.ftruncate(self._file, -(-end // _GROWTH) * _GROWTH)
                self._table[0, 0] = end
            finally:
                fcntl.lockf(self._lock, fcntl.LOCK_UN)
        return place

    def _copy(self, place: int, size: int) -> np.ndarray:
        if place + size > len(self._bytes):
            self._bytes = np.memmap(self._folder / "samples.bin", np.uint8, "r")
        return np.array(self._bytes[place : place + size])  # a copy: callers may write in place


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1)


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
