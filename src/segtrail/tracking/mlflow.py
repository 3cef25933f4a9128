"""MLflow: a local SQLite file by default, or any tracking server."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pytorch_lightning import loggers

from segtrail.tracking import names
from segtrail.tracking.base import Scalar, Tracker, read_content, require, tell_failures, tracked
from segtrail.tracking.histogram import Histogram, encode_histograms
from segtrail.tracking.label_map import encode_image, encode_label_map

_FORBIDDEN = re.compile(r"[^\w\-. /]")  # MLflow takes these in keys; others are replaced


class MLFlowLogger(Tracker, loggers.MLFlowLogger):
    """Media calls in front of Lightning's ``MLFlowLogger``.

    Stepped images are MLflow image series (lossless PNG, with its own preview beside); single values are
    parameters where their path begins with ``parameters/`` and tags elsewhere; files are artifacts.

    Args:
        tracking_uri: an address, or ``sqlite:///<file>``.
        experiment_name: the MLflow experiment.
        run_name: what people see; MLflow invents one if it is missing.
        run_id: continue this run.
    """

    def __init__(
        self,
        tracking_uri: str = "sqlite:///mlflow.db",
        experiment_name: str = "segtrail",
        run_name: str | None = None,
        run_id: str | None = None,
    ) -> None:
        require("mlflow", "mlflow")
        super().__init__(
            experiment_name=experiment_name, run_name=run_name, tracking_uri=tracking_uri, run_id=run_id
        )

    @tracked
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        keys = {name: names.TRAIN_EPOCH if name == "epoch" else _key(name) for name in metrics}
        loggers.MLFlowLogger.log_metrics(self, {keys[name]: metrics[name] for name in metrics}, step)

    @tracked
    def log_image(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        self._log_png(name, encode_image(image), step)

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
        self._log_png(name, encode_label_map(label_map, palette, ignore_index), step)

    def _log_png(self, name: str, png: bytes, step: int | None) -> None:
        if step is None:
            self.log_file(name, png, "png")
            return
        self.experiment.log_image(self.run_id, Image.open(io.BytesIO(png)), key=_key(name), step=step)

    @tracked
    def log_histograms(
        self, histograms: Mapping[str, Histogram], step: int, namespace: str = names.WEIGHTS
    ) -> None:
        self.log_file(names.histograms(step, namespace), encode_histograms(histograms), "npz")

    @tracked
    def log_file(self, name: str, content: Path | str | bytes, extension: str | None = None) -> None:
        folder, _, stem = name.rpartition("/")
        data, suffix = read_content(content, extension)
        with tempfile.TemporaryDirectory() as temporary:  # MLflow takes files, and their names from disk
            file = Path(temporary, stem + suffix)
            file.write_bytes(data)
            self.experiment.log_artifact(self.run_id, str(file), folder or None)

    @tracked
    def log_values(self, values: Mapping[str, Scalar]) -> None:
        from mlflow.entities import Param, RunTag

        parameters = [
            Param(_key(name).removeprefix("parameters/"), str(value)[:6000])
            for name, value in values.items()
            if name.startswith("parameters/")
        ]
        tags = [
            RunTag(_key(name), str(value)[:5000])
            for name, value in values.items()
            if not name.startswith("parameters/")
        ]
        for first in range(0, max(len(parameters), len(tags)), 100):  # MLflow's limit on a batch
            part = slice(first, first + 100)
            self.experiment.log_batch(self.run_id, params=parameters[part], tags=tags[part])

    @tracked
    def log_tags(self, tags: Sequence[str]) -> None:
        for tag in tags:
            self.experiment.set_tag(self.run_id, _key(tag), "true")

    def flush(self) -> None:
        """Nothing to do: every call is committed when it returns."""

    finalize = tracked(loggers.MLFlowLogger.finalize)

    @tracked
    def close(self, failed: bool = False) -> None:
        self.experiment.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
        tell_failures(self)

    @property
    def run_id(self) -> str | None:
        return loggers.MLFlowLogger.run_id.fget(self)  # type: ignore[attr-defined]

    @property
    def location(self) -> str:
        return f"{self._tracking_uri} experiment {self._experiment_name!r} run {self.run_id}"


def _key(name: str) -> str:
    return _FORBIDDEN.sub("_", name)
