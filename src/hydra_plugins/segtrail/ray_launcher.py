"""Hydra launcher on Ray: the trials of a sweep on a cluster, or on a local one that ends with the sweep.

Ray is imported when a sweep starts, because Hydra imports this file at the start of every program.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

log = logging.getLogger(__name__)


@dataclass
class RayLauncherConf:
    """Keys of ``hydra.launcher``; ``conf/launcher/ray.yaml`` explains them."""

    _target_: str = "hydra_plugins.segtrail.ray_launcher.RayLauncher"
    init: dict[str, Any] = field(default_factory=dict)
    remote: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/launcher", name="segtrail_ray", node=RayLauncherConf, provider="segtrail"
)


class RayLauncher(Launcher):
    """Runs each job as a Ray task of its own process.

    Args:
        init: arguments of ``ray.init``.
        remote: options of a task, such as ``num_cpus`` and ``num_gpus``; Ray runs as many at once as fit.
    """

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        self.init = OmegaConf.to_container(init, resolve=True)
        self.remote = OmegaConf.to_container(remote, resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns what they gave, in their order; a failed one holds its exception."""
        import ray

        assert self.config is not None
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            log.info("Ray job #%d: %s", number, " ".join(filter_overrides(overrides)))
        ray.init(**self.init)  # type: ignore[arg-type]
        try:
            # one process a job, as jobs leave threads and the settings of libraries behind
            task = ray.remote(max_calls=1, max_retries=0, **self.remote)(_run)  # type: ignore[arg-type]
            place = str(Path.cwd()), list(sys.path)  # relative outputs, a user's own classes
            shared = (self.hydra_context, self.config, self.task_function, Singleton.get_state())
            jobs = [
                task.remote(number, list(overrides), *shared, *place)
                for number, overrides in enumerate(job_overrides, start=initial_job_idx)
            ]
            return ray.get(jobs)
        finally:
            ray.shutdown()


def _run(
    number: int,
    overrides: list[str],
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    singletons: dict[Any, Any],
    folder: str,
    path: list[str],
) -> JobReturn:
    """One job, in a process of the cluster."""
    os.chdir(folder)
    sys.path[:] = path
    setup_globals()
    Singleton.set_state(singletons)
    job = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        job.hydra.job.id = f"{job.hydra.job.name}_{number}"
        job.hydra.job.num = number
    HydraConfig.instance().set_config(job)
    return run_job(
        hydra_context=hydra_context,
        config=job,
        task_function=task_function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
