"""Training in one screen: build, fit, test the best checkpoint, say where to look."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException

from segtrail.config.build import Experiment, build
from segtrail.tracking.base import Tracker
from segtrail.training.guards import with_smaller_batches
from segtrail.training.reproduce import record
from segtrail.training.resume import identify
from segtrail.training.strategy import end_job

log = logging.getLogger(__name__)

# Lightning's remarks on things that are as they are on purpose.
QUIET = (
    r".*overridden `on_after_batch_transfer` in `LightningModule`.*",
    r".*isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*does not have many workers which may be a bottleneck.*",
    r".*`ModelCheckpoint` callbacks configured with.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*It is recommended to use `self.log.*sync_dist=True.*",  # what is logged is reduced already
    r".*number of training batches .* is smaller than the logging interval.*",
)


def train(config: DictConfig) -> float | None:
    """Trains as the config says.

    Args:
        config: a checked training config with ``run_dir`` set.

    Returns:
        The best value of ``config.monitor``, for sweeps; None if nothing was monitored.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its import sets it to INFO
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    identify(config)
    return with_smaller_batches(config, _fit_and_test)


def _fit_and_test(config: DictConfig) -> float | None:
    pl.seed_everything(config.seed, workers=True, verbose=False)
    experiment = build(config)
    trainer, module, datamodule = experiment.trainer, experiment.module, experiment.datamodule
    if trainer.is_global_zero:
        (Path(config.run_dir) / "config.yaml").write_text(module.config_yaml, encoding="utf-8")
    failed = True
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=config.resume, weights_only=True)
        metrics = dict(trainer.callback_metrics)
        best = trainer.checkpoint_callback
        best_path = getattr(best, "best_model_path", "")
        if config.test_after_fit and "test" in datamodule.splits and not trainer.interrupted:
            trainer.test(module, datamodule=datamodule, ckpt_path=best_path or None, verbose=False)
        if trainer.is_global_zero:
            record(Path(config.run_dir), metrics | trainer.callback_metrics, datamodule)
            _say_where_to_look(experiment, best)
        failed = False
    except SIGTERMException:  # a SystemExit with status 0: whoever waits must see that it did not finish
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, Tracker):
                logger.close(failed)
        end_job(trainer, sys.exc_info()[1])
    score = getattr(best, "best_model_score", None)
    return None if score is None else float(score)


def _say_where_to_look(experiment: Experiment, best: Any) -> None:
    config, trainer = experiment.config, experiment.trainer
    scores = []
    if getattr(best, "best_model_score", None) is not None:
        scores.append(f"best {best.monitor} {float(best.best_model_score):.4f}")
    scores += [
        f"{name} {float(value):.4f}"
        for name, value in trainer.callback_metrics.items()
        if name == "test/mIoU"
    ]
    log.info("Finished at step %d: %s", trainer.global_step, ", ".join(scores) or "nothing was monitored")
    if getattr(best, "best_model_path", ""):
        log.info("Best checkpoint: %s", best.best_model_path)
    log.info("Run folder: %s", config.run_dir)
    if isinstance(trainer.logger, Tracker):
        log.info("Tracked run: %s", trainer.logger.location)
