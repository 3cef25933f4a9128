"""Hydra sweeper on Optuna 4 and later: any sampler, pruning from inside training, studies that continue.

Optuna is imported when a sweep starts, because Hydra imports this file at the start of every program.
"""

import itertools
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


@dataclass
class OptunaSweeperConf:
    """Keys of ``hydra.sweeper``; ``conf/sweep`` explains them."""

    _target_: str = "hydra_plugins.segtrail.optuna_sweeper.OptunaSweeper"
    study_name: str | None = None
    storage: str = "sqlite:///outputs/sweeps.db"
    direction: str = "maximize"
    trials: int = 20
    parallel: int = 1
    grid: bool = False
    sampler: Any = None
    pruner: Any = None
    space: Any = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="segtrail_optuna", node=OptunaSweeperConf, provider="segtrail"
)


class OptunaSweeper(Sweeper):
    """Asks Optuna for values, launches jobs with them through any launcher, and tells it the results.

    Args:
        study_name: of the study in the storage; the same name continues it. None makes a new one.
        storage: SQLAlchemy URL, where trials report from inside training.
        direction: ``maximize`` or ``minimize``.
        trials: finished trials to reach, those of earlier starts included.
        parallel: trials to launch at once; more than one with a parallel launcher.
        grid: try every combination instead, of ``choice`` and ``range`` alone.
        sampler: an Optuna sampler.
        pruner: an Optuna pruner; None never prunes.
        space: what to search, key to sweep as in Hydra's grammar: ``choice(a, b)``, ``range(1, 5)``,
            ``interval(0.1, 1)``, ``tag(log, interval(1e-5, 1e-1))``. The command line adds to it.
    """

    def __init__(
        self,
        study_name: str | None,
        storage: str,
        direction: str,
        trials: int,
        parallel: int,
        grid: bool,
        sampler: Any,
        pruner: Any,
        space: DictConfig | None,
    ) -> None:
        self.study_name = study_name or time.strftime("study-%Y-%m-%d-%H-%M-%S")
        self.storage = storage
        self.direction = direction
        self.trials = trials
        self.parallel = parallel
        self.grid = grid
        self.sampler = sampler
        self.pruner = pruner
        self.space = dict(space or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Runs trials until the study has as many as wanted; returns the best value."""
        import optuna

        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        searched = [f"{key!s}={sweep!s}" for key, sweep in self.space.items()]
        parsed = parser.parse_overrides([*searched, *arguments])
        space = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
        fixed: list[str] = [o.input_line for o in parsed if o.input_line and not o.is_sweep_override()]
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study = self._study(optuna, space)
        log.info(
            "Study %s in %s: %d of %d trials are finished",
            *(self.study_name, self.storage, len(finished(study)), self.trials),
        )
        while (missing := self.trials - len(finished(study))) > 0:
            batch = [study.ask(space) for _ in range(min(self.parallel, missing))]
            jobs = [[*fixed, *overrides(trial.params), *self._reporting(trial)] for trial in batch]
            returns = self.launcher.launch(jobs, initial_job_idx=batch[0].number)
            for trial, result in zip(batch, returns, strict=True):
                self._tell(optuna, study, trial, result)
        report(study, folder, fixed)
        done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
        return study.best_value if done else None

    def _study(self, optuna: Any, space: dict[str, Any]) -> Any:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if self.storage.startswith("sqlite:///"):
            Path(self.storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=self.study_name,
            storage=self.storage,
            sampler=self.sampler,
            pruner=self.pruner or optuna.pruners.NopPruner(),
            direction=self.direction,
            load_if_exists=True,
        )
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            # its process was killed with an earlier sweep: the same values are tried again
            optuna.trial.Trial(study, trial._trial_id).set_user_attr("interrupted", True)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
        if self.grid:
            axes = {key: grid_values(axis) for key, axis in space.items()}
            points = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
            for point in points:
                study.enqueue_trial(point, skip_if_exists=True)
            self.trials = len(points)
        return study

    def _reporting(self, trial: Any) -> list[str]:
        """Overrides that let the job report to its trial, and that mark all runs of the sweep."""
        assert self.config is not None
        pruner = OmegaConf.to_container(OmegaConf.create({"node": self.config.hydra.sweeper.pruner}))
        node = {
            "_target_": "segtrail.callbacks.pruning.Pruning",
            "storage": self.storage,
            "study_name": self.study_name,
            "trial": trial.number,
            "monitor": self.config.monitor,
            "pruner": pruner["node"],  # type: ignore[index, call-overload]
        }
        tags = [*self.config.tags, f"sweep/{self.study_name}"]
        return [f"++callbacks.pruning={grammar(node)}", f"tags={grammar(tags)}"]

    def _tell(self, optuna: Any, study: Any, trial: Any, result: Any) -> None:
        states = optuna.trial.TrialState
        if result.status != JobStatus.COMPLETED:
            try:
                _ = result.return_value
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                log.warning("Trial %d failed and the sweep goes on: %s", trial.number, reason)
                trial.set_user_attr("error", reason[:500])
            study.tell(trial, state=states.FAIL)
            return
        value = result.return_value
        frozen = study.trials[trial.number]
        if frozen.user_attrs.get("pruned"):
            study.tell(trial, state=states.PRUNED)
        elif value is None or value != value:  # NaN
            study.tell(trial, state=states.FAIL)
        else:
            study.tell(trial, value)
        log.info("Trial %d: %s %s", trial.number, study.trials[trial.number].state.name.lower(), value)


def grammar(value: Any) -> str:
    """A plain value as Hydra's command line takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {grammar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(grammar(item) for item in value) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    return "null" if value is None else str(value)


def finished(study: Any) -> list[Any]:
    """Trials that count: complete, pruned, or failed by themselves, but not cut off with their sweep."""
    return [t for t in study.trials if t.state.is_finished() and not t.user_attrs.get("interrupted")]


def distribution(override: Override) -> Any:
    """The Optuna distribution that a sweep in Hydra's grammar means.

    Raises:
        ValueError: if Optuna has no such distribution.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, ChoiceSweep):
        choices = [Override._get_value_element_as_str(item) for item in value.list]
        return CategoricalDistribution(choices)
    if isinstance(value, RangeSweep):
        start, stop, step = value.start, value.stop, value.step
        if all(isinstance(n, int) for n in (start, stop, step)):
            return IntDistribution(start, stop - 1, step=step)  # type: ignore[operator, arg-type]
        return FloatDistribution(float(start), float(stop), step=float(step))  # type: ignore[arg-type]
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        if "int" in value.tags:
            return IntDistribution(int(value.start), int(value.end), log="log" in value.tags)
        return FloatDistribution(float(value.start), float(value.end), log="log" in value.tags)
    raise ValueError(f"cannot search {override.input_line}: use choice, range or interval")


def grid_values(distribution: Any) -> list[Any]:
    """Values of a grid along one axis.

    Raises:
        ValueError: if the axis is continuous.
    """
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    if distribution.step is None:
        raise ValueError("a grid needs choice(...) or range(...) for every key, got an interval")
    count = int((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
    return [distribution.low + i * distribution.step for i in range(count)]


def overrides(params: dict[str, Any]) -> list[str]:
    """A trial's values as the command line takes them."""
    return [f"{key}={value}" for key, value in params.items()]


def report(study: Any, folder: Path, fixed: Sequence[str]) -> None:
    """Prints the trials and the best command line; writes ``trials.json`` and ``sweep.png``."""
    rows = sorted(
        study.trials, key=lambda t: (t.value is None, -(t.value or 0) * (1 if _maximizes(study) else -1))
    )
    lines = [f"{'trial':>5}  {'state':<9}  {'value':>8}  values"]
    for trial in rows:
        value = "" if trial.value is None else f"{trial.value:.4f}"
        chosen = " ".join(overrides(trial.params))
        lines.append(f"{trial.number:>5}  {trial.state.name.lower():<9}  {value:>8}  {chosen}")
    log.info("Study %s\n%s", study.study_name, "\n".join(lines))
    summary = [
        {
            "trial": t.number,
            "state": t.state.name.lower(),
            "value": t.value,
            "values": t.params,
            "reports": t.intermediate_values,
            **({"error": t.user_attrs["error"]} if "error" in t.user_attrs else {}),
        }
        for t in study.trials
    ]
    (folder / "trials.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    best = next((t for t in rows if t.value is not None and t.state.name == "COMPLETE"), None)
    if best is not None:
        kept = [f for f in fixed if not f.startswith(("hydra", "sweep=", "launcher="))]
        log.info("Best: python train.py %s", " ".join([*kept, *overrides(best.params)]))
        _draw(study, folder / "sweep.png")


def _maximizes(study: Any) -> bool:
    return study.direction.name == "MAXIMIZE"


def _draw(study: Any, file: Path) -> None:
    """Learning curves of all trials, and the best value so far."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    curves, progress = figure.subplots(1, 2)
    colors = {"COMPLETE": "#3b528b", "PRUNED": "#f0932b", "FAIL": "#c0392b"}
    best, path = None, []
    for trial in study.trials:
        points = sorted(trial.intermediate_values.items())
        if points:
            color = colors.get(trial.state.name, "#999999")
            curves.plot(*zip(*points, strict=True), color=color, linewidth=1, alpha=0.7)
        if trial.value is not None and trial.state.name == "COMPLETE":
            better = max if _maximizes(study) else min
            best = trial.value if best is None else better(best, trial.value)
        path.append(best)
        if trial.value is not None:
            progress.plot(trial.number, trial.value, "o", color=colors.get(trial.state.name), markersize=4)
    progress.step(range(len(path)), [float("nan") if p is None else p for p in path], color="#333333")
    curves.set(xlabel="step", ylabel="reported value", title="trials (orange: pruned)")
    progress.set(xlabel="trial", ylabel="value", title="best so far")
    figure.savefig(file)
