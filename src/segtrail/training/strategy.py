"""Data-parallel strategies that start their ranks from the composed config, not from the command line.

Lightning starts the other ranks by repeating the command line. Under a Hydra multirun each rank then runs
a sweep of its own, with other values from a random or Optuna sweeper. Here a rank gets the very config
that rank 0 trains with: the same in a single run, in a multirun under any launcher, and from Python.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

log = logging.getLogger(__name__)

ENVIRONMENT = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
PEER_WORDS = ("gloo", "NCCL", "peer", "onnection")  # of backends that lost one
GRACE = 20.0  # seconds in which a rank may end by itself before it is killed


class RankError(Exception):
    """Another rank ended with an error; the message says which one and how."""


class ConfigLauncher(_SubprocessScriptLauncher):
    """Starts ranks 1 and up of this node, each with a copy of the config, and watches over them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._config_yaml = ""
        self._environment: dict[str, str | None] | None = None
        self.dead_rank: tuple[int, int] | None = None
        self._closing = threading.Event()

    def launch(self, function: Callable, *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any) -> Any:
        if trainer is not None and not self._config_yaml:
            self._config_yaml = getattr(trainer.strategy._lightning_module, "config_yaml", "")
        return super().launch(function, *args, trainer=trainer, **kwargs)

    def _call_children_scripts(self) -> None:
        self._check_can_spawn_children()
        if not self._config_yaml:
            raise RankError("this strategy starts ranks from the module's config_yaml, which is empty")
        self._environment = {name: os.environ.get(name) for name in ENVIRONMENT}
        environment = self.cluster_environment
        os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        os.environ["NODE_RANK"] = str(environment.node_rank())
        os.environ["LOCAL_RANK"] = "0"
        os.environ["WORLD_SIZE"] = str(self.num_processes * self.num_nodes)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False, encoding="utf-8") as file:
            file.write(self._config_yaml)
        self._config_file = Path(file.name)
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)  # a user's own classes
        for local_rank in range(1, self.num_processes):
            command = [sys.executable, "-m", "segtrail.training.worker", file.name, str(os.getpid())]
            environ = {**os.environ, "LOCAL_RANK": str(local_rank), "PYTHONPATH": path}
            self.procs.append(subprocess.Popen(command, env=environ))
        threading.Thread(target=self._watch, daemon=True, name="rank-watch").start()

    def find_dead(self, patience: float = 0.0) -> bool:
        """Whether a rank has ended with an error, waiting that many seconds for one to do so."""
        deadline = time.monotonic() + patience
        while True:
            codes = [process.poll() for process in self.procs]
            self.dead_rank = next(((rank, code) for rank, code in enumerate(codes, start=1) if code), None)
            if self.dead_rank is not None or time.monotonic() >= deadline:
                return self.dead_rank is not None
            time.sleep(0.1)

    def _watch(self) -> None:
        """Ends this job soon after any of its ranks has died, even if a collective hangs."""
        while not self._closing.wait(0.5):
            if self.find_dead():
                # gloo notices a lost peer itself; this is for collectives that do not
                if not self._closing.wait(GRACE):
                    log.error("rank %d ended with status %d, and this one hangs: killed", *self.dead_rank)  # type: ignore[misc]
                    self._kill()
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    def _kill(self) -> None:
        for process in self.procs:
            if process.poll() is None:
                process.kill()

    def close(self) -> None:
        """Waits for the ranks, kills those that do not end, and leaves the environment as it was."""
        self._closing.set()
        deadline = time.monotonic() + GRACE
        for process in self.procs:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._kill()
                process.wait()
        self.procs = []
        if self._environment is not None:
            self._config_file.unlink(missing_ok=True)
            for name, value in self._environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            self._environment = None


class HydraDDPStrategy(DDPStrategy):
    """``DistributedDataParallel``, its ranks started here, by torchrun or by Slurm.

    Args:
        find_unused_parameters: for models that leave parameters out of some steps; costs time otherwise.
        static_graph: every step uses the same parameters in the same order.
        gradient_as_bucket_view: saves a copy of the gradients.
        process_group_backend: ``nccl`` or ``gloo``; None chooses by the device.
        **options: of Lightning's ``DDPStrategy``.
    """

    def __init__(
        self,
        find_unused_parameters: bool = False,
        static_graph: bool = False,
        gradient_as_bucket_view: bool = True,
        process_group_backend: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            find_unused_parameters=find_unused_parameters,
            static_graph=static_graph,
            gradient_as_bucket_view=gradient_as_bucket_view,
            process_group_backend=process_group_backend,
            **options,
        )

    def _configure_launcher(self) -> None:
        self._launcher = _launcher(self)


class HydraFSDPStrategy(FSDPStrategy):
    """Fully sharded data parallel; takes the arguments of Lightning's ``FSDPStrategy``."""

    def _configure_launcher(self) -> None:
        self._launcher = _launcher(self)


def _launcher(strategy: Any) -> ConfigLauncher | None:
    environment = strategy.cluster_environment
    if environment.creates_processes_externally:
        return None
    return ConfigLauncher(environment, strategy.num_processes, strategy.num_nodes)


def end_job(trainer: pl.Trainer, error: BaseException | None = None) -> None:
    """Ends what a job's strategy has started; call it once, after the last of fit and test.

    Args:
        trainer: of the job.
        error: the exception that ends the job early, if one does.

    Raises:
        RankError: if another rank died and this is why the error arose here.
    """
    launcher = trainer.strategy.launcher
    lost_peer = isinstance(error, RuntimeError) and any(word in str(error) for word in PEER_WORDS)
    # asked while healthy ranks still wait for this one: a dead one is the cause, not a consequence
    died = isinstance(launcher, ConfigLauncher) and launcher.find_dead(GRACE if lost_peer else 0.0)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        if error is None:
            torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if isinstance(launcher, ConfigLauncher):
        dead_rank = launcher.dead_rank
        launcher.close()
        if died and dead_rank is not None:
            raise RankError(f"rank {dead_rank[0]} ended with status {dead_rank[1]}; its own message is above")
