"""Going on with a run that was stopped: its folder, its config, its checkpoint, its tracked run."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

OUTPUTS = Path("outputs")
KEY = "resume"


class ResumeError(Exception):
    """A run that cannot be continued; one line that says why and what to do."""


def find_run(source: str, outputs: Path = OUTPUTS) -> Path:
    """Returns the folder of a run.

    Args:
        source: the folder, a checkpoint in it, the id of its tracked run, or ``last`` for the run that
            wrote to its folder most recently.
        outputs: where runs are looked for.

    Raises:
        ResumeError: if there is no such run.
    """
    path = Path(source)
    for folder in (path, path.parent, path.parent.parent):
        if path.exists() and (folder / "config.yaml").is_file():
            return folder.resolve()
    runs = [file.parent.resolve() for file in outputs.glob("**/config.yaml") if ".hydra" not in file.parts]
    if source == "last":
        if runs:
            return max(runs, key=_last_written)
        raise ResumeError(f"resume=last: there is no run under {outputs}/")
    for run in runs:
        if (run / "run_id").is_file() and (run / "run_id").read_text().strip() == source:
            return run
    raise ResumeError(
        f"resume={source}: neither a run folder, a checkpoint in one, nor the id of a run under {outputs}/"
    )


def identify(config: DictConfig) -> None:
    """Chooses the tracked run's id before the run starts, so that it can be resumed whenever it is killed."""
    tracker = config.tracker
    if "custom_run_id" in tracker and tracker.custom_run_id is None and tracker.run_id is None:
        tracker.custom_run_id = str(uuid.uuid4())


def _last_written(run: Path) -> float:
    return max(file.stat().st_mtime for file in (run, *run.glob("*"), *run.glob("checkpoints/*")))


def hydra_overrides(arguments: Sequence[str]) -> list[str]:
    """What the command line needs in addition so that Hydra uses the folder of the resumed run.

    Args:
        arguments: of the command line, without the program's name.
    """
    given = [a.partition("=")[2] for a in arguments if a.partition("=")[0] == KEY]
    if not given or given[-1] in ("", "null"):
        return []
    return [f"hydra.run.dir='{find_run(given[-1])}'", "hydra.output_subdir=null"]


def resumed_config(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns the config of the run that ``config.resume`` names, with the changes of the command line.

    Args:
        config: as composed from the command line.
        overrides: those of the command line. Values can be changed (``trainer.max_epochs=100``), parts
            cannot: weights of another model would not fit.

    Raises:
        ResumeError: if there is no such run or an override chooses another part.
    """
    source = str(config.resume)
    run = find_run(source)
    saved = OmegaConf.load(run / "config.yaml")
    assert isinstance(saved, DictConfig)
    with open_dict(saved):
        for override in overrides:
            key, _, _ = override.lstrip("+").partition("=")
            if key == KEY:
                continue
            old, new = OmegaConf.select(saved, key), OmegaConf.select(config, key)
            if isinstance(new, DictConfig):
                if OmegaConf.to_container(new) != OmegaConf.to_container(old):
                    raise ResumeError(
                        f"resume={source} goes on with that run's config: leave out {override}, "
                        "or start a new run"
                    )
                continue
            OmegaConf.update(saved, key, new, merge=False)
        checkpoint = Path(source)
        if checkpoint.suffix != ".ckpt":
            checkpoint = run / "checkpoints" / "last.ckpt"
        # killed before the first checkpoint: it starts again, under the same id
        saved.resume = str(checkpoint) if checkpoint.is_file() else None
        saved.run_dir = str(run)
        run_id = run / "run_id"
        if run_id.is_file() and "run_id" in saved.tracker and saved.tracker.get("custom_run_id") is None:
            saved.tracker.run_id = run_id.read_text().strip()
    return saved
