"""Curves of several runs on one x: shared buckets with min, mean and max, so that no spike is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segtrail.server.series import Buckets, bucket
from segtrail.server.store import NotFoundError, Store
from segtrail.tracking import names

MAX_BUCKETS = 4000


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves of R runs at n shared x.

    Attributes:
        x: (n,) float64.
        mean, low, high: (R, n) float32, NaN where a run has no point.
        nonfinite: for each run that has some, its points that were not finite: (x, "nan", "inf" or "-inf").
        exact: whether these are the points themselves, not buckets.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    nonfinite: dict[str, list[tuple[float, str]]]
    exact: bool


def curves(
    store: Store,
    runs: Sequence[str],
    path: str,
    buckets: int,
    x: str = "step",
    start: float | None = None,
    stop: float | None = None,
) -> Curves:
    """Reads a float series of several runs.

    Args:
        store: the run store.
        runs: ids; a run without the series gets NaN.
        path: a float series.
        buckets: at most so many x; fewer points than that come as they are.
        x: "step", "epoch", "time" (epoch milliseconds) or "relative" (milliseconds since the run began).
        start, stop: the range of x; everything by default.
    """
    buckets = min(max(buckets, 2), MAX_BUCKETS)
    axis = _Axis(store, x)
    if x == "step":
        shared = store.series_buckets(runs, path, buckets, start, stop)
    else:
        shared = _cut({run: axis.points(run, path) for run in runs}, buckets, start, stop)
    with store.read() as connection:  # mostly no run has any, and this is known without asking each
        some = store.resolve(connection)(names.nonfinite(path)) is not None
    nonfinite = {run: points for run in runs if some and (points := axis.nonfinite(run, path, start, stop))}
    total = sum(int(parts["count"].sum()) for parts in shared.runs.values())
    if 0 < total <= 2 * buckets:
        positions, table = _union([_range(*axis.points(run, path), start, stop) for run in runs])
        return Curves(positions, table, table, table, nonfinite, True)
    used = np.zeros(buckets, bool)
    for parts in shared.runs.values():
        used |= parts["count"] > 0
    empty = np.full(buckets, np.nan, np.float32)
    tables = [
        np.array([shared.runs[run][key] if run in shared.runs else empty for run in runs], np.float32)
        for key in ("mean", "min", "max")
    ]
    centers = (shared.edges[:-1] + shared.edges[1:]) / 2
    mean, low, high = (table.reshape(len(runs), buckets)[:, used] for table in tables)
    return Curves(centers[used], mean, low, high, nonfinite, False)


class _Axis:
    """Gives points their place on x."""

    def __init__(self, store: Store, x: str) -> None:
        self.store, self.x = store, x
        self._epochs: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def points(self, run: str, path: str) -> tuple[np.ndarray, Any]:
        """x in rising order, and values; empty where the run lacks the series."""
        with contextlib.suppress(NotFoundError):
            steps, values, times = self.store.series(run, path)
            return self._place(run, steps, times), values
        return np.empty(0), np.empty(0)

    def nonfinite(
        self, run: str, path: str, start: float | None, stop: float | None
    ) -> list[tuple[float, str]]:
        x, values = self.points(run, names.nonfinite(path))
        x, values = _range(x, values, start, stop)
        return [(float(place), str(value)) for place, value in zip(x, values, strict=True)][:500]

    def _place(self, run: str, steps: np.ndarray, times: np.ndarray) -> np.ndarray:
        if self.x == "step":
            return steps
        if self.x == "epoch":
            known, epochs = self._epoch(run)
            return np.interp(steps, known, epochs) if len(known) else np.full(len(steps), np.nan)
        clock = np.maximum.accumulate(times).astype(np.float64)  # clocks may go backwards
        if self.x == "time":
            return clock
        return clock - self._created(run) if self.x == "relative" else clock

    def _epoch(self, run: str) -> tuple[np.ndarray, np.ndarray]:
        if run not in self._epochs:
            self._epochs[run] = np.empty(0), np.empty(0)
            with contextlib.suppress(NotFoundError):
                steps, epochs, _ = self.store.series(run, names.TRAIN_EPOCH)
                self._epochs[run] = steps, np.asarray(epochs)
        return self._epochs[run]

    def _created(self, run: str) -> float:
        with self.store.read() as connection:
            return float(self.store.container(connection, run).created)


def _range(x: np.ndarray, values: Any, start: float | None, stop: float | None) -> tuple[np.ndarray, Any]:
    first = 0 if start is None else int(np.searchsorted(x, start))
    last = len(x) if stop is None else int(np.searchsorted(x, stop, side="right"))
    return x[first:last], values[first:last]


def _cut(
    points: dict[str, tuple[np.ndarray, Any]], buckets: int, start: float | None, stop: float | None
) -> Buckets:
    filled = {run: (x, values) for run, (x, values) in points.items() if len(x) and np.isfinite(x[0])}
    low = min((float(x[0]) for x, _ in filled.values()), default=0.0) if start is None else start
    high = max((float(x[-1]) for x, _ in filled.values()), default=1.0) if stop is None else stop
    edges = np.linspace(low, max(high, low), buckets + 1)
    return Buckets(edges, {run: bucket(x, values, edges) for run, (x, values) in filled.items()})


def _union(points: list[tuple[np.ndarray, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """All x of several series, and (R, n) float32 values with NaN where a series has none."""
    x = np.unique(np.concatenate([place for place, _ in points]))
    table = np.full((len(points), len(x)), np.nan, np.float32)
    for row, (place, values) in zip(table, points, strict=True):
        row[np.searchsorted(x, place)] = values
    return x, table
