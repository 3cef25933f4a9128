"""Random numbers of the training process as a function of the place in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class StepSeed(pl.Callback):
    """Seeds torch's generators before each batch from (seed, epoch, batch, rank).

    Dropout and stochastic depth then draw the same numbers whether a run was stopped in between or not,
    which a saved generator state does not give: starting a loader draws from the same generator.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])
        if (
            pl_module.device.type == "cpu"
        ):  # torch.manual_seed queues a call for each device that never starts
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
