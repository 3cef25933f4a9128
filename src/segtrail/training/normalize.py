"""Normalization of uint8 images on the device that computes with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Maps images in 0..255 to ``(image / 255 - mean) / std``.

    Args:
        mean, std: per channel, in units of 0..1.

    Shape:
        (B, C, H, W) uint8 or float to float32 of the same shape.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = 1.0 / (255.0 * torch.tensor(std))
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        shift = -torch.tensor(mean) / torch.tensor(std)
        self.register_buffer("shift", shift.view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return image.to(torch.float32, copy=True).mul_(self.scale).add_(self.shift)
