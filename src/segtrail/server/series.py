"""How points are packed into chunks, and how many points become few without losing a spike."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# A series keeps up to TAIL small chunks, one an append; then they are merged into large ones.
TAIL = 32
LARGE = 8192
LARGE_BYTES = 1 << 18

# What a series in memory costs beside its points, in points.
_ENTRY = 64

_RAW, _REGULAR = b"\x00", b"\x01"


def pack_numbers(numbers: Any, dtype: str) -> bytes:
    """Packs numbers; an arithmetic progression takes 17 bytes however long it is.

    Args:
        numbers: one-dimensional.
        dtype: little-endian, ``<f8`` or ``<i8``.
    """
    array = np.asarray(numbers, dtype=dtype)
    if len(array) > 2:
        first, delta = array[0], array[1] - array[0]
        if np.array_equal(array, first + delta * np.arange(len(array), dtype=dtype)):
            return _REGULAR + np.array([first, delta], dtype=dtype).tobytes()
    return _RAW + array.tobytes()


def unpack_numbers(data: bytes, count: int, dtype: str) -> np.ndarray:
    """Inverts :func:`pack_numbers`."""
    array = np.frombuffer(data, dtype=dtype, offset=1)
    if data[:1] == _REGULAR:
        return array[0] + array[1] * np.arange(count, dtype=dtype)
    return array


def pack_values(type: str, values: Sequence[Any]) -> bytes:
    """Packs the values of a series of `type`: float64, or a JSON list of strings or image descriptions."""
    if type == "floatSeries":
        return np.asarray(values, dtype="<f8").tobytes()
    return json.dumps(values, separators=(",", ":")).encode()


def unpack_values(type: str, data: bytes) -> Any:
    """Inverts :func:`pack_values`: a float64 array or a list."""
    return np.frombuffer(data, dtype="<f8") if type == "floatSeries" else json.loads(data)


def join_values(type: str, parts: Iterable[bytes]) -> Any:
    """Unpacks and concatenates the packed values of several chunks."""
    unpacked = [unpack_values(type, part) for part in parts]
    if type == "floatSeries":
        return np.concatenate(unpacked) if unpacked else np.empty(0)
    return [value for values in unpacked for value in values]


class PointCache:
    """Whole series in memory, the least recently used dropped first: zooming cuts the same points anew.

    Args:
        limit: at most so many points in all, 16 bytes each.
    """

    def __init__(self, limit: int = 8 << 20) -> None:
        self.limit = limit
        self._kept: OrderedDict[tuple[int, int], tuple[int, np.ndarray, np.ndarray]] = OrderedDict()
        self._points = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int], change: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Steps and values of container and path as of `change`; None where they are not at hand."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != change:
                return None
            self._kept.move_to_end(key)
            return found[1:]

    def put(self, key: tuple[int, int], change: int, steps: np.ndarray, values: np.ndarray) -> None:
        """Keeps a series, unless it alone is over the limit."""
        with self._lock:
            old = self._kept.pop(key, None)
            self._points -= len(old[1]) + _ENTRY if old else 0
            if len(steps) + _ENTRY > self.limit:
                return
            self._kept[key] = change, steps, values
            self._points += len(steps) + _ENTRY
            while self._points > self.limit:
                self._points -= len(self._kept.popitem(last=False)[1][1]) + _ENTRY


@dataclass(frozen=True)
class Buckets:
    """Several series cut at the same edges of x.

    Attributes:
        edges: (buckets + 1,) float64; bucket i holds ``edges[i] <= x < edges[i + 1]``, the last one also its
            right edge.
        runs: run id -> ``min``, ``mean``, ``max``, each (buckets,) float32, NaN where a bucket is empty,
            and ``count`` (buckets,) int64.
    """

    edges: np.ndarray
    runs: dict[str, dict[str, np.ndarray]]


def bucket(x: np.ndarray, values: np.ndarray, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Reduces one series to min, mean and max of each bucket.

    Args:
        x: (n,) ascending.
        values: (n,) float64.
        edges: (b + 1,) ascending.
    """
    buckets = len(edges) - 1
    cuts = np.searchsorted(x, edges)
    cuts[-1] = np.searchsorted(x, edges[-1], side="right")
    counts = np.diff(cuts)
    filled = np.flatnonzero(counts)
    result = {name: np.full(buckets, np.nan, np.float32) for name in ("min", "mean", "max")}
    if len(filled):
        starts = cuts[:-1][filled]
        inside = values[: cuts[-1]]
        result["min"][filled] = np.minimum.reduceat(inside, starts)
        result["max"][filled] = np.maximum.reduceat(inside, starts)
        result["mean"][filled] = np.add.reduceat(inside, starts) / counts[filled]
    return {**result, "count": counts}
