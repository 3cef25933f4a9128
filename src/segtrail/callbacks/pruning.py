"""Reports a trial's validations to its Optuna study, and stops the trial if it is not promising."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytorch_lightning as pl

log = logging.getLogger(__name__)


class Pruning(pl.Callback):
    """Added by the sweeper to each of its jobs.

    Args:
        storage: SQLAlchemy URL of the study.
        study_name: of the study.
        trial: number of this job's trial.
        monitor: the metric to report.
        pruner: an Optuna pruner, which a storage does not keep; None never prunes.
    """

    def __init__(self, storage: str, study_name: str, trial: int, monitor: str, pruner: Any = None) -> None:
        self.storage = storage
        self.study_name = study_name
        self.number = trial
        self.monitor = monitor
        self.pruner = pruner
        self._trial: Any = None

    def _open(self) -> Any:
        if self._trial is None:
            import optuna

            pruner = self.pruner or optuna.pruners.NopPruner()
            study = optuna.load_study(study_name=self.study_name, storage=self.storage, pruner=pruner)
            self._trial = optuna.trial.Trial(study, study.trials[self.number]._trial_id)
        return self._trial

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or self.monitor not in trainer.callback_metrics:
            return
        stop = self._report(trainer) if trainer.is_global_zero else False
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True

    def _report(self, trainer: pl.Trainer) -> bool:
        value = float(trainer.callback_metrics[self.monitor])
        trial = self._open()
        if math.isfinite(value):
            trial.report(value, trainer.global_step)
        if not trial.should_prune():
            return False
        trial.set_user_attr("pruned", True)
        log.info("pruned at step %d: %s %.4f", trainer.global_step, self.monitor, value)
        return True
