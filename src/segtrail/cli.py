"""The command line: ``train``, ``evaluate`` and ``predict`` through Hydra, the other verbs by argparse."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from segtrail.config.check import ConfigError
from segtrail.config.compose import config_folder, finish, register
from segtrail.data.types import DataError

USER_ERROR = 2
INTERRUPTED = 130  # as a shell has it of a program that SIGINT ended

VERBS = {
    "ui": ("segtrail.ui.app", "compare runs in the browser"),
    "server": ("segtrail.server.app", "serve runs to Neptune clients and to the browser"),
    "token": ("segtrail.server.token", "make or revoke an access token of the server"),
    "sync": ("segtrail.server.sync", "send offline runs to a store or a server"),
    "backup": ("segtrail.server.backup", "write a store to one archive"),
    "restore": ("segtrail.server.restore", "make a store from an archive"),
    "report": ("segtrail.ui.report", "write a comparison of runs as one HTML file"),
    "data": ("segtrail.data.commands", "check a dataset, or print its statistics"),
    "models": ("segtrail.inference.model_table", "list the architectures with size and speed"),
    "export": ("segtrail.inference.export", "write a checkpoint as ONNX or torch.export"),
    "reproduce": ("segtrail.training.reproduce", "run a tracked run again and compare"),
}


def train() -> None:
    """``python train.py [overrides]``."""
    _hydra_application("train", _train)


def evaluate() -> None:
    """``python evaluate.py checkpoint=... [overrides]``."""
    _hydra_application("evaluate", _evaluate)


def predict() -> None:
    """``python predict.py checkpoint=... source=... [overrides]``."""
    _hydra_application("predict", _predict)


def main() -> None:
    """``segtrail VERB ...``."""
    applications: dict[str, Callable[[], None]] = {"train": train, "evaluate": evaluate, "predict": predict}
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in applications:
        del sys.argv[1]
        applications[verb]()
    elif verb in VERBS:
        try:
            module = importlib.import_module(VERBS[verb][0])
            sys.exit(_told(lambda: module.main(sys.argv[2:])))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
    elif verb in {"-h", "--help"}:
        print(_usage())
    elif verb == "--version":
        from segtrail import __version__

        print(__version__)
    else:
        from segtrail.config.check import suggestion

        _fail(f"there is no command '{verb}'{suggestion(verb, [*applications, *VERBS])}")


def _usage() -> str:
    lines = ["usage: segtrail COMMAND [ARGUMENTS]", ""]
    lines += [
        "  train      train a model: segtrail train model=deeplab loss=lovasz",
        "  evaluate   evaluate a checkpoint on a split",
        "  predict    segment images with a checkpoint",
    ]
    lines += [f"  {verb:<10} {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join([*lines, "", "segtrail COMMAND --help tells the rest."])


def _hydra_application(name: str, task: Callable[[DictConfig], Any]) -> None:
    import hydra

    register()
    sys.argv += _folder_overrides(sys.argv[1:])
    # Hydra would print its own account of an exception and exit; this lets it through to `_told`.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")

    @hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)
    def application(config: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode == RunMode.MULTIRUN:  # the sweeper decides what a failed job means
            return task(config)
        return _told(lambda: task(config))

    _told(application)


def _folder_overrides(arguments: list[str]) -> list[str]:
    """A resumed run keeps its folder; a further rank of torchrun, srun or another node makes none."""
    from segtrail.training.resume import hydra_overrides

    ranks = (os.environ.get(name, "0") for name in ("RANK", "NODE_RANK", "SLURM_PROCID"))
    if any(rank not in ("0", "") for rank in ranks):
        return ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]
    return _told(lambda: hydra_overrides(arguments))


def _told(run: Callable[[], Any]) -> Any:
    """Runs, and turns the errors that a user can mend into one line and exit status 2."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if os.environ.get("SEGTRAIL_TRACEBACK"):  # for those who want to see where it came from
        return run()
    try:
        return run()
    except (ConfigError, DataError) as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        from segtrail.config.errors import explain

        _fail(explain(error, sys.argv[1:]))
    except Exception as error:
        if type(error).__module__.startswith("segtrail.") and type(error).__name__.endswith("Error"):
            _fail(str(error))
        raise


def _fail(message: str) -> None:
    for line in message.splitlines():
        print(f"segtrail: {line}", file=sys.stderr)
    sys.exit(USER_ERROR)


def _train(config: DictConfig) -> float | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if config.run_dir is None:
        with open_dict(config):
            config.run_dir = HydraConfig.get().runtime.output_dir
    if HydraConfig.get().mode == RunMode.MULTIRUN and not any("sweep/" in tag for tag in config.tags):
        config.tags.append(f"sweep/{Path(HydraConfig.get().sweep.dir).name}")
    if config.resume is not None:
        from segtrail.training.resume import resumed_config

        config = resumed_config(config, HydraConfig.get().overrides.task)
    config = finish(config, HydraConfig.get().runtime.choices)
    from segtrail.training.run import train as run

    return run(config)


def _evaluate(config: DictConfig) -> Any:
    from segtrail.inference.evaluate import run

    return run(config)


def _predict(config: DictConfig) -> Any:
    from segtrail.inference.predict import run

    return run(config)


if __name__ == "__main__":
    main()
