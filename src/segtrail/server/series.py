"""How points are packed into chunks, and how many points become few without losing a spike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# A series keeps up to TAIL small chunks, one an append; then they are merged into large ones.
TAIL = 32
LARGE = 8192
LARGE_BYTES = 1 << 18

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
