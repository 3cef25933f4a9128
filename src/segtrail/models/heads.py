"""Segmentation heads on one feature map: FCN, pyramid pooling, atrous pyramid, context encoding.

Each returns its logits at the map's size and, by name, what else it predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segtrail.models.blocks import AtrousPyramid, ConvNormReLU, resize
from segtrail.models.context_encoding import ContextEncoding

HeadOutput = tuple[Tensor, dict[str, Tensor]]


class FCNHead(nn.Module):
    """3x3 convolution to a quarter of the channels, dropout, classifier (Long et al., 2015)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width = in_channels // 4
        self.layers = nn.Sequential(
            ConvNormReLU(in_channels, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, x: Tensor) -> HeadOutput:
        return self.layers(x), {}


class PSPHead(nn.Module):
    """Pyramid pooling in 1, 2, 3 and 6 bins (Zhao et al., 2017)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width = in_channels // 4
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), ConvNormReLU(in_channels, width, 1))
            for bins in (1, 2, 3, 6)
        )
        self.layers = nn.Sequential(
            ConvNormReLU(in_channels + 4 * width, width, 3),
            nn.Dropout2d(0.1),
            nn.Conv2d(width, num_classes, 1),
        )

    def forward(self, x: Tensor) -> HeadOutput:
        pooled = [resize(pool(x), x.shape[-2:]) for pool in self.pools]
        return self.layers(torch.cat([x, *pooled], dim=1)), {}


class ASPPHead(nn.Module):
    """The head of DeepLab v3 (Chen et al., 2017) with the dropout of FastFCN's code."""

    def __init__(self, in_channels: int, num_classes: int, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        width = in_channels // 8
        self.pyramid = AtrousPyramid(in_channels, width, rates)
        self.layers = nn.Sequential(
            ConvNormReLU((len(rates) + 2) * width, width, 1),
            nn.Dropout2d(0.5),
            ConvNormReLU(width, width, 3),
            nn.Dropout2d(0.1),
            nn.Conv2d(width, num_classes, 1),
        )

    def forward(self, x: Tensor) -> HeadOutput:
        return self.layers(self.pyramid(x)), {}


class EncNetHead(nn.Module):
    """Context encoding (Zhang et al., 2018); ``presence`` are the logits of its semantic-encoding loss.

    Args:
        in_channels: of the map.
        num_classes: channels of the logits.
        kernel_size: of the first convolution: 1 after JPU, 3 on a dilated encoder.
        codewords: size of the codebook.
        lateral: channels of the encoder's stride-8 and stride-16 maps to fuse in, or none.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        kernel_size: int = 1,
        codewords: int = 32,
        lateral: Sequence[int] = (),
    ) -> None:
        super().__init__()
        width = in_channels // 4
        self.reduce = ConvNormReLU(in_channels, width, kernel_size)
        self.lateral = nn.ModuleList(ConvNormReLU(channels, width, 1) for channels in lateral)
        self.fuse = ConvNormReLU((1 + len(lateral)) * width, width, 3) if lateral else None
        self.context = ContextEncoding(width, num_classes, codewords)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1))

    def forward(self, x: Tensor, lateral: Sequence[Tensor] = ()) -> HeadOutput:
        x = self.reduce(x)
        if self.fuse is not None:
            finer = [
                resize(convolve(feature), x.shape[-2:])
                for convolve, feature in zip(self.lateral, lateral, strict=True)
            ]
            x = self.fuse(torch.cat([x, *finer], dim=1))
        x, presence = self.context(x)
        return self.classify(x), {"presence": presence}
