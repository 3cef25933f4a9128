"""Histograms of weights and gradients: a layer by step overview, and ridgelines on shared bins."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from segtrail.server.store import NotFoundError, Store
from segtrail.tracking import names
from segtrail.tracking.histogram import Histogram, decode_histograms

BINS = 80
_KEPT = 512
_decoded: dict[str, dict[str, Histogram]] = {}  # by the hash of the file's content


def steps_of(store: Store, run: str, namespace: str) -> list[int]:
    """Steps at which a run logged histograms."""
    prefix = names.histograms(0, namespace).removesuffix("0")
    found = [
        path.removeprefix(prefix) for path, a in store.attributes(run, prefix).items() if a.type == "file"
    ]
    return sorted(int(step) for step in found if step.isdigit())


def read(store: Store, run: str, step: int, namespace: str) -> dict[str, Histogram]:
    """Histograms by parameter.

    Raises:
        NotFoundError: there are none at this step, or the file is missing or damaged.
    """
    path = names.histograms(step, namespace)
    key = store.attribute(run, path, "file").value["blob"]
    if key in _decoded:
        return _decoded[key]
    try:
        with store.open_blob(key) as stream:
            result = decode_histograms(stream.read())
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise NotFoundError(f"{path} cannot be read: {error}") from None
    while len(_decoded) >= _KEPT:
        _decoded.pop(next(iter(_decoded)), None)
    _decoded[key] = result
    return result


def moments(histogram: Histogram) -> tuple[float, float, float]:
    """Mean, standard deviation, and the share of values in the bin that holds zero."""
    total = histogram.counts.sum()
    if not total:
        return float("nan"), float("nan"), float("nan")
    edges = histogram.edges
    centers = (edges[:-1] + edges[1:]) / 2
    share = histogram.counts / total
    mean = float(share @ centers)
    deviation = float(np.sqrt(max(share @ centers**2 - mean**2, 0.0)))
    if histogram.low > 0 or histogram.high < 0:
        return mean, deviation, 0.0
    if histogram.low == histogram.high:
        return mean, 0.0, 1.0
    place = np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, len(share) - 1)
    return mean, deviation, float(share[place])


def overview(store: Store, run: str, namespace: str) -> dict[str, Any]:
    """Layers by steps: the standard deviation of each, and which layers look wrong.

    Returns:
        ``steps``, ``layers``, ``deviation`` (layers x steps, None where not logged) and ``flags``: layer ->
        "dead" (all values are zero or all the same), "exploding" (the spread grew tenfold and more, or is
        not finite).
    """
    steps = steps_of(store, run, namespace)
    layers: dict[str, None] = {}
    tables: list[dict[str, Histogram]] = []
    missing = 0
    for step in steps:
        try:
            tables.append(read(store, run, step, namespace))
        except NotFoundError:
            tables.append({})
            missing += 1
        layers.update(dict.fromkeys(tables[-1]))
    deviation: list[list[float | None]] = []
    flags: dict[str, str] = {}
    for layer in layers:
        row: list[float | None] = []
        for table in tables:
            value = moments(table[layer])[1] if layer in table else None
            row.append(None if value is None or not np.isfinite(value) else value)
        deviation.append(row)
        flag = _flag(row, [table[layer] for table in tables if layer in table])
        if flag:
            flags[layer] = flag
    return {
        "steps": steps,
        "layers": list(layers),
        "deviation": deviation,
        "flags": flags,
        "missing": missing,
    }


def ridgelines(
    store: Store, runs: Sequence[str], layer: str, namespace: str, most: int = 24
) -> dict[str, Any]:
    """Histograms of one layer over steps for several runs, all on the same bins.

    Returns:
        ``edges`` (bins + 1,) and for each run ``steps`` and ``rows``: shares of the values in each bin.
    """
    found: dict[str, list[tuple[int, Histogram]]] = {}
    for run in runs:
        steps = steps_of(store, run, namespace)
        if len(steps) > most:
            steps = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, most).astype(int))]
        found[run] = []
        for step in steps:
            try:
                histogram = read(store, run, step, namespace).get(layer)
            except NotFoundError:
                continue
            if histogram is not None and histogram.counts.sum():
                found[run].append((step, histogram))
    everything = [histogram for rows in found.values() for _, histogram in rows]
    low = min((h.low for h in everything), default=0.0)
    high = max((h.high for h in everything), default=1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    return {
        "edges": edges.tolist(),
        "runs": {
            run: {"steps": [step for step, _ in rows], "rows": [_rebin(h, edges).tolist() for _, h in rows]}
            for run, rows in found.items()
        },
    }


def _rebin(histogram: Histogram, edges: np.ndarray) -> np.ndarray:
    """Shares in other bins, taking values as spread evenly over their own bin."""
    if histogram.low == histogram.high:
        shares = np.zeros(len(edges) - 1)
        shares[np.clip(np.searchsorted(edges, histogram.low, side="right") - 1, 0, len(shares) - 1)] = 1.0
        return shares
    cumulative = np.concatenate([[0.0], np.cumsum(histogram.counts)]) / histogram.counts.sum()
    return np.diff(np.interp(edges, histogram.edges, cumulative))


def _flag(deviations: list[float | None], histograms: list[Histogram]) -> str:
    finite = [value for value in deviations if value is not None]
    if not finite or not histograms[-1].counts.sum():
        return "exploding"  # no finite value is left
    if finite[-1] <= 1e-12:
        return "dead"
    if len(finite) > 1 and finite[0] > 0 and finite[-1] > 10 * finite[0]:
        return "exploding"
    return ""
