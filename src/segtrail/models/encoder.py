"""Encoders of segmentation-models-pytorch and timm: built, checked, given their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from segtrail.models.encoder_weights import Normalization, load_encoder_weights

# what building third-party networks raises where their arguments do not fit
BUILD_ERRORS = (ValueError, KeyError, RuntimeError, TypeError, AttributeError, NotImplementedError)


def build_encoder(
    name: str, weights: str | None, in_channels: int, output_stride: int, levels: Sequence[int]
) -> tuple[Any, Normalization]:
    """Builds an encoder of five levels whose call returns the image and one map per level.

    Args:
        name: an encoder of segmentation-models-pytorch, or ``tu-`` and the name of a timm model.
        weights: see :func:`segtrail.models.encoder_weights.load_encoder_weights`.
        in_channels: channels of the image.
        output_stride: 32, or 16 or 8 for dilated last stages.
        levels: the levels that the architecture reads; level l has stride ``min(2 ** l, output_stride)``.

    Returns:
        The encoder and the normalization that belongs to its weights.

    Raises:
        ValueError: no such encoder, or one without those strides.
    """
    check_encoder_name(name)
    try:
        encoder: Any = smp.encoders.get_encoder(
            name, in_channels=in_channels, weights=None, output_stride=output_stride
        )
    except BUILD_ERRORS as error:
        raise ValueError(
            f"encoder_name={name} cannot be built with output stride {output_stride}: {first_line(error)}"
        ) from error
    size = 64

    def run(image: Tensor) -> list[Tensor]:
        features = encoder(image)
        return [features[level] for level in levels]

    maps = freeze_unused(encoder, run, in_channels, size)
    strides = [size // feature.shape[-1] if feature.shape[1] else 0 for feature in maps]
    needed = [min(2**level, output_stride) for level in levels]
    if strides != needed:
        raise ValueError(f"encoder_name={name} has maps at strides {strides}, needed are {needed}")
    return encoder, load_encoder_weights(encoder, name, weights)


def check_encoder_name(name: str) -> None:
    """Raises ValueError unless segmentation-models-pytorch or timm has the encoder."""
    if name.startswith("tu-"):
        if not timm.is_model(name.removeprefix("tu-")):
            names = [f"tu-{model}" for model in timm.list_models()]
            raise ValueError(f"encoder_name={name!r} is not a model of timm{nearest(name, names)}")
    elif name not in smp.encoders.encoders:
        raise ValueError(f"encoder_name={name!r} is unknown{nearest(name, smp.encoders.encoders)}")


def freeze_unused(
    module: nn.Module, run: Callable[[Tensor], list[Tensor]], in_channels: int, size: int
) -> list[Tensor]:
    """Freezes parameters that no output depends on, such as stages below an encoder's depth.

    Distributed training stops at trainable parameters that get no gradient.

    Args:
        module: the owner of the parameters.
        run: from an image to the outputs that are used.
        in_channels: channels of that image.
        size: its height and width.

    Returns:
        The outputs for a zero image.
    """
    was_training = module.training
    module.eval()  # leaves the running statistics alone
    parameters = list(module.parameters())
    with torch.enable_grad():
        outputs = run(torch.zeros(1, in_channels, size, size))
        sums = [output.sum() for output in outputs if output.requires_grad]
        used = torch.autograd.grad(sums, parameters, allow_unused=True) if sums else parameters
    for parameter, gradient in zip(parameters, used, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
    module.train(was_training)
    return [output.detach() for output in outputs]


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its type."""
    return (str(error).strip("'\" \n") or type(error).__name__).splitlines()[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to an error about an unknown name: the nearest known one, or some of them."""
    close = get_close_matches(name, known := list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known)[:20])}"
