"""DeepLab v2: atrous spatial pyramid straight to the classes, several input scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrail.models.base import Output, SegmentationModel
from segtrail.models.blocks import resize
from segtrail.models.checkpoint import load_checkpoint
from segtrail.models.encoder import build_encoder
from segtrail.models.norm import tolerate_single_values


class SummedPyramid(nn.ModuleList):
    """ASPP of v2: one 3x3 convolution per rate from the map to the classes, summed."""

    def __init__(self, in_channels: int, num_classes: int, rates: Sequence[int]) -> None:
        super().__init__(
            nn.Conv2d(in_channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates
        )
        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter, std=0.0 if name.endswith("bias") else 0.01)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self]).sum(0)


class DeepLabV2(SegmentationModel):
    """DeepLab v2 (Chen et al., TPAMI 2018); its CRF is ``postprocess=crf``.

    The image is also read at smaller ``scales`` with the same weights; the logits are the pixelwise
    maximum. ``auxiliary`` of the output holds, while training, the logits of each scale, which the
    run's loss supervises beside the maximum.

    Args:
        num_classes: channels of the logits.
        encoder_name: any encoder that can be dilated; the published one is ``resnet101``.
        encoder_weights: see :func:`segtrail.models.encoder_weights.load_encoder_weights`.
        in_channels: channels of the image.
        output_stride: 8 (published) or 16.
        atrous_rates: of the pyramid, for output stride 8.
        scales: further input scales; empty for none.
        scale_weight: of the run's loss on each scale.
        freeze_norm: keeps the encoder's batch normalization as it is, as published for small batches.
        checkpoint: weights of the whole model to start from.
    """

    def __init__(
        self,
        num_classes: int,
        encoder_name: str = "resnet101",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        output_stride: int = 8,
        atrous_rates: Sequence[int] = (6, 12, 18, 24),
        scales: Sequence[float] = (0.75, 0.5),
        scale_weight: float = 1.0,
        freeze_norm: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder, (self.mean, self.std) = build_encoder(
            encoder_name, encoder_weights, in_channels, output_stride, levels=(5,)
        )
        self.size_divisor = self.output_stride = int(self.encoder.output_stride)
        self.scales = tuple(scales)
        self.scale_weight = scale_weight
        self.freeze_norm = freeze_norm
        self.pyramid = SummedPyramid(self.encoder.out_channels[-1], num_classes, atrous_rates)
        tolerate_single_values(self)
        if checkpoint:
            load_checkpoint(self, checkpoint)

    def train(self, mode: bool = True) -> DeepLabV2:
        super().train(mode)
        if self.freeze_norm:
            for module in self.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        size = image.shape[-2:]
        by_scale = {"scale_1": resize(self._logits(image), size, align_corners=False)}
        for scale in self.scales:
            # to a multiple of the stride, which some encoders need
            scaled = [max(1, round(s * scale / self.size_divisor)) * self.size_divisor for s in size]
            small = F.interpolate(image, size=scaled, mode="bilinear", align_corners=False)
            by_scale[f"scale_{scale:g}"] = resize(self._logits(small), size, align_corners=False)
        logits = torch.stack(list(by_scale.values())).amax(0)
        return Output(logits, by_scale if self.training and self.scales else {})

    def _logits(self, image: Tensor) -> Tensor:
        return self.pyramid(self.encoder(image)[-1])

    def auxiliary_losses(
        self, output: Output, target: Tensor, loss: nn.Module, **derived: Tensor
    ) -> dict[str, Tensor]:
        if not self.scale_weight:
            return {}
        return {name: self.scale_weight * loss(logits, target) for name, logits in output.auxiliary.items()}
