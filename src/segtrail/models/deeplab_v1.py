"""DeepLab v1 with a large field of view, on VGG-16."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from segtrail.models.base import Output, SegmentationModel
from segtrail.models.blocks import resize
from segtrail.models.checkpoint import load_checkpoint
from segtrail.models.encoder_weights import load_encoder_weights
from segtrail.models.norm import tolerate_single_values


class DeepLabV1(SegmentationModel):
    """DeepLab-LargeFOV (Chen et al., ICLR 2015); its CRF is ``postprocess=crf``.

    VGG whose last two pools keep the size and whose fifth stage is dilated by 2 (output stride 8), a
    3x3 convolution with a high rate in the place of fc6.

    Args:
        num_classes: channels of the logits.
        encoder_name: ``vgg16`` as published, or another VGG, also with batch normalization.
        encoder_weights: see :func:`segtrail.models.encoder_weights.load_encoder_weights`.
        in_channels: channels of the image.
        width: of fc6 and fc7.
        rate: dilation of fc6.
        dropout: after fc6 and fc7.
        checkpoint: weights of the whole model to start from.
    """

    size_divisor = output_stride = 8

    def __init__(
        self,
        num_classes: int,
        encoder_name: str = "vgg16",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        width: int = 1024,
        rate: int = 12,
        dropout: float = 0.5,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        if not encoder_name.startswith("vgg") or encoder_name not in smp.encoders.encoders:
            names = [name for name in smp.encoders.encoders if name.startswith("vgg")]
            raise ValueError(f"encoder_name={encoder_name!r}: DeepLab v1 needs one of {', '.join(names)}")
        self.encoder: Any = smp.encoders.get_encoder(encoder_name, in_channels=in_channels, weights=None)
        self.mean, self.std = load_encoder_weights(self.encoder, encoder_name, encoder_weights)
        _dilate(self.encoder.features)
        classify = nn.Conv2d(width, num_classes, 1)  # fc8
        nn.init.normal_(classify.weight, std=0.01)
        classify.bias.data.zero_()  # type: ignore[union-attr]
        self.head = nn.Sequential(
            nn.Conv2d(512, width, 3, padding=rate, dilation=rate),  # fc6
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 1),  # fc7
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            classify,
        )
        tolerate_single_values(self)
        if checkpoint:
            load_checkpoint(self, checkpoint)

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        logits = self.head(self.encoder.features(image))
        return Output(resize(logits, image.shape[-2:]))


def _dilate(layers: nn.Sequential) -> None:
    """Pools 3x3; the last two keep the size, and the convolutions between them have rate 2."""
    pools = 0
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.MaxPool2d):
            pools += 1
            layers[index] = nn.MaxPool2d(3, stride=2 if pools < 4 else 1, padding=1)
        elif isinstance(layer, nn.Conv2d) and pools == 4:
            layer.dilation = layer.padding = (2, 2)
