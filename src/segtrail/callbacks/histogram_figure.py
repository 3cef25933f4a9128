"""One picture of the weights of a whole network: a row a layer, brightness where the values lie."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segtrail.tracking.histogram import Histogram

MOST_ROWS = 48
_COLUMNS = 121


def draw_histograms(histograms: Mapping[str, Histogram], title: str) -> np.ndarray:
    """Draws layers from input to output; of more than ``MOST_ROWS`` an even selection.

    Left, each row is the distribution of one layer in units of its own largest magnitude, brightness
    growing with the share of values; right, that largest magnitude on a logarithmic axis.

    Args:
        histograms: by dotted parameter name, in the order of the layers.
        title: the line above.

    Returns:
        (H, W, 3) uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = [(name, h) for name, h in histograms.items() if h.counts.any()]
    if len(layers) > MOST_ROWS:  # evenly thinned, first and last kept
        layers = [layers[i] for i in np.linspace(0, len(layers) - 1, MOST_ROWS).round().astype(int)]
    if not layers:
        layers = [("no finite values", Histogram(np.ones(1), -1.0, 1.0))]
    rows = len(layers)
    density = np.stack([_resample(h) for _, h in layers])
    extent = [max(abs(h.low), abs(h.high)) for _, h in layers]

    height = 1.3 + 0.17 * rows  # inches
    figure = Figure(figsize=(9, height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    bottom, top = 0.55 / height, 1 - 0.5 / height
    left = figure.add_axes((0.27, bottom, 0.54, top - bottom))
    right = figure.add_axes((0.845, bottom, 0.135, top - bottom))
    left.imshow(
        density, aspect="auto", cmap="magma", vmin=0, vmax=1, interpolation="nearest", extent=(-1, 1, rows, 0)
    )
    left.axvline(0, color="white", linewidth=0.6, alpha=0.5)
    left.set_xticks([-1, -0.5, 0, 0.5, 1])
    left.set_xlabel("value / largest magnitude of the layer", fontsize=8)
    for row, (name, _) in enumerate(layers):  # text is drawn several times faster than axis ticks
        left.text(-1.02, row + 0.5, _short(name), fontsize=6, ha="right", va="center")
    decades = np.log10(np.maximum(extent, 1e-12))
    floor, ceiling = np.floor(decades.min()), np.ceil(decades.max() + 1e-9)
    right.barh(np.arange(rows) + 0.5, decades - floor, left=floor, height=0.8, color="#b5367a")
    ticks = np.unique(np.linspace(floor, ceiling, 3).round())
    right.set_xticks(ticks, [f"$10^{{{int(tick)}}}$" for tick in ticks])
    right.set_xlim(floor, ceiling)
    right.set_ylim(rows, 0)
    right.set_xlabel("largest magnitude", fontsize=8)
    for axes in (left, right):
        axes.yaxis.set_visible(False)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[:].set_visible(False)
    right.grid(axis="x", color="#dddddd", linewidth=0.5)
    right.set_axisbelow(True)
    figure.suptitle(title, fontsize=10, x=0.54, y=1 - 0.25 / height)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def _resample(histogram: Histogram) -> np.ndarray:
    """Shares on a common grid of -1..1 in units of the largest magnitude; the fullest cell becomes 1."""
    edges, counts = histogram.edges, np.asarray(histogram.counts, np.float64)
    scale = max(abs(histogram.low), abs(histogram.high)) or 1.0
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    grid = np.linspace(-1, 1, _COLUMNS + 1) * scale
    share = np.diff(np.interp(grid, edges, cumulative))
    peak = share.max()
    return np.sqrt(share / peak) if peak > 0 else share  # the root lets the tails be seen


def _short(name: str, most: int = 36) -> str:
    name = name.removesuffix(".weight")
    return name if len(name) <= most else "…" + name[-most + 1 :]
