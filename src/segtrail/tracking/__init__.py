"""Trackers and the names in a run.

Importing this package imports no tracker, no Lightning and no torch: the server and the UI read
:mod:`~segtrail.tracking.names` and the codecs from it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segtrail.tracking.csv import CSVLogger as CSVLogger
    from segtrail.tracking.mlflow import MLFlowLogger as MLFlowLogger
    from segtrail.tracking.neptune import NeptuneLogger as NeptuneLogger
    from segtrail.tracking.none import NoTracker as NoTracker
    from segtrail.tracking.tensorboard import TensorBoardLogger as TensorBoardLogger
    from segtrail.tracking.wandb import WandbLogger as WandbLogger

_MODULES = {
    "CSVLogger": "csv",
    "MLFlowLogger": "mlflow",
    "NeptuneLogger": "neptune",
    "NoTracker": "none",
    "TensorBoardLogger": "tensorboard",
    "WandbLogger": "wandb",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
