"""Wide ResNet-38, the trunk of the published Gated-SCNN.

Source: Wu et al., Wider or Deeper: Revisiting the ResNet Model for Visual Recognition, 2016, network A2.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class PreActivationBlock(nn.Module):
    """Norm and ReLU before each convolution; two 3x3, or a bottleneck if three widths are given."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], stride: int = 1, dilation: int = 1, dropout: float = 0
    ) -> None:
        super().__init__()
        kernels = (3, 3) if len(widths) == 2 else (1, 3, 1)
        self.norm1 = _norm(in_channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for number, (kernel, width) in enumerate(zip(kernels, widths, strict=True), 1):
            if number > 1:
                layers[f"norm{number}"] = _norm(channels)
            if number == len(widths) and dropout:
                layers["dropout"] = nn.Dropout(dropout)
            rate = dilation if kernel == 3 else 1
            layers[f"conv{number}"] = nn.Conv2d(
                channels,
                width,
                kernel,
                stride if number == 1 else 1,
                padding=rate * (kernel // 2),
                dilation=rate,
                bias=False,
            )
            channels = width
        self.layers = nn.Sequential(layers)
        changes = stride != 1 or in_channels != channels
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.norm1(x)
        return self.layers(activated) + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet38(nn.Module):
    """Returns the image and the maps of modules 1, 2, 3, 4 and 7, at strides 1, 2, 4, 8 and 8.

    Args:
        in_channels: channels of the image.
        width: of the first convolution; 64 is the published network.
    """

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        w = width
        self.mod1 = nn.Conv2d(in_channels, w, 3, padding=1, bias=False)
        self.mod2 = self._module(3, w, (2 * w, 2 * w))
        self.mod3 = self._module(3, 2 * w, (4 * w, 4 * w))
        self.mod4 = self._module(6, 4 * w, (8 * w, 8 * w), stride=2)
        self.mod5 = self._module(3, 8 * w, (8 * w, 16 * w), dilation=2)
        self.mod6 = self._module(1, 16 * w, (8 * w, 16 * w, 32 * w), dilation=4, dropout=0.3)
        self.mod7 = self._module(1, 32 * w, (16 * w, 32 * w, 64 * w), dilation=4, dropout=0.5)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.out_channels = [in_channels, w, 2 * w, 4 * w, 8 * w, 64 * w]
        self.output_stride = 8

    @staticmethod
    def _module(
        blocks: int,
        in_channels: int,
        widths: Sequence[int],
        stride: int = 1,
        dilation: int = 1,
        dropout: float = 0,
    ) -> nn.Sequential:
        first = PreActivationBlock(in_channels, widths, stride, dilation, dropout)
        rest = (PreActivationBlock(widths[-1], widths, 1, dilation, dropout) for _ in range(blocks - 1))
        return nn.Sequential(first, *rest)

    def forward(self, image: Tensor) -> list[Tensor]:
        m1 = self.mod1(image)
        m2 = self.mod2(self.pool(m1))
        m3 = self.mod3(self.pool(m2))
        m4 = self.mod4(m3)
        return [image, m1, m2, m3, m4, self.mod7(self.mod6(self.mod5(m4)))]
