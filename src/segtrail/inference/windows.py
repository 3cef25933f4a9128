"""Where the windows over a large image lie, and how they blend."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Blend = Literal["gaussian", "linear"]


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """First pixels of the fewest equally spaced windows that cover a side.

    Args:
        length: of the side, at least ``window``.
        window: length of a window.
        overlap: least share of a window that the next one covers again, 0 <= overlap < 1.
    """
    stride = max(1, math.floor(window * (1 - overlap)))
    count = math.ceil((length - window) / stride) + 1
    return [round(k * (length - window) / max(1, count - 1)) for k in range(count)]


def blend_weights(height: int, width: int, blend: Blend, device: torch.device | None = None) -> Tensor:
    """(H, W) float32 weights of a window's pixels, highest in the middle and positive everywhere.

    ``gaussian`` falls off with a standard deviation of an eighth of the side (Isensee et al., nnU-Net,
    2021), ``linear`` to the edges.
    """
    rows, columns = (_profile(side, blend, device) for side in (height, width))
    return rows[:, None] * columns


def _profile(side: int, blend: Blend, device: torch.device | None) -> Tensor:
    position = (torch.arange(side, device=device) + 0.5) / side - 0.5  # -0.5 .. 0.5
    if blend == "gaussian":
        return torch.exp(-0.5 * (position * 8) ** 2)
    return 1 - 2 * position.abs()
