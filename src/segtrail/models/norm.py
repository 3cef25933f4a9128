"""Batch normalization of a batch with one value per channel."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def tolerate_single_values(network: nn.Module) -> None:
    """Lets every batch normalization use its running statistics where a batch has none.

    Global pooling leaves one value per channel and image; a training batch of one image (often the
    last of an epoch) then has no variance, for which torch raises an error.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(_leave_training)
            module.register_forward_hook(_return_to_training)


def _single(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    return inputs[0].numel() == inputs[0].shape[1]


def _leave_training(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if module.training and _single(module, inputs):
        module.training = False
        module.single_value = True  # type: ignore[assignment]


def _return_to_training(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if getattr(module, "single_value", False):
        module.training, module.single_value = True, False
