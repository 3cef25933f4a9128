"""Plain files: a table of points, a JSON of values, and folders of images."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger

from segtrail.tracking import names
from segtrail.tracking.base import Scalar, Tracker, read_content, tell_failures, tracked
from segtrail.tracking.histogram import Histogram, encode_histograms
from segtrail.tracking.label_map import encode_image, encode_label_map


class CSVLogger(Tracker, Logger):
    """Writes a run into a folder that any tool can read.

    ``metrics.csv`` has one point a line (``name,step,value,time``), so that a run in progress, or one
    that was killed, is always a valid table. Media lie under their names, points of a series under
    ``<name>/<step>.png``; single values are in ``values.json``.

    Args:
        save_dir: folder of the runs.
        run_id: name of this run's folder; an existing one is continued. By default the time of start.
    """

    def __init__(self, save_dir: Path | str = "runs", run_id: str | None = None) -> None:
        super().__init__()
        self._save_dir = Path(save_dir)
        self._run_id = run_id or time.strftime("%Y-%m-%d_%H-%M-%S")
        self._last_steps: dict[str, int] | None = None

    @property
    def folder(self) -> Path:
        return self._save_dir / self._run_id

    @tracked
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        file = self.folder / "metrics.csv"
        if self._last_steps is None:
            self._last_steps = _last_steps(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        new = not file.exists()
        with file.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(("name", "step", "value", "time"))
            for name, value in metrics.items():
                name = names.TRAIN_EPOCH if name == "epoch" else name
                if step is not None:
                    if step <= self._last_steps.get(name, -1):
                        continue  # logged already, by the process that this one resumes
                    self._last_steps[name] = step
                writer.writerow((name, step, float(value), round(time.time(), 3)))

    @tracked
    def log_image(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        self._write(name if step is None else f"{name}/{step}", encode_image(image), ".png")

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
        png = encode_label_map(label_map, palette, ignore_index)
        self._write(name if step is None else f"{name}/{step}", png, ".png")

    @tracked
    def log_histograms(
        self, histograms: Mapping[str, Histogram], step: int, namespace: str = names.WEIGHTS
    ) -> None:
        self._write(names.histograms(step, namespace), encode_histograms(histograms), ".npz")

    @tracked
    def log_file(self, name: str, content: Path | str | bytes, extension: str | None = None) -> None:
        data, suffix = read_content(content, extension)
        self._write(name, data, suffix)

    def _write(self, name: str, content: bytes, suffix: str) -> None:
        file = self.folder / (name + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    @tracked
    def log_values(self, values: Mapping[str, Scalar]) -> None:
        file = self.folder / "values.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".tmp")  # replaced in one go: a killed process leaves a whole file
        draft.write_text(json.dumps(known | dict(values), indent=1, sort_keys=True, default=str))
        draft.replace(file)

    @tracked
    def log_tags(self, tags: Sequence[str]) -> None:
        self.log_values({f"{names.TAGS}/{tag}": True for tag in tags})

    @tracked
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.log_values({names.parameter("module", key): value for key, value in dict(params).items()})

    def flush(self) -> None:
        """Nothing to do: files are closed after each call."""

    def close(self, failed: bool = False) -> None:
        self.log_values({names.FAILED: failed})
        tell_failures(self)

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def location(self) -> str:
        return str(self.folder.resolve())

    @property
    def save_dir(self) -> str:
        return str(self._save_dir)

    @property
    def name(self) -> str:
        return self._save_dir.name

    @property
    def version(self) -> str:
        return self._run_id


def _last_steps(file: Path) -> dict[str, int]:
    if not file.exists():
        return {}
    with file.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["step"]]
    return {row["name"]: int(row["step"]) for row in rows}
