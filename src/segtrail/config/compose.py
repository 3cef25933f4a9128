"""Where the config lives, and how a checked config is made from overrides."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from segtrail.config import schema
from segtrail.config.check import ConfigError, check


def config_folder() -> Path:
    """Returns ``conf/`` of the checkout that this package is imported from, or the copy in the wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "conf"
    return checkout if (checkout / "train.yaml").exists() else package / "conf"


def register() -> None:
    """Makes schema and resolvers known to Hydra; safe to call again."""
    schema.register()
    # The number of classes follows from their names: it is never typed.
    OmegaConf.register_new_resolver("count", lambda items: len(items), replace=True)
    # Parallel jobs on one machine take its GPUs in turn.
    OmegaConf.register_new_resolver("gpu_of", _gpu_of, replace=True)


def _gpu_of(job: int) -> str:
    """The GPU of the n-th job for ``CUDA_VISIBLE_DEVICES``; what the environment says if there are none."""
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return str(job % gpus) if gpus else os.environ.get("CUDA_VISIBLE_DEVICES", "")


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """Composes and checks a config as the command line does.

    Args:
        overrides: as on the command line, such as ``["model=deeplab", "loss.gamma=3"]``.
        config_name: ``train``, ``evaluate`` or ``predict``.

    Raises:
        ConfigError: one line for each mistake.
        DataError: if the dataset is not where the config says.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from segtrail.config.errors import explain

    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        try:
            config = hydra.compose(config_name, overrides=list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, overrides)) from error
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    if config_name != "train":
        return config
    if config.run_dir is None:
        config.run_dir = f"outputs/{datetime.now():%Y-%m-%d/%H-%M-%S}-{choices['model']}-{choices['loss']}"
    return finish(config, choices)


def finish(config: DictConfig, choices: Mapping[str, str]) -> DictConfig:
    """Completes a composed training config with what its data tells, and checks it.

    Args:
        config: as composed; changed in place.
        choices: the chosen option of each config group.

    Raises:
        ConfigError: one line for each mistake.
        DataError: if the dataset is not where the config says.
    """
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:  # a user's own classes beside their config
        sys.path.insert(0, working_directory)
    if config.name is None:
        config.name = f"{choices['model']}-{choices['loss']}"
    with open_dict(config):
        if config.dataset.get("class_names", ()) is None:
            config.dataset.class_names = ["unknown"]  # lets the check of the other keys go first
            check(config)
            table = _dataset_class(config).class_table(**_dataset_arguments(config, class_names=None))
            config.dataset.class_names = list(table.names)
    check(config)
    _dataset_class(config).splits(**_dataset_arguments(config))
    return config


def _dataset_class(config: DictConfig) -> Any:
    module, _, name = str(config.dataset._target_).rpartition(".")
    return getattr(importlib.import_module(module), name)


def _dataset_arguments(config: DictConfig, **changes: object) -> dict[str, object]:
    arguments = OmegaConf.to_container(config.dataset, resolve=True)
    assert isinstance(arguments, dict)
    return {str(key): value for key, value in arguments.items() if key != "_target_"} | changes
