"""Encoders of segmentation-models-pytorch and timm: names, checks, unused parameters."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import segmentation_models_pytorch as smp
import timm
import torch

from segtrail.models.base import SegmentationModel


def check_encoder_name(name: str) -> None:
    """Raises ValueError unless segmentation-models-pytorch or timm has the encoder."""
    if name.startswith("tu-"):
        if not timm.is_model(name.removeprefix("tu-")):
            names = [f"tu-{model}" for model in timm.list_models()]
            raise ValueError(f"encoder_name={name!r} is not a model of timm{nearest(name, names)}")
    elif name not in smp.encoders.encoders:
        raise ValueError(f"encoder_name={name!r} is unknown{nearest(name, smp.encoders.encoders)}")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its type."""
    return (str(error).strip("'\" \n") or type(error).__name__).splitlines()[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to an error about an unknown name: the nearest known one, or all of a short list."""
    close = get_close_matches(name, known := list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known)[:20])}"


def freeze_unused(model: SegmentationModel, in_channels: int) -> None:
    """Freezes parameters that no output depends on, such as an encoder's stages below its depth.

    Distributed training stops at trainable parameters that get no gradient. Finds them with one pass
    over the smallest image.
    """
    was_training = model.training
    model.eval()
    size = max(model.size_divisor, model.min_size, 32)
    output = model(torch.zeros(1, in_channels, size, size))
    outputs = [output.logits, *output.auxiliary.values()]
    parameters = list(model.parameters())
    gradients = torch.autograd.grad([o.sum() for o in outputs], parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
    model.train(was_training)
