"""What the LightningModules share: optimizer, schedules, checkpoints, and the log of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class SegmentationModule(pl.LightningModule):
    """Base of the LightningModules; a subclass says what one batch is.

    Args:
        model: the architecture.
        loss: what it learns by.
        optimizer: ``optimizer(model, encoder_parameters) -> Optimizer``.
        scheduler: ``scheduler(optimizer, total_steps) -> Lightning scheduler config``; None keeps the rate.
    """

    predictor: str = "segtrail.inference.predict"
    """Module whose ``predict(config, loaded)`` applies a trained run of this kind."""

    model: Any  # declared, since nn.Module's own __getattr__ would type them as Tensor | Module
    loss: Any
    trainer: Any
    class_names: tuple[str, ...]
    palette: np.ndarray
    ignore_index: int

    def __init__(
        self,
        model: Any,
        loss: nn.Module | None,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., dict[str, Any]] | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.test_split = "test"  # what the test loop evaluates; evaluate.py chooses another
        self.config_yaml = ""  # travels in checkpoints, so that they can be rebuilt without the run folder

    def setup(self, stage: str) -> None:
        if stage == "fit" and getattr(self.loss, "class_counts_wanted", False):
            self.loss.set_class_counts(self.trainer.datamodule.class_counts())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segtrail"] = {
            "config": self.config_yaml,
            "class_names": list(self.class_names),
            "palette": self.palette.tolist(),
            "ignore_index": self.ignore_index,
        }

    def on_train_epoch_start(self) -> None:
        if hasattr(self.loss, "set_epoch"):
            self.loss.set_epoch(self.current_epoch, self.trainer.max_epochs or 0)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Lightning's x of validation points is a count of its own, one too far after a restart at one
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def total(self, terms: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Sums the terms of a training batch and logs them when it is time."""
        total = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        if self._logs_this_step(batch_idx):
            self._log_training(total, terms)
        return total

    def _logs_this_step(self, batch_idx: int) -> bool:
        """Whether this batch ends an optimizer step that is logged: most steps never touch the loggers."""
        trainer = self.trainer
        accumulates = (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch
        return not accumulates and trainer.global_step % trainer.log_every_n_steps == 0

    def _log_training(self, total: Tensor, terms: Mapping[str, Tensor]) -> None:
        names = ["train/loss"]
        values = [total.detach()]
        if len(terms) > 1:
            names += [f"train/loss_parts/{name}" for name in terms]
            values += [term.detach() for term in terms.values()]
        reduced = self.trainer.strategy.reduce(torch.stack(values).float(), reduce_op="mean")
        logged = dict(zip(names, reduced.tolist(), strict=True))
        logged["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        logged["train/epoch"] = float(self.current_epoch)
        for logger in self.loggers:
            logger.log_metrics(logged, step=self.global_step)
        self.log("train/loss", logged["train/loss"], prog_bar=True, logger=False)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.model, self.model.encoder_parameters())
        if self.make_scheduler is None:
            return optimizer
        total_steps = int(self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer, total_steps)}
