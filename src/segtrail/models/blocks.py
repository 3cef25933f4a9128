"""Building blocks that several architectures share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def resize(x: Tensor, size: Sequence[int], align_corners: bool = True) -> Tensor:
    """Bilinear interpolation of (B, C, h, w) to ``size``, corners aligned as in the papers' code."""
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


class ConvNormReLU(nn.Sequential):
    """Convolution without bias that keeps the size, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ImagePooling(nn.Sequential):
    """The mean over the image through a 1x1 convolution, spread back over the map."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *ConvNormReLU(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).expand(-1, -1, *x.shape[-2:])  # what interpolating one value gives


class AtrousPyramid(nn.ModuleList):
    """Parallel branches of DeepLab v3: 1x1, one 3x3 per rate, the pooled image; concatenated.

    Source: Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017.
    """

    def __init__(self, in_channels: int, out_channels: int, rates: Sequence[int]) -> None:
        super().__init__(
            [
                ConvNormReLU(in_channels, out_channels, 1),
                *(ConvNormReLU(in_channels, out_channels, 3, rate) for rate in rates),
                ImagePooling(in_channels, out_channels),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)
