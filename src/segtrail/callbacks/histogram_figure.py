"""One picture of the weights of a whole network: a row a layer, brightness where the values lie."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrail.tracking.histogram import Histogram

MOST_ROWS = 48
_COLUMNS = 121
# pixels
_ROW = 17
_TOP, _BOTTOM = 44, 48
_DENSITY = (250, 250 + 4 * _COLUMNS)  # left and right side of the distributions
_BARS = (_DENSITY[1] + 34, _DENSITY[1] + 174)  # and of the magnitudes
_WIDTH = _BARS[1] + 26
_INK, _FAINT, _BAR = (38, 38, 38), (221, 221, 221), (181, 54, 122)


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
    layers = [(name, h) for name, h in histograms.items() if h.counts.any()]
    if len(layers) > MOST_ROWS:  # evenly thinned, first and last kept
        layers = [layers[i] for i in np.linspace(0, len(layers) - 1, MOST_ROWS).round().astype(int)]
    if not layers:
        layers = [("no finite values", Histogram(np.ones(1), -1.0, 1.0))]
    bottom = _TOP + _ROW * len(layers)
    canvas = np.full((bottom + _BOTTOM, _WIDTH, 3), 255, np.uint8)
    canvas[_TOP:bottom, slice(*_DENSITY)] = _density([h for _, h in layers])
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    small, normal = ImageFont.load_default(11), ImageFont.load_default(13)
    draw.text((sum(_DENSITY) / 2, _TOP / 2), title, _INK, ImageFont.load_default(15), anchor="mm")
    for row, (name, _) in enumerate(layers):
        draw.text((_DENSITY[0] - 8, _TOP + _ROW * (row + 0.5)), _short(name), _INK, small, anchor="rm")
    for value in (-1, -0.5, 0, 0.5, 1):
        x = _DENSITY[0] + (value + 1) / 2 * (_DENSITY[1] - _DENSITY[0])
        draw.line((x, bottom, x, bottom + 4), _INK)
        draw.text((x, bottom + 13), f"{value:g}", _INK, small, anchor="mm")
    draw.text(
        (sum(_DENSITY) / 2, bottom + 33), "value / largest magnitude of the layer", _INK, normal, anchor="mm"
    )
    _draw_magnitudes(draw, [max(abs(h.low), abs(h.high)) for _, h in layers], bottom, small)
    draw.text((sum(_BARS) / 2, bottom + 33), "largest magnitude", _INK, normal, anchor="mm")
    return np.asarray(picture)


def _density(histograms: list[Histogram]) -> np.ndarray:
    """Colored distributions, a row each, with a line at zero."""
    shares = (np.stack([_resample(h) for h in histograms]) * 255).round().astype(np.uint8)
    colored = cv2.applyColorMap(shares, cv2.COLORMAP_MAGMA)[..., ::-1]
    image = colored.repeat(_ROW, axis=0).repeat((_DENSITY[1] - _DENSITY[0]) // _COLUMNS, axis=1)
    middle = image[:, image.shape[1] // 2]
    middle[:] = middle // 2 + 128
    return image


def _draw_magnitudes(
    draw: ImageDraw.ImageDraw,
    magnitudes: list[float],
    bottom: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    decades = np.log10(np.maximum(magnitudes, 1e-12))
    floor, ceiling = np.floor(decades.min()), np.floor(decades.max()) + 1
    left, width = _BARS[0], _BARS[1] - _BARS[0]
    for tick in np.arange(floor, ceiling + 1, np.ceil((ceiling - floor) / 4)):
        x = left + width * (tick - floor) / (ceiling - floor)
        draw.line((x, _TOP, x, bottom + 4), _FAINT)
        draw.text((x, bottom + 13), f"{10.0**tick:g}", _INK, font, anchor="mm")
    for row, decade in enumerate(decades):
        length = width * (decade - floor) / (ceiling - floor)
        draw.rectangle((left, _TOP + _ROW * row + 2, left + length, _TOP + _ROW * (row + 1) - 3), _BAR)


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
