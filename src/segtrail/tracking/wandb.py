"""Weights & Biases, offline by default: masks as overlays on their photographs, native histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import loggers

from segtrail.tracking import names
from segtrail.tracking.base import Scalar, Tracker, read_content, require, tell_failures, tracked
from segtrail.tracking.histogram import Histogram
from segtrail.tracking.label_map import colorize


class WandbLogger(Tracker, loggers.WandbLogger):
    """Media calls in front of Lightning's ``WandbLogger``.

    A label map named ``samples/<id>/...`` is drawn as a mask over ``samples/<id>/image`` where that was
    logged before, else as a color image.

    Args:
        offline: write to disk only; ``wandb sync`` sends it later.
        project: the W&B project.
        save_dir: folder of the run files.
        name: what people see; W&B invents one if it is missing.
        run_id: continue this run.
    """

    def __init__(
        self,
        offline: bool = True,
        project: str = "segtrail",
        save_dir: Path | str = ".",
        name: str | None = None,
        run_id: str | None = None,
    ) -> None:
        require("wandb", "wandb")
        import wandb

        settings = wandb.Settings(silent=True, console="off")
        super().__init__(
            project=project,
            name=name,
            id=run_id,
            save_dir=str(save_dir),
            offline=offline,
            settings=settings,
            mode="offline" if offline else None,
        )
        self._photographs: dict[str, np.ndarray] = {}

    @tracked
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        renamed = {names.TRAIN_EPOCH if name == "epoch" else name: value for name, value in metrics.items()}
        loggers.WandbLogger.log_metrics(self, renamed, step)

    @tracked
    def log_image(self, name: str, image: np.ndarray, step: int | None = None) -> None:  # type: ignore[override]
        import wandb

        parent, _, leaf = name.rpartition("/")
        if leaf == "image":
            self._photographs[parent] = image
        self.log_metrics({name: wandb.Image(image)}, step)

    @tracked
    def log_label_map(
        self,
        name: str,
        label_map: np.ndarray,
        palette: np.ndarray,
        ignore_index: int | None = None,
        step: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        import wandb

        parent, _, leaf = name.rpartition("/")
        photograph = self._photographs.get(parent)
        if photograph is None or photograph.shape[:2] != label_map.shape:
            self.log_metrics({name: wandb.Image(colorize(label_map, palette, ignore_index))}, step)
            return
        labels = dict(enumerate(class_names or map(str, range(len(palette)))))
        if ignore_index is not None:
            labels[ignore_index] = "void"
        mask = {"mask_data": np.asarray(label_map), "class_labels": labels}
        self.log_metrics({name: wandb.Image(photograph, masks={leaf: mask})}, step)

    @tracked
    def log_histograms(
        self, histograms: Mapping[str, Histogram], step: int, namespace: str = names.WEIGHTS
    ) -> None:
        import wandb

        self.log_metrics(
            {
                f"{namespace}/{name.replace('.', '/')}": wandb.Histogram(np_histogram=(h.counts, h.edges))
                for name, h in histograms.items()
            },
            step,
        )

    @tracked
    def log_file(self, name: str, content: Path | str | bytes, extension: str | None = None) -> None:
        data, suffix = read_content(content, extension)
        root = Path(self.experiment.dir)  # what lies in here belongs to the run
        file = root / (name + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        self.experiment.save(str(file), base_path=str(root), policy="now")

    @tracked
    def log_values(self, values: Mapping[str, Scalar]) -> None:
        config = {n: v for n, v in values.items() if n.startswith("parameters/")}
        self.experiment.config.update(config, allow_val_change=True)
        self.experiment.summary.update({n: v for n, v in values.items() if n not in config})

    @tracked
    def log_tags(self, tags: Sequence[str]) -> None:
        self.experiment.tags = (*(self.experiment.tags or ()), *tags)

    def flush(self) -> None:
        """Nothing to do: W&B's own process writes as it receives."""

    finalize = tracked(loggers.WandbLogger.finalize)

    @tracked
    def close(self, failed: bool = False) -> None:
        self.experiment.finish(exit_code=int(failed), quiet=True)
        self._experiment = None
        tell_failures(self)

    @property
    def run_id(self) -> str | None:
        return self.experiment.id

    @property
    def location(self) -> str:
        return self.experiment.url or str(Path(self.experiment.dir).parent)
