"""A fixed set of validation samples, watched over the training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pytorch_lightning as pl

from segtrail.callbacks.trackers import evaluation_dataset, gather, trackers
from segtrail.tracking.base import Tracker


class Placed(Protocol):
    """What knows its sample's place in the dataset."""

    @property
    def position(self) -> int: ...


Item = TypeVar("Item", bound=Placed)


class FixedSamples(pl.Callback, ABC, Generic[Item]):
    """Collects something of the same samples at each validation, and logs it.

    The samples are spread evenly over the validation set and depend on nothing but its size, so that all
    runs on a dataset show the same ones.

    Args:
        num_samples: how many.
        every_n_validations: log at every n-th validation, beginning with the first.
    """

    def __init__(self, num_samples: int = 8, every_n_validations: int = 1) -> None:
        self.num_samples = num_samples
        self.every_n_validations = every_n_validations
        self.first = True  # nothing was logged yet
        self._validations = 0
        self._wanted: frozenset[int] = frozenset()
        self._items: list[Item] = []

    @abstractmethod
    def collect(self, module: Any, outputs: Any, batch: Mapping[str, Any], row: int, position: int) -> Item:
        """Returns what is to be logged of one sample of a batch."""

    @abstractmethod
    def record(self, tracker: Tracker, module: Any, items: Sequence[Item], trainer: pl.Trainer) -> None:
        """Logs the items, which are in the order of the dataset."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._items, self._wanted = [], frozenset()
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.loggers:
            return
        if self._validations % self.every_n_validations == 0:
            size = len(evaluation_dataset(trainer))
            count = min(self.num_samples, size)
            self._wanted = frozenset(np.linspace(0, size - 1, count).round().astype(int).tolist())
        self._validations += 1

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._wanted:
            return
        for row, position in enumerate(batch["indices"].tolist()):
            if position in self._wanted:
                self._items.append(self.collect(pl_module, outputs, batch, row, position))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._wanted:
            return
        # once each: a distributed sampler may repeat samples to even out the processes
        items = {item.position: item for item in gather(self._items)}
        for tracker in trackers(trainer) if trainer.is_global_zero else ():
            self.record(tracker, pl_module, [items[position] for position in sorted(items)], trainer)
        self.first = False
        self._items = []
