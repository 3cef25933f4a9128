"""``python evaluate.py checkpoint=... split=...``: the figures of training, for any split and options."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from segtrail.callbacks.per_image_results import PerImageResults
from segtrail.callbacks.run_facts import environment, flatten_config
from segtrail.callbacks.trackers import last_step, trackers
from segtrail.config.build import make
from segtrail.config.check import ConfigError
from segtrail.inference.predict import PREDICTOR_KEYS, build_predictor, require
from segtrail.inference.test_time import TestTimeModel
from segtrail.tracking.base import Tracker
from segtrail.training.checkpoint import LoadedRun, load_run
from segtrail.training.run import QUIET
from segtrail.training.semantic import SemanticModule

log = logging.getLogger(__name__)

CHANGES = {
    "dataset_root": "dataset.root",
    "eval_batch_size": "loader.eval_batch_size",
    "num_workers": "loader.num_workers",
}
"""Keys of ``conf/evaluate.yaml`` that change the config of training where they are set."""

TEST_TIME = {"window": None, "flips": [], "scales": [1.0], "postprocess": None}
"""Options with the values that leave the model's own answer."""


def run(config: DictConfig) -> dict[str, float]:
    """Evaluates a checkpoint with the test loop of its module, in a tracked run of its own.

    Args:
        config: as ``conf/evaluate.yaml`` has it.

    Returns:
        The metrics, named as in training.

    Raises:
        ConfigError: a key has no or an impossible value.
        CheckpointError: the checkpoint cannot be loaded.
        DataError: the dataset or the split is not there.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    require(settings, "checkpoint", "split")
    changes = {key: settings[name] for name, key in CHANGES.items() if settings[name] is not None}
    test_time = uses_test_time(settings)
    if test_time:  # one by one: no padding of a batch is seen
        changes["loader.eval_batch_size"] = 1
    loaded = load_run(settings["checkpoint"], **changes)
    module, datamodule = loaded.module, loaded.experiment.datamodule
    semantic = isinstance(module, SemanticModule)
    if test_time and not semantic:
        raise ConfigError(f"{', '.join(TEST_TIME)}: not for a model of single objects")
    datamodule.dataset(settings["split"])  # a missing split is told before anything is tracked
    module.test_split = datamodule.test_split = settings["split"]
    if test_time:
        module.model = TestTimeModel(build_predictor(loaded, settings, make(config.postprocess)))

    tracker = make(config.tracker)
    trainer = pl.Trainer(
        accelerator="auto" if settings["device"] == "auto" else settings["device"],
        devices=1,
        logger=tracker or False,
        callbacks=[PerImageResults()] if hasattr(module, "evaluation") else [],  # instances have none
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=settings["output"],
    )
    # Points get the step of the checkpoint, as those of training have it.
    trainer.fit_loop.load_state_dict(loaded.checkpoint["loops"]["fit_loop"])
    trainer.fit_loop.epoch_loop._batches_that_stepped = last_step(trainer)  # Lightning's step of metrics
    for one in trackers(trainer):
        describe(one, loaded, settings)
    (metrics,) = trainer.test(module, datamodule=datamodule, verbose=False)
    log.info("%s on %s:", loaded.path, settings["split"])
    show(metrics)
    for one in trackers(trainer):
        log.info("Tracked run: %s", one.location)
    return {name: float(value) for name, value in metrics.items()}


def uses_test_time(settings: dict[str, Any]) -> bool:
    """Whether any option asks for more than the model's own answer to the whole image."""
    return any(settings[key] != plain for key, plain in TEST_TIME.items())


def describe(tracker: Tracker, loaded: LoadedRun, settings: dict[str, Any]) -> None:
    """Logs what was evaluated and how: the config of training, and the options under ``evaluation``."""
    values, _ = environment()
    options = {key: settings[key] for key in ("split", "postprocess", *PREDICTOR_KEYS)}
    text = OmegaConf.to_yaml(loaded.config)
    parameters = flatten_config(OmegaConf.to_container(loaded.config, resolve=True))  # type: ignore[arg-type]
    parameters |= flatten_config({"evaluation": {"checkpoint": str(loaded.path), **options}})
    tracker.log_config(text, parameters)
    tracker.log_values(values)
    tracker.log_tags(["evaluation"])


def show(metrics: Mapping[str, float]) -> None:
    """Prints the metrics as a table."""
    table = Table(show_header=False)
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
