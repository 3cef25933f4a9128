"""Run-wide keys of the three applications, with their types; components are checked by signature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class TrainConfig:
    """Keys of ``conf/train.yaml``; what each means is said there."""

    name: str | None = None
    seed: int = 0
    class_names: Any = MISSING
    num_classes: int = MISSING
    ignore_index: int = MISSING
    compile: bool = False
    channels_last: bool = False
    test_after_fit: bool = True
    resume: str | None = None
    run_dir: str | None = None
    tags: list[str] = field(default_factory=list)
    monitor: str = "val/mIoU"
    monitor_mode: str = "max"
    module: dict[str, Any] = field(default_factory=dict)
    loader: dict[str, Any] = field(default_factory=dict)
    model: Any = MISSING
    loss: Any = MISSING
    dataset: Any = MISSING
    augmentation: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = None
    trainer: Any = MISSING
    tracker: Any = MISSING
    callbacks: Any = None


def register() -> None:
    """Makes the schema known to Hydra under the name that ``conf/train.yaml`` refers to."""
    ConfigStore.instance().store(name="train_schema", node=TrainConfig)
