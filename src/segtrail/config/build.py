"""From a checked config to the objects of a run; the only caller of Hydra's instantiate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import pytorch_lightning as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from segtrail.config.check import ConfigError
from segtrail.config.compose import _dataset_arguments, _dataset_class


class Experiment:
    """The parts of a run, each made from the config at first use.

    Args:
        config: a checked training config.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config

    @cached_property
    def model(self) -> Any:
        """The architecture."""
        return make(self.config.model)

    @cached_property
    def loss(self) -> Any:
        """The loss."""
        return make(self.config.loss)

    @cached_property
    def datamodule(self) -> Any:
        """Loaders over the dataset, which compute the derived targets that model and loss ask for."""
        augmentation = self.config.augmentation
        return make(
            self.config.loader,
            dataset=make_later(self.config.dataset),
            splits=_dataset_class(self.config).splits(**_dataset_arguments(self.config)),
            num_classes=self.config.num_classes,
            train_transforms=make(augmentation.get("train")) or [],
            eval_transforms=make(augmentation.get("eval")) or [],
            seed=self.config.seed,
            derived=self.derived,
        )

    @cached_property
    def derived(self) -> Mapping[str, Any]:
        """Derived targets that model and loss ask for, by name."""
        return {**getattr(self.model, "derived", {}), **getattr(self.loss, "derived", {})}

    @cached_property
    def palette(self) -> np.ndarray:
        """(K, 3) uint8 display colors of the dataset's classes."""
        return _dataset_class(self.config).class_table(**_dataset_arguments(self.config)).palette

    @cached_property
    def module(self) -> Any:
        """The LightningModule around model and loss."""
        config = self.config
        module = make(
            config.module,
            model=self.model,
            loss=self.loss,
            optimizer=make(config.optimizer),
            scheduler=make(config.scheduler),
            class_names=list(config.class_names),
            palette=self.palette,
            ignore_index=config.ignore_index,
            channels_last=config.channels_last,
        )
        module.config_yaml = OmegaConf.to_yaml(config, resolve=True)
        if config.compile:
            module.model.compile()  # in place: the names in the state dict stay as they are
        return module

    @cached_property
    def callbacks(self) -> list[pl.Callback]:
        """Lightning callbacks in the config's order, without null nodes and what the trainer forbids."""
        found = [make(node) for node in (self.config.callbacks or {}).values() if node is not None]
        if not self.config.trainer.get("enable_progress_bar", True):
            found = [callback for callback in found if not isinstance(callback, ProgressBar)]
        if not self.config.trainer.get("enable_checkpointing", True):
            found = [callback for callback in found if not isinstance(callback, Checkpoint)]
        return found

    @cached_property
    def tracker(self) -> Any:
        """The Lightning logger that records the run."""
        return make(self.config.tracker)

    @cached_property
    def trainer(self) -> pl.Trainer:
        """The Lightning trainer."""
        return make(self.config.trainer, callbacks=self.callbacks, logger=self.tracker or False)


def make(node: Any, **given: Any) -> Any:
    """Instantiates a config node with further keyword arguments; lists item by item, None as None.

    Raises:
        ConfigError: one line that names the node, if its constructor refuses its arguments.
    """
    if node is None:
        return None
    if isinstance(node, ListConfig):
        return [make(item) for item in node]
    try:
        if not given:
            return instantiate(node, _convert_="all")
        # Given to the call itself: as a config value Hydra would copy and inspect it.
        return instantiate(node, _partial_=True, _convert_="all")(**given)
    except InstantiationException as error:
        _refuse(node, error.__cause__ or error)
    except REFUSALS as error:
        _refuse(node, error)


def make_later(node: DictConfig) -> Callable[..., Any]:
    """Returns a factory that makes the node's object from further keyword arguments."""
    return instantiate(node, _partial_=True, _convert_="all")


# What constructors raise when they do not like their arguments.
REFUSALS = (ValueError, TypeError, OSError, ImportError, LookupError, MisconfigurationException)


def _refuse(node: DictConfig, cause: BaseException) -> NoReturn:
    if isinstance(cause, REFUSALS):
        message = str(cause).strip() or type(cause).__name__
        raise ConfigError(f"{node._get_full_key(None)}: {message.splitlines()[0]}") from cause
    raise cause


def build(config: DictConfig) -> Experiment:
    """Returns the lazily made parts of a run: ``.model .loss .datamodule .module .trainer``."""
    return Experiment(config)
