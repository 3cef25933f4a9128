"""What callbacks need to know of a trainer's loggers and data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch

from segtrail.tracking.base import Tracker

T = TypeVar("T")


def trackers(trainer: pl.Trainer) -> list[Tracker]:
    """The loggers that take media; others, such as a user's own scalar logger, are passed over."""
    return [logger for logger in trainer.loggers if isinstance(logger, Tracker)]


def last_step(trainer: pl.Trainer) -> int:
    """Index of the last optimizer step, the x of what is logged after it: Lightning counts from 0."""
    return max(trainer.global_step - 1, 0)


def is_logging_step(trainer: pl.Trainer) -> bool:
    """Whether the last optimizer step was one that is logged."""
    return last_step(trainer) % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]


def evaluation_dataset(trainer: pl.Trainer) -> Any:
    """The dataset of the running validation or test loop."""
    loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    return loader.dataset


def gather(items: Sequence[T]) -> list[T]:
    """Items of all processes, in the order of ranks; every rank must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(items)
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]
