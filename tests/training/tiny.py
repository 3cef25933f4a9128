"""A model that trains in milliseconds, with dropout, and with no statistics over the batch."""

import os
import signal
from pathlib import Path

import optuna
import pytorch_lightning as pl
import torch
from fsspec.implementations.local import LocalFileOpener
from neptune.core.components.queue.disk_queue import DiskQueue
from torch import nn

from segtrail.models.base import Output, SegmentationModel


class Tiny(SegmentationModel):
    def __init__(self, num_classes, width=8, dropout=0.1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.GroupNorm(2, width),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(width, num_classes, 1),
        )

    def segment(self, image):
        return Output(self.net(image))


class Fail(pl.Callback):
    """Ends one rank at a step, by an exception or as the kernel does."""

    def __init__(self, rank, step, how="raise"):
        self.rank, self.step, self.how = rank, step, how

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("injected fault")


class KeepGradients(pl.Callback):
    """Writes the gradients of the first step, for which each sampler takes the first candidates."""

    def setup(self, trainer, pl_module, stage):
        torch.randperm = lambda n, device=None, **_: torch.arange(n, device=device)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 0 and trainer.is_global_zero:
            named = pl_module.named_parameters()
            torch.save({name: p.grad for name, p in named if p.grad is not None}, "gradients.pt")


class KillOnce(pl.Callback):
    """Kills its process at a moment of the chosen kind, and never again in this folder."""

    def __init__(self, phase, count):
        self.phase, self.left = phase, count

    def setup(self, trainer, pl_module, stage):
        if self.phase == "checkpoint":  # what is written has yet to take its name
            self._intrude(LocalFileOpener, "commit")
        elif self.phase == "tracking":
            self._intrude(DiskQueue, "put")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.phase == "training":
            self._kill()

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if self.phase == "step":
            self._kill()

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if self.phase == "validation":
            self._kill()

    def _intrude(self, owner, name):
        method = getattr(owner, name)

        def intruded(*arguments, **options):
            self._kill()
            return method(*arguments, **options)

        setattr(owner, name, intruded)

    def _kill(self):
        self.left -= 1
        if self.left == 0 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Strict(optuna.pruners.BasePruner):
    """Prunes every trial at its first report, so that a test knows what to expect."""

    def __init__(self, **_):
        pass

    def prune(self, study, trial):
        return True


class LittleMemory(pl.Callback):
    """A device that cannot hold more than a few samples, from a step on."""

    def __init__(self, samples, step):
        self.samples, self.step = samples, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step >= self.step and len(batch["image"]) > self.samples:
            raise torch.OutOfMemoryError("CUDA out of memory")
