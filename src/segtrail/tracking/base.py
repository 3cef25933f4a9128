"""The calls that every tracker takes beside those of a Lightning logger."""

from __future__ import annotations

import functools
import importlib.util
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pytorch_lightning.utilities import rank_zero_only

from segtrail.tracking import names
from segtrail.tracking.histogram import Histogram

log = logging.getLogger(__name__)

Scalar = bool | int | float | str | None
Call = TypeVar("Call", bound=Callable[..., Any])


class Tracker(ABC):
    """Media and facts, to be combined with a Lightning ``Logger``.

    All calls act on global rank 0 alone and are durable when they return: a process that is killed
    afterwards does not take back what it logged. None of them raises while training runs; the first
    failure is told in one warning, and :meth:`close` tells how many calls failed.
    """

    failures: int = 0

    @abstractmethod
    def log_image(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        """Records an (H, W, 3) RGB or (H, W) grey uint8 image: a file, or a point of a series if stepped."""

    @abstractmethod
    def log_label_map(
        self,
        name: str,
        label_map: np.ndarray,
        palette: np.ndarray,
        ignore_index: int | None = None,
        step: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Records (H, W) class ids with their (K, 3) uint8 colors, as a file or a point of a series."""

    @abstractmethod
    def log_histograms(
        self, histograms: Mapping[str, Histogram], step: int, namespace: str = names.WEIGHTS
    ) -> None:
        """Records the histograms of all layers at a step; the keys are dotted parameter names."""

    @abstractmethod
    def log_file(self, name: str, content: Path | str | bytes, extension: str | None = None) -> None:
        """Records a file: bytes with their extension, or the path of a file that stays where it is."""

    @abstractmethod
    def log_values(self, values: Mapping[str, Scalar]) -> None:
        """Records single values by path; a later value replaces an earlier one."""

    @abstractmethod
    def log_tags(self, tags: Sequence[str]) -> None:
        """Adds tags to the run."""

    @abstractmethod
    def flush(self) -> None:
        """Writes out what is still held in memory."""

    @abstractmethod
    def close(self, failed: bool = False) -> None:
        """Ends the run; the logger must not be used afterwards."""

    @property
    @abstractmethod
    def run_id(self) -> str | None:
        """What resumes the run; None where there is none (other ranks, no tracking)."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where a person finds the run: a folder or an address."""

    def log_config(self, yaml_text: str, parameters: Mapping[str, Mapping[str, Scalar] | Scalar]) -> None:
        """Records the composed config as a file and flattened.

        Args:
            yaml_text: the whole config.
            parameters: values by dotted key, by group; a value that belongs to no group stands alone.
        """
        self.log_file(names.CONFIG, yaml_text.encode(), "yaml")
        values: dict[str, Scalar] = {}
        for group, entry in parameters.items():
            if isinstance(entry, Mapping):
                values |= {names.parameter(group, key): value for key, value in entry.items()}
            else:
                values[names.parameter(group, "")] = entry
        self.log_values(values)


def tracked(method: Call) -> Call:
    """Makes a tracker's method act on rank 0 only, and a failure one warning instead of an exception."""

    @functools.wraps(method)
    def call(self: Tracker, *args: Any, **kwargs: Any) -> Any:
        if getattr(rank_zero_only, "rank", 0):
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # whatever a client does, training goes on
            self.failures += 1
            if self.failures == 1:
                reason = " ".join(str(error).split())
                log.warning(
                    "tracking: %s.%s failed (%s: %s); training goes on, what was logged before is safe",
                    *(type(self).__name__, method.__name__, type(error).__name__, reason),
                )
            return None

    return call  # type: ignore[return-value]


def tell_failures(tracker: Tracker) -> None:
    """One line at the end of a run whose tracker failed."""
    if tracker.failures:
        log.warning("tracking: %d calls of %s failed", tracker.failures, type(tracker).__name__)


def require(module: str, extra: str) -> None:
    """Raises one line that names the extra to install if ``module`` is missing."""
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(
            f"tracker={extra} needs the package {module!r}: pip install 'segtrail[{extra}]'"
        )


def read_content(content: Path | str | bytes, extension: str | None) -> tuple[bytes, str]:
    """A file's bytes, and its suffix with the dot."""
    suffix = f".{extension}" if extension else ""
    if isinstance(content, bytes):
        return content, suffix
    path = Path(content)
    return path.read_bytes(), suffix or path.suffix
