"""TensorBoard event files: scalars, images, histograms and text as TensorBoard knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pytorch_lightning import loggers

from segtrail.tracking import names
from segtrail.tracking.base import Scalar, Tracker, read_content, require, tell_failures, tracked
from segtrail.tracking.histogram import Histogram
from segtrail.tracking.label_map import colorize


class TensorBoardLogger(Tracker, loggers.TensorBoardLogger):
    """Media calls in front of Lightning's ``TensorBoardLogger``.

    Label maps become color images, files that are text appear under *Text*, other files lie beside the
    event file under their names.

    Args:
        save_dir: folder of the runs.
        run_id: name of this run's folder; an existing one is continued. By default ``version_<n>``.
    """

    def __init__(self, save_dir: Path | str = "runs", run_id: str | None = None) -> None:
        require("tensorboard", "tensorboard")
        super().__init__(save_dir=str(save_dir), name="", version=run_id, default_hp_metric=False)

    @tracked
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        renamed = {names.TRAIN_EPOCH if name == "epoch" else name: value for name, value in metrics.items()}
        loggers.TensorBoardLogger.log_metrics(self, renamed, step)
        self.experiment.flush()

    @tracked
    def log_image(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        self.experiment.add_image(name, image, step or 0, dataformats="HW" if image.ndim == 2 else "HWC")
        self.experiment.flush()

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
        self.log_image(name, colorize(label_map, palette, ignore_index), step)

    @tracked
    def log_histograms(
        self, histograms: Mapping[str, Histogram], step: int, namespace: str = names.WEIGHTS
    ) -> None:
        for name, histogram in histograms.items():
            centers = (histogram.edges[:-1] + histogram.edges[1:]) / 2
            self.experiment.add_histogram_raw(
                f"{namespace}/{name.replace('.', '/')}",
                min=histogram.low,
                max=histogram.high,
                num=int(histogram.counts.sum()),
                sum=float(histogram.counts @ centers),
                sum_squares=float(histogram.counts @ centers**2),
                bucket_limits=histogram.edges[1:].tolist(),
                bucket_counts=histogram.counts.tolist(),
                global_step=step,
            )
        self.experiment.flush()

    @tracked
    def log_file(self, name: str, content: Path | str | bytes, extension: str | None = None) -> None:
        data, suffix = read_content(content, extension)
        if suffix in (".yaml", ".txt", ".diff"):
            self.experiment.add_text(name, "\n".join(f"\t{line}" for line in data.decode().splitlines()))
            self.experiment.flush()
            return
        file = Path(self.log_dir, name + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    @tracked
    def log_values(self, values: Mapping[str, Scalar]) -> None:
        parameters = {
            name: value if isinstance(value, bool | int | float | str) else "null"
            for name, value in values.items()
        }
        rows = [f"|{name}|{str(value).replace('|', '&#124;')}|" for name, value in parameters.items()]
        prefix = next(iter(parameters), "values").partition("/")[0]
        self.experiment.add_text(prefix, "\n".join(["|name|value|", "|-|-|", *rows]))
        self.experiment.flush()

    @tracked
    def log_tags(self, tags: Sequence[str]) -> None:
        self.experiment.add_text(names.TAGS, ", ".join(tags))

    @tracked
    def flush(self) -> None:
        self.experiment.flush()

    @tracked
    def close(self, failed: bool = False) -> None:
        self.experiment.close()
        tell_failures(self)

    @property
    def run_id(self) -> str:
        return str(self.version)

    @property
    def location(self) -> str:
        return str(Path(self.log_dir).resolve())
