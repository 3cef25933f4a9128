"""The architectures of segmentation-models-pytorch behind segtrail's contract."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from segtrail.models.base import Output, SegmentationModel
from segtrail.models.checkpoint import load_checkpoint
from segtrail.models.encoder import BUILD_ERRORS, check_encoder_name, first_line, freeze_unused, nearest
from segtrail.models.encoder_weights import load_encoder_weights
from segtrail.models.norm import tolerate_single_values

ARCHITECTURES: dict[str, Any] = {cls.__name__: cls for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()}
# the adapter's own arguments, and those that the contract of raw logits leaves no room for
_NOT_OPTIONS = {
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
    "aux_params",
    "kwargs",
}


class SmpModel(SegmentationModel):
    """An architecture of segmentation-models-pytorch on any of its encoders.

    Args:
        architecture: class name in ``segmentation_models_pytorch``, such as ``DeepLabV3Plus``.
        num_classes: channels of the logits.
        encoder_name: an encoder of the library, or ``tu-`` and the name of a timm model.
        encoder_weights: see :func:`segtrail.models.encoder_weights.load_encoder_weights`.
        in_channels: channels of the image.
        encoder_options: further arguments of a timm encoder.
        checkpoint: weights of the whole model to start from; see
            :func:`segtrail.models.checkpoint.load_checkpoint`.
        **options: the architecture's own arguments (``encoder_depth``, ``decoder_...``).

    Raises:
        ValueError: an unknown architecture, encoder, option, or a pair that does not fit.
    """

    def __init__(
        self,
        architecture: str,
        num_classes: int,
        encoder_name: str,
        encoder_weights: str | None = None,
        in_channels: int = 3,
        encoder_options: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        network = ARCHITECTURES.get(architecture)
        if network is None:
            raise ValueError(
                f"architecture={architecture!r} is unknown{nearest(architecture, ARCHITECTURES)}"
            )
        check_encoder_name(encoder_name)
        accepted = set(inspect.signature(network).parameters) - _NOT_OPTIONS
        for option in options.keys() - accepted:
            raise ValueError(f"{architecture} takes no {option!r}{nearest(option, accepted)}")
        encoder_options = encoder_options or {}
        try:
            self.network: Any = network(
                encoder_name=encoder_name,
                encoder_weights=None,
                in_channels=in_channels,
                classes=num_classes,
                **options,
                **encoder_options,
            )
        except BUILD_ERRORS as error:
            raise ValueError(
                f"{architecture} cannot be built on encoder_name={encoder_name}: {first_line(error)}"
            ) from error
        tolerate_single_values(self.network)
        self.mean, self.std = load_encoder_weights(
            self.network.encoder, encoder_name, encoder_weights, **encoder_options
        )
        self.output_stride = int(self.network.encoder.output_stride)
        if self.network.requires_divisible_input_shape:
            self.size_divisor = self.output_stride
        if architecture == "PAN":  # its pyramid pools the last map three times by 2
            self.min_size = 8 * self.size_divisor
        if architecture == "DPT":  # its coarsest level has half the transformer's resolution
            self.size_divisor *= 2
        smallest = max(self.size_divisor, self.min_size, 32)
        freeze_unused(self.network, lambda image: [self.network(image)], in_channels, smallest)
        if checkpoint:
            load_checkpoint(self, checkpoint)

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        return Output(self.network(image))

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        return self.network.encoder.parameters()
