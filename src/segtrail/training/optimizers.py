"""Optimizers with the parameter groups that segmentation training expects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer


class GroupedOptimizer:
    """Makes an optimizer whose groups set weight decay and the encoder's rate apart.

    Args:
        algorithm: ``algorithm(groups, lr=...) -> Optimizer``, such as a partial of ``torch.optim.AdamW``.
        lr: learning rate of everything but the encoder.
        weight_decay: of weights; biases and normalization layers get it only if ``decay_norm_and_bias``.
        encoder_lr_factor: the encoder learns at ``lr * encoder_lr_factor``; 0 freezes its parameters.
        decay_norm_and_bias: also decay one-dimensional parameters.
    """

    def __init__(
        self,
        algorithm: Callable[..., Optimizer],
        lr: float,
        weight_decay: float = 0.0,
        encoder_lr_factor: float = 1.0,
        decay_norm_and_bias: bool = False,
    ) -> None:
        self.algorithm = algorithm
        self.lr = lr
        self.weight_decay = weight_decay
        self.encoder_lr_factor = encoder_lr_factor
        self.decay_norm_and_bias = decay_norm_and_bias

    def __call__(self, model: nn.Module, encoder: Iterable[nn.Parameter] = ()) -> Optimizer:
        """Makes the optimizer for the trainable parameters of ``model``.

        Args:
            model: the network.
            encoder: those of its parameters that learn at the encoder's rate.
        """
        groups = self.groups(model, encoder)
        on_cpu = all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])
        # On the CPU torch steps parameter by parameter unless told to fuse, 3 times slower. On a GPU its own
        # choice is fast already, and a fused step could not be clipped under 16-bit loss scaling.
        fused = {"fused": True} if on_cpu and "fused" in inspect.signature(self.algorithm).parameters else {}
        return self.algorithm(groups, lr=self.lr, **fused)

    def groups(self, model: nn.Module, encoder: Iterable[nn.Parameter] = ()) -> list[dict[str, Any]]:
        """Returns the parameter groups; the first one holds decoder weights, and its rate is ``lr``."""
        in_encoder = {id(parameter) for parameter in encoder}
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in model.parameters():
            is_encoder = id(parameter) in in_encoder
            if is_encoder and self.encoder_lr_factor == 0:
                parameter.requires_grad_(False)
            if parameter.requires_grad:
                decays = parameter.ndim > 1 or self.decay_norm_and_bias
                groups.setdefault((is_encoder, not decays), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": self.lr * (self.encoder_lr_factor if is_encoder else 1.0),
                "weight_decay": 0.0 if exempt else self.weight_decay,
                "name": ("encoder" if is_encoder else "decoder") + (" norm and bias" if exempt else ""),
            }
            for (is_encoder, exempt), parameters in sorted(groups.items())
        ]
