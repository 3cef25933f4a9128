"""What a run was made from: its config, the code, the packages, the machine, the command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from segtrail.callbacks.trackers import trackers
from segtrail.tracking import names
from segtrail.tracking.base import Scalar

_LARGEST_DIFF = 1_000_000  # characters; a larger one is cut, and says so


class RunFacts(pl.Callback):
    """Logs config, parameters, tags and environment once, when fitting starts.

    Args:
        run_dir: the run's folder; the tracked run's id is written there, to resume by.
    """

    def __init__(self, run_dir: str | None = None) -> None:
        self.run_dir = run_dir

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        chosen = trackers(trainer)
        if not (trainer.is_global_zero and chosen):
            return
        text = str(getattr(pl_module, "config_yaml", ""))
        config = yaml.safe_load(text) or {}
        values, diff = environment()
        for tracker in chosen:
            if text:
                tracker.log_config(text, flatten_config(config))
            tracker.log_values(values)
            tracker.log_file(names.PACKAGES, packages().encode(), "txt")
            if diff:
                tracker.log_file(names.GIT_DIFF, diff.encode(), "diff")
            if config.get("tags"):
                tracker.log_tags([str(tag) for tag in config["tags"]])
        run_id = chosen[0].run_id
        if self.run_dir is not None and run_id is not None:
            Path(self.run_dir).mkdir(parents=True, exist_ok=True)
            Path(self.run_dir, "run_id").write_text(run_id)


def flatten_config(config: Mapping[str, Any]) -> dict[str, dict[str, Scalar] | Scalar]:
    """Values by dotted key for each group; lists become text, top-level values stand alone."""
    return {
        group: dict(_leaves(entry)) if isinstance(entry, Mapping) else _plain(entry)
        for group, entry in config.items()
    }


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Scalar:
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def environment() -> tuple[dict[str, Scalar], str]:
    """Values of ``environment/*``, and the uncommitted changes as a patch."""
    values: dict[str, Scalar] = {
        names.COMMAND_LINE: shlex.join(sys.orig_argv),
        names.WORKING_DIRECTORY: str(Path.cwd()),
        names.PYTHON: platform.python_version(),
        **{f"{names.HARDWARE}/{key}": value for key, value in hardware().items()},
    }
    commit = _git("rev-parse", "HEAD").strip()
    diff = ""
    if commit:
        diff = _git("diff", "HEAD")
        values[names.GIT_COMMIT] = commit
        values[names.GIT_DIRTY] = bool(_git("status", "--porcelain").strip())
        if len(diff) > _LARGEST_DIFF:
            diff = f"{diff[:_LARGEST_DIFF]}\n(cut: {len(diff)} characters in all)\n"
    return values, diff


def hardware() -> dict[str, Scalar]:
    """Host, processor, memory and accelerators."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "gpu_count": len(gpus),
        "gpu": ", ".join(dict.fromkeys(gpus)),
        "cuda": str(torch.version.cuda or ""),
    }


def packages() -> str:
    """Installed distributions, one ``name==version`` a line."""
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return "".join(
        f"{name}=={version}\n" for name, version in sorted(found.items(), key=lambda p: p[0].lower())
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    """Output of git in the working directory; empty where there is no repository or no git."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
