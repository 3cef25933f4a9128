"""The original U-Net, without an encoder of its own."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrail.models.base import Output, SegmentationModel
from segtrail.models.checkpoint import load_checkpoint

LEVELS = 5


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with bias, each with ReLU."""

    def __init__(self, in_channels: int, out_channels: int, padding: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=padding),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=padding),
            nn.ReLU(inplace=True),
        )


class UNetOriginal(SegmentationModel):
    """U-Net as published (Ronneberger et al., MICCAI 2015): five levels, no normalization.

    With ``padding="valid"`` convolutions lose a border of 92 pixels; the image is continued by its
    mirror image, as in the paper's overlap-tile strategy, so that the output has the input's size.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        base_channels: of the finest level, doubled at each coarser one; the paper's 64.
        padding: ``valid`` (the paper's) or ``same``.
        dropout: at the end of the contracting path.
        checkpoint: weights of the whole model to start from.
    """

    output_stride = 2 ** (LEVELS - 1)
    MARGIN = 92  # pixels that the valid convolutions take from each side

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        base_channels: int = 64,
        padding: str = "valid",
        dropout: float = 0.5,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        if padding not in ("valid", "same"):
            raise ValueError(f"padding={padding!r}: choose valid or same")
        self.valid = padding == "valid"
        # with valid padding the mirrored border makes up for the size
        self.size_divisor = 1 if self.valid else 2 ** (LEVELS - 1)
        pad = 0 if self.valid else 1
        widths = [base_channels * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            DoubleConv(a, b, pad) for a, b in zip([in_channels, *widths], widths, strict=False)
        )
        self.dropout = nn.Dropout(dropout)
        pairs = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(DoubleConv(a, b, pad) for a, b in pairs)
        self.classify = nn.Conv2d(base_channels, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        if checkpoint:
            load_checkpoint(self, checkpoint)

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        if not self.valid:
            return Output(self.network(image))
        height, width = image.shape[-2:]
        rows, columns = (self._mirrored(size, image.device) for size in (height, width))
        logits = self.network(image[..., rows, :][..., columns])
        return Output(logits[..., :height, :width])

    def network(self, x: Tensor) -> Tensor:
        """The bare network; with valid padding sizes are 16 k + 124 and shrink by 184."""
        skips = []
        for level, convolve in enumerate(self.down):
            x = convolve(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = self.dropout(skips.pop())
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            skip = _center_crop(skips.pop(), x.shape[-2], x.shape[-1])
            x = merge(torch.cat([skip, x], dim=1))
        return self.classify(x)

    def _mirrored(self, size: int, device: torch.device) -> Tensor:
        """Where to read each pixel of the continued image: the next size that fits, 92 before."""
        total = size + 2 * self.MARGIN
        total += (124 - total) % 16
        period = max(2 * (size - 1), 1)  # of an image mirrored without repeating its border
        position = (torch.arange(total, device=device) - self.MARGIN) % period
        return torch.minimum(position, period - position).clamp(max=size - 1)


def _center_crop(x: Tensor, height: int, width: int) -> Tensor:
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]
