"""Which parameter of a sweep matters: a rank statistic for each, from the runs as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def importance(columns: Mapping[str, Sequence[Any]], metric: Sequence[float | None]) -> list[dict[str, Any]]:
    """How much of the metric's ranks each parameter explains alone, from 0 to 1, the largest first.

    A numeric parameter: the square of Spearman's rank correlation, with its sign apart. Any other: eta
    squared of the ranks between its values. With few runs this is a hint, not a proof.

    Args:
        columns: values of each parameter, one for each run.
        metric: of the same runs; None where a run has none.
    """
    scored = np.array([np.nan if value is None else value for value in metric], np.float64)
    result = []
    for path, values in columns.items():
        known = [i for i, value in enumerate(values) if value is not None and np.isfinite(scored[i])]
        distinct = {repr(values[i]) for i in known}
        if len(known) < 4 or len(distinct) < 2:
            continue
        ranks = _ranks(scored[known])
        chosen = [values[i] for i in known]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in chosen):
            correlation = float(np.corrcoef(_ranks(np.array(chosen, np.float64)), ranks)[0, 1])
            result.append({"path": path, "share": correlation**2, "sign": float(np.sign(correlation))})
        elif len(distinct) < len(known):
            groups: dict[str, list[float]] = {}
            for value, rank in zip(chosen, ranks, strict=True):
                groups.setdefault(repr(value), []).append(float(rank))
            between = sum(len(g) * (np.mean(g) - ranks.mean()) ** 2 for g in groups.values())
            total = float(((ranks - ranks.mean()) ** 2).sum())
            result.append({"path": path, "share": float(between / total) if total else 0.0, "sign": 0.0})
    return sorted(result, key=lambda item: -item["share"])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties by their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[places]
