"""Segtrail: train segmentation models, and know with evidence which run is better and why.

>>> import segtrail
>>> config = segtrail.compose(["model=deeplab", "loss=lovasz"])
>>> experiment = segtrail.build(config)  # makes .model .loss .datamodule .module .trainer when asked for
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segtrail.config.build import Experiment, build
    from segtrail.config.check import ConfigError
    from segtrail.config.compose import compose
    from segtrail.training.checkpoint import load_run

__version__ = "0.1.0"

_HOMES = {
    "Experiment": "segtrail.config.build",
    "build": "segtrail.config.build",
    "ConfigError": "segtrail.config.check",
    "compose": "segtrail.config.compose",
    "load_run": "segtrail.training.checkpoint",
}

__all__ = ["ConfigError", "Experiment", "__version__", "build", "compose", "load_run"]


def __getattr__(name: str) -> Any:  # late, so that the UI starts without torch
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'segtrail' has no attribute '{name}'")
