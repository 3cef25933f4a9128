"""Histograms of all layers at one step, in one small file.

The file is a compressed npz (no pickles) of
    names   (P,) text: parameter names with dots, ``encoder.conv1.weight``;
    counts  (P, bins) uint32: values in each bin;
    ranges  (P, 2) float64: lower edge of the first bin, upper edge of the last; bins are of equal width.
A parameter that holds no finite value has zero counts.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

BINS = 64


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in bins of equal width.

    Attributes:
        counts: (bins,) non-negative integers.
        low, high: lower edge of the first bin and upper edge of the last.
    """

    counts: np.ndarray
    low: float
    high: float

    @property
    def edges(self) -> np.ndarray:
        """(bins + 1,) float64, rising."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)


def encode_histograms(histograms: Mapping[str, Histogram]) -> bytes:
    """Packs histograms that have the same number of bins."""
    values = list(histograms.values())
    bins = len(values[0].counts) if values else BINS
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names=np.array(list(histograms), dtype=np.str_),
        counts=np.array([h.counts for h in values], np.uint32).reshape(len(values), bins),
        ranges=np.array([(h.low, h.high) for h in values], np.float64).reshape(len(values), 2),
    )
    return buffer.getvalue()


def decode_histograms(data: bytes) -> dict[str, Histogram]:
    """Histograms by parameter name, in the order in which they were packed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {
            str(name): Histogram(counts.astype(np.int64), float(low), float(high))
            for name, counts, (low, high) in zip(file["names"], file["counts"], file["ranges"], strict=True)
        }
