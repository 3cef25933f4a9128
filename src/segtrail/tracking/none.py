"""No tracking: every call is accepted and forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pytorch_lightning.loggers.logger import DummyLogger

from segtrail.tracking import names
from segtrail.tracking.base import Scalar, Tracker
from segtrail.tracking.histogram import Histogram


class NoTracker(Tracker, DummyLogger):
    """Keeps nothing, for runs that should leave no trace but their checkpoints."""

    run_id = None
    location = "nowhere (tracker=none)"

    def log_image(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        pass

    def log_label_map(
        self,
        name: str,
        label_map: np.ndarray,
        palette: np.ndarray,
        ignore_index: int | None = None,
        step: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        pass

    def log_histograms(
        self, histograms: Mapping[str, Histogram], step: int, namespace: str = names.WEIGHTS
    ) -> None:
        pass

    def log_file(self, name: str, content: Path | str | bytes, extension: str | None = None) -> None:
        pass

    def log_values(self, values: Mapping[str, Scalar]) -> None:
        pass

    def log_tags(self, tags: Sequence[str]) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self, failed: bool = False) -> None:
        pass
