"""Histograms of all weights (and gradients), computed where they live and fetched in one transfer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from segtrail.callbacks.histogram_figure import draw_histograms
from segtrail.callbacks.trackers import last_step, trackers
from segtrail.tracking import names
from segtrail.tracking.histogram import BINS, Histogram


class WeightHistograms(pl.Callback):
    """Logs 64-bin histograms of every parameter at the end of an epoch, and one figure of them.

    Args:
        every_n_epochs: log at every n-th epoch.
        gradients: also of the gradients of the epoch's last step, before clipping.
        figure: draw the figure; the histograms themselves are logged in any case.
    """

    def __init__(self, every_n_epochs: int = 1, gradients: bool = False, figure: bool = True) -> None:
        self.every_n_epochs = every_n_epochs
        self.gradients = gradients
        self.figure = figure
        self._gradients: dict[str, Histogram] = {}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.gradients and self._is_due(trainer) and trainer.is_last_batch and trainer.is_global_zero:
            named = [(n, p.grad) for n, p in _model(pl_module).named_parameters() if p.grad is not None]
            if named:
                self._gradients = compute_histograms(named)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not (self._is_due(trainer) and trainer.is_global_zero):
            return
        model = _model(pl_module)
        self._log(trainer, model, compute_histograms(model.named_parameters()), names.WEIGHTS)
        if self._gradients:
            self._log(trainer, model, self._gradients, names.GRADIENTS)
            self._gradients = {}

    def _is_due(self, trainer: pl.Trainer) -> bool:
        return bool(trackers(trainer)) and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _log(
        self, trainer: pl.Trainer, model: nn.Module, histograms: Mapping[str, Histogram], namespace: str
    ) -> None:
        step = last_step(trainer)
        for tracker in trackers(trainer):
            tracker.log_histograms(histograms, step, namespace)
        if self.figure:
            shapes = {name: p.ndim for name, p in model.named_parameters()}
            matrices = {name: h for name, h in histograms.items() if shapes[name] > 1}
            title = f"{namespace} at step {step} (epoch {trainer.current_epoch})"
            picture = draw_histograms(matrices or histograms, title)
            for tracker in trackers(trainer):
                tracker.log_image(names.histogram_figure(namespace), picture, step)


def _model(module: pl.LightningModule) -> nn.Module:
    return module.model  # type: ignore[return-value]


@torch.no_grad()
def compute_histograms(tensors: Iterable[tuple[str, Tensor]], bins: int = BINS) -> dict[str, Histogram]:
    """Histograms over the range of the finite values of each tensor.

    Nothing is read back before all are computed, so a GPU is waited for once.

    Args:
        tensors: names and float tensors of any shape, on one device.
        bins: bins of equal width, the last one closed on both sides.
    """
    labels, rows = [], []
    for name, tensor in tensors:
        labels.append(name)
        rows.append(_histogram_row(tensor.detach().flatten(), bins))
    if not rows:
        return {}
    fetched = torch.stack(rows).cpu()  # int32: the bits of two floats, then the counts
    ranges = fetched[:, :2].contiguous().view(torch.float32).double().numpy()
    counts = fetched[:, 2:].numpy().astype(np.int64)
    return {
        name: Histogram(count, float(low), float(high))
        for name, count, (low, high) in zip(labels, counts, ranges, strict=True)
    }


def _histogram_row(values: Tensor, bins: int) -> Tensor:
    values = values.float()
    if values.device.type == "cpu":
        low, high = torch.aminmax(values)
        if not (low.isfinite() and high.isfinite()):
            values = values[values.isfinite()]
            if not values.numel():
                return torch.zeros(bins + 2, dtype=torch.int32)
            low, high = torch.aminmax(values)
        if low == high:  # as numpy does, for a constant
            low, high = low - 0.5, high + 0.5
        counts = torch.histc(values, bins, low.item(), high.item())
        return torch.cat([torch.stack([low, high]).view(torch.int32), counts.int()])
    # the same without asking the device for the range or for the number of finite values
    finite = values.isfinite()
    low = torch.where(finite, values, torch.inf).amin()
    high = torch.where(finite, values, -torch.inf).amax()
    none, constant = low > high, low == high
    low = torch.where(none, 0.0, low - 0.5 * constant)
    high = torch.where(none, 0.0, high + 0.5 * constant)
    cell = ((values - low) * (bins / (high - low))).nan_to_num(0).clamp(0, bins - 1).int()
    cell = torch.where(finite, cell, bins).long()
    counts = torch.zeros(bins + 1, dtype=torch.int32, device=values.device)
    counts.scatter_add_(0, cell, torch.ones_like(cell, dtype=torch.int32))
    return torch.cat([torch.stack([low, high]).view(torch.int32), counts[:bins]])
