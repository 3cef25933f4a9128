"""Joint Pyramid Upsampling: a stride-8 map from the last three stages of a stride-32 encoder.

Source: Wu et al., FastFCN: Rethinking Dilated Convolution in the Backbone for Semantic Segmentation,
2019 (JPU); the cascade JPU_X came with the authors' code in 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrail.models.blocks import ConvNormReLU, resize


class DepthwiseConv(nn.Conv2d):
    """A 3x3 convolution of each channel by itself, at one dilation, that keeps the size."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(
            channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False
        )

    def forward(self, x: Tensor, norm: nn.modules.batchnorm._BatchNorm | None = None) -> Tensor:
        """Convolves, and normalizes in the same pass if given a norm in eval mode.

        Shape:
            (B, channels, H, W) -> the same.
        """
        weight, bias = self.weight, self.bias
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weight, bias = weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
        pad, _ = self.dilation
        if pad >= 8 and x.device.type == "cpu":
            # the convolution's own padding falls off the fast path here: 6 times the time
            return F.conv2d(F.pad(x, (pad, pad, pad, pad)), weight, bias, 1, 0, pad, self.groups)
        return F.conv2d(x, weight, bias, 1, pad, pad, self.groups)


class SeparableBranch(nn.Sequential):
    """Depthwise 3x3 at one dilation, norm, pointwise 1x1, norm, ReLU.

    In eval mode the first batch normalization goes into the convolution before it: on a map this wide
    a pass of its own takes as long as the convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dilation: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__(
            DepthwiseConv(in_channels, dilation),
            norm(in_channels),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            norm(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        depthwise, norm, *others = self
        if norm.training or not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            return super().forward(x)
        x = depthwise(x, norm)
        for layer in others:
            x = layer(x)
        return x


class JPU(nn.Module):
    """All three maps at once, four dilations.

    Args:
        in_channels: of the maps at strides 8, 16 and 32.
        width: of every branch.

    Shape:
        (B, ., H, W), (B, ., H/2, W/2), (B, ., H/4, W/4) -> (B, 4 * width, H, W).
    """

    def __init__(self, in_channels: Sequence[int], width: int = 512) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(ConvNormReLU(channels, width, 3) for channels in in_channels)
        self.branches = nn.ModuleList(
            SeparableBranch(3 * width, width, dilation, nn.BatchNorm2d) for dilation in (1, 2, 4, 8)
        )
        self.out_channels = 4 * width

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        c3, c4, c5 = (reduce(feature) for reduce, feature in zip(self.reduce, features, strict=True))
        size = c3.shape[-2:]
        joint = torch.cat([resize(c5, size), resize(c4, size), c3], dim=1)  # coarse to fine
        return torch.cat([branch(joint) for branch in self.branches], dim=1)


class JointUpsampling(nn.Module):
    """One step of the cascade: a coarse map joins the next finer one."""

    def __init__(self, coarse: int, fine: int, width: int, dilation: int) -> None:
        super().__init__()

        def norm(channels: int) -> nn.Module:
            return nn.GroupNorm(32, channels)

        self.coarse = ConvNormReLU(coarse, width, 3)
        self.fine = ConvNormReLU(fine, width, 3)
        self.branches = nn.ModuleList(
            SeparableBranch(2 * width, width, factor * dilation, norm) for factor in (1, 2, 4)
        )
        self.out_channels = 4 * width

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        fine = self.fine(fine)
        coarse = resize(self.coarse(coarse), fine.shape[-2:])
        joint = torch.cat([coarse, fine], dim=1)
        return torch.cat([coarse, *(branch(joint) for branch in self.branches)], dim=1)


class JPUX(nn.Module):
    """Two steps of :class:`JointUpsampling`: strides 16 to 8, then 32 to 8. ``width`` is a multiple of 64."""

    def __init__(self, in_channels: Sequence[int], width: int = 512) -> None:
        super().__init__()
        if width % 64:
            raise ValueError(f"JPU_X has 32 groups in half its width: jpu_width={width} is no multiple of 64")
        c3, c4, c5 = in_channels
        self.first = JointUpsampling(c4, c3, width // 2, dilation=1)
        self.second = JointUpsampling(c5, self.first.out_channels, width, dilation=2)
        self.out_channels = self.second.out_channels

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        c3, c4, c5 = features
        return self.second(c5, self.first(c4, c3))
