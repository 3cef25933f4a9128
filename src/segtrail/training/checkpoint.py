"""Checkpoints that carry their config: load a trained run without building it by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from segtrail.config.build import Experiment, build
from segtrail.config.compose import register


class CheckpointError(Exception):
    """A checkpoint that cannot be used; one line that says why and what to do."""


@dataclass(frozen=True)
class LoadedRun:
    """A trained run, rebuilt.

    Attributes:
        path: the checkpoint file.
        config: the config that it was trained with.
        experiment: its parts; ``experiment.module`` holds the trained weights and is in eval mode.
        checkpoint: everything else that the file holds (epoch, global_step, ...).
    """

    path: Path
    config: DictConfig
    experiment: Experiment
    checkpoint: dict[str, Any]

    @property
    def module(self) -> Any:
        """The LightningModule with the trained weights, in eval mode."""
        return self.experiment.module


def find_checkpoint(source: str | Path, outputs: str | Path = "outputs") -> Path:
    """Returns the checkpoint that a path, a run folder, a tracked run's id, or ``last`` means.

    A folder or an id stands for its best checkpoint, or the last where no best was saved.

    Raises:
        CheckpointError: if there is none.
    """
    path = Path(source)
    if path.is_file():
        return path
    folders = [path] if path.is_dir() else []
    if not folders:
        outputs = Path(outputs)
        runs = sorted(
            {file.parent for file in outputs.glob("**/config.yaml") if ".hydra" not in file.parts},
            key=lambda run: run.stat().st_mtime,
        )
        if str(source) == "last":
            folders = runs[-1:]
        else:
            ids = {run: run / "run_id" for run in runs}
            folders = [
                run for run, file in ids.items() if file.exists() and file.read_text().strip() == str(source)
            ]
    for folder in folders:
        for name in ("best.ckpt", "last.ckpt"):
            for candidate in (folder / name, folder / "checkpoints" / name):
                if candidate.is_file():
                    return candidate
    if path.is_dir():
        raise CheckpointError(f"{path}: no checkpoints/best.ckpt or last.ckpt in this folder")
    raise CheckpointError(
        f"'{source}' is neither a checkpoint file, a run folder, nor the id of a run under {outputs}/"
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint that segtrail wrote, without running code from it.

    Raises:
        CheckpointError: if the file is not one.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("segtrail"), dict):
        raise CheckpointError(
            f"{path}: not a checkpoint of segtrail (it holds no config to rebuild the model from)"
        )
    return checkpoint


def load_run(source: str | Path, **changes: Any) -> LoadedRun:
    """Rebuilds a trained run from its checkpoint; downloads nothing.

    Args:
        source: a checkpoint, a run folder, a tracked run's id, or ``last``.
        **changes: dotted config keys to change before building, such as ``{"dataset.root": "/data"}``.

    Raises:
        CheckpointError: if there is no such checkpoint or it does not fit the model of its config.
    """
    path = find_checkpoint(source)
    checkpoint = read_checkpoint(path)
    register()
    config = OmegaConf.create(checkpoint["segtrail"]["config"])
    assert isinstance(config, DictConfig)
    for node in (config.model, *(part for part in config.model.values() if isinstance(part, DictConfig))):
        for key in ("encoder_weights", "checkpoint", "weights", "weights_backbone"):
            if key in node:  # the trained weights replace them
                node[key] = None
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    experiment = build(config)
    palette = np.asarray(checkpoint["segtrail"]["palette"], np.uint8)
    # Not asked of the dataset, which need not be here; a binary run has a color for the background too.
    experiment.palette = palette[-len(config.class_names) :]
    load_weights(experiment.module, checkpoint["state_dict"], path)
    experiment.module.eval()
    return LoadedRun(path, config, experiment, checkpoint)


def load_weights(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Loads a state dict strictly.

    Raises:
        CheckpointError: one line that counts and names what does not fit.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    shapes = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if missing or unexpected or shapes:
        faults = []
        if missing:
            faults.append(f"{len(missing)} tensors missing (first: {missing[0]})")
        if unexpected:
            faults.append(f"{len(unexpected)} unexpected (first: {unexpected[0]})")
        if shapes:
            key = shapes[0]
            faults.append(
                f"{len(shapes)} of another shape (first: {key} is {tuple(state[key].shape)}, "
                f"the model has {tuple(own[key].shape)})"
            )
        raise CheckpointError(f"{path}: does not fit the model {type(module).__name__}: {'; '.join(faults)}")
    module.load_state_dict(state)
