"""Exponential moving average of the weights, used for evaluation and saved as *the* weights."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


class EMA(pl.Callback):
    """Keeps an average of the model's parameters and float buffers on their device.

    Validation and test run on the average. A checkpoint's ``state_dict`` holds the average too, so that
    whoever loads it gets the weights that were evaluated; the weights that training goes on from lie
    under ``ema`` beside it, and resuming restores both exactly.

    Args:
        decay: share of the old average that each optimizer step keeps, in (0, 1). It is lower in the first
            steps, (1 + n) / (10 + n) at the n-th, as in TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay is between 0 and 1, got {decay}")
        self.decay = decay
        self.updates = 0
        self.average: dict[str, Tensor] = {}
        self._swapped = False
        self._last_step = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        live = _state(pl_module)
        if not self.average:
            self.average = {name: tensor.detach().clone() for name, tensor in live.items()}
        self.average = {name: tensor.to(live[name].device) for name, tensor in self.average.items()}
        self._last_step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if trainer.global_step == self._last_step:  # gradients are still being accumulated
            return
        self._last_step = trainer.global_step
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        live = _state(pl_module)
        floats = [name for name, tensor in live.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.average[name] for name in floats], [live[name].detach() for name in floats], 1 - decay
        )
        for name, tensor in live.items():
            if not tensor.is_floating_point():
                self.average[name].copy_(tensor)

    def _swap(self, module: pl.LightningModule) -> None:
        for name, tensor in _state(module).items():
            tensor.data, self.average[name].data = self.average[name].data, tensor.data
        self._swapped = not self._swapped

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.average and trainer.state.fn == "fit":
            self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._swapped:
            self._swap(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.average and trainer.ckpt_path is None:  # a checkpoint's weights are an average already
            self._swap(pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._swapped:
            self._swap(pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self.average:
            return
        state = checkpoint["state_dict"]
        kept = self.average.keys() & state.keys()
        other = {name: self.average[name].detach() for name in kept}
        online = other if self._swapped else {name: state[name] for name in kept}
        if not self._swapped:
            state.update(other)
        checkpoint["ema"] = {"online": online, "updates": self.updates}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint.get("ema")
        # evaluation needs nothing more than the weights; a run without an average starts from its own
        if saved is None or trainer.state.fn != "fit":
            return
        live = _state(pl_module)
        self.average = {name: tensor.detach().clone() for name, tensor in live.items()}
        self.updates = saved["updates"]
        with torch.no_grad():
            for name, tensor in saved["online"].items():
                live[name].copy_(tensor)


def _state(module: pl.LightningModule) -> dict[str, Tensor]:
    """Parameters and buffers of the model by their names in the checkpoint."""
    model = module.model
    named = [*model.named_parameters(), *model.named_buffers()]  # type: ignore[union-attr]
    return {f"model.{name}": tensor for name, tensor in named}
