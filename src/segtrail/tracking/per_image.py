"""Per-image confusion counts of the last and the best epoch: what statistics between runs start from.

The file is a compressed npz (no pickles). For each epoch kept, ``which`` being ``last`` or ``best``:
    <which>.ids          (N,) text: sample ids;
    <which>.class_names  (C,) text;
    <which>.cells        (M,) int64: flat indices into (N, C, C) of the counts that are not zero, rising;
    <which>.values       (M,) int64: those counts;
    <which>.step, <which>.epoch  scalars: the global step and the epoch of the evaluation.
Rows of a C x C block are the target's classes, columns the prediction's. With one class (binary) the file
has C = 2, background first.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class PerImage:
    """Confusion counts of each image of a split.

    Attributes:
        ids: N sample ids.
        counts: (N, C, C) int64; rows are target classes, columns predicted ones.
        class_names: C names.
        step, epoch: when it was evaluated.
    """

    ids: tuple[str, ...]
    counts: np.ndarray
    class_names: tuple[str, ...]
    step: int
    epoch: int

    def __post_init__(self) -> None:
        expected = (len(self.ids), len(self.class_names), len(self.class_names))
        if self.counts.shape != expected:
            raise ValueError(f"counts are (N, C, C) = {expected}, got {self.counts.shape}")


def encode_per_image(results: Mapping[str, PerImage]) -> bytes:
    """Packs the results of the epochs kept, by ``"last"`` and ``"best"``."""
    arrays: dict[str, np.ndarray] = {}
    for which, result in results.items():
        flat = np.asarray(result.counts, np.int64).ravel()
        cells = np.flatnonzero(flat)
        arrays |= {
            f"{which}.ids": np.array(result.ids, dtype=np.str_),
            f"{which}.class_names": np.array(result.class_names, dtype=np.str_),
            f"{which}.cells": cells,
            f"{which}.values": flat[cells],
            f"{which}.step": np.array(result.step, np.int64),
            f"{which}.epoch": np.array(result.epoch, np.int64),
        }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def decode_per_image(data: bytes) -> dict[str, PerImage]:
    """Results by ``"last"`` and ``"best"``, as many as the file has."""
    results = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        for which in dict.fromkeys(key.partition(".")[0] for key in file.files):
            ids, names = file[f"{which}.ids"], file[f"{which}.class_names"]
            counts = np.zeros(len(ids) * len(names) ** 2, np.int64)
            counts[file[f"{which}.cells"]] = file[f"{which}.values"]
            results[which] = PerImage(
                ids=tuple(ids.tolist()),
                counts=counts.reshape(len(ids), len(names), len(names)),
                class_names=tuple(names.tolist()),
                step=int(file[f"{which}.step"]),
                epoch=int(file[f"{which}.epoch"]),
            )
    return results
