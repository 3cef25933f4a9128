"""Lightning logger on the unmodified ``neptune`` client 1.x: offline by default, or against a server."""

from __future__ import annotations

import logging
import math
import os
import random
import sys
import uuid
import weakref
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import rank_zero_experiment

from segtrail.tracking import names
from segtrail.tracking.base import Scalar, Tracker, tell_failures, tracked
from segtrail.tracking.histogram import Histogram, encode_histograms
from segtrail.tracking.label_map import encode_image, encode_label_map
from segtrail.tracking.operation_log import directories, last_steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neptune import Run

log = logging.getLogger(__name__)

_INT32 = 2**31  # the client drops integers beyond it


class NeptuneLogger(Tracker, Logger):
    """Logs to Neptune's operation log, or to a server that speaks Neptune's protocol.

    Points that are not finite, which the client would drop, go to a string series beside
    (:func:`segtrail.tracking.names.nonfinite`). Steps of a series must rise, as Neptune demands; a
    point at a step that the series has already is passed over. That makes a resumed run exact: what
    the killed process logged after its last checkpoint is kept once.

    Args:
        mode: ``offline``, ``async``, ``sync`` or ``debug``; by default what ``NEPTUNE_MODE`` says, else
            async if there is an API token, else offline.
        project: ``workspace/project``; by default ``NEPTUNE_PROJECT``. Not used offline.
        api_token: by default ``NEPTUNE_API_TOKEN``.
        run_id: continue this run: the id of the offline run, or ``sys/id`` on a server.
        custom_run_id: an identifier of your own; the same one continues the same run.
        name, description, tags: what people see of the run.
        capture_stdout, capture_stderr, capture_hardware_metrics, capture_traceback: the client's own
            monitoring, each with a thread of its own.
    """

    def __init__(
        self,
        mode: str | None = None,
        project: str | None = None,
        api_token: str | None = None,
        run_id: str | None = None,
        custom_run_id: str | None = None,
        name: str | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        capture_stdout: bool = False,
        capture_stderr: bool = False,
        capture_hardware_metrics: bool = False,
        capture_traceback: bool = False,
    ) -> None:
        super().__init__()
        api_token = api_token or os.environ.get("NEPTUNE_API_TOKEN") or None
        self.mode = mode or os.environ.get("NEPTUNE_MODE") or ("async" if api_token else "offline")
        self._server = {"project": project, "api_token": api_token}
        self._run_id = run_id
        self._custom_run_id = custom_run_id
        self._name = name
        self._options: dict[str, Any] = {
            "name": name,
            "description": description,
            "capture_stdout": capture_stdout,
            "capture_stderr": capture_stderr,
            "capture_hardware_metrics": capture_hardware_metrics,
            "capture_traceback": capture_traceback,
            "git_ref": False,  # facts about the code are logged in every mode by RunFacts
            "source_files": [],
        }
        self._tags = list(tags)
        self._run: Run | None = None
        self._last_steps: dict[str, float] = {}
        self._resumed_online = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The client's run, started at first use on global rank 0."""
        if self._run is None:
            self._run = self._start()
            logger = weakref.ref(self)
            # a fork copies the buffer of the log; emptied before, what this thread logged is written once
            os.register_at_fork(before=lambda: (this := logger()) and this.flush())
        return self._run

    def _start(self) -> Run:
        neptune = _import_client()
        if self.mode == "offline":
            return self._start_offline()
        try:
            with _own_randomness():
                run = neptune.init_run(
                    with_id=self._run_id,
                    custom_run_id=self._custom_run_id,
                    mode=self.mode,
                    **self._server,
                    **self._options,
                )
        except (neptune.exceptions.NeptuneConnectionLostException, ConnectionError) as error:
            log.warning(
                "tracking: no connection to the server (%s); this run is tracked offline in %s, "
                "send it later with `segtrail sync`",
                *(" ".join(str(error).split())[:200], Path(".neptune").resolve()),
            )
            self.mode = "offline"
            return self._start_offline()
        self._resumed_online = self._run_id is not None or self._custom_run_id is not None
        if self._run_id is None:
            self._run_id = run["sys/id"].fetch() if self.mode != "debug" else None
        self._begin(run)
        return run

    def _start_offline(self) -> Run:
        if self._run_id is None:
            # processes that share a custom id share a run: its identifier is derived from that id
            named = self._custom_run_id
            self._run_id = str(uuid.uuid5(uuid.NAMESPACE_URL, named) if named else uuid.uuid4())
        resumed = bool(directories(self._run_id))
        self._last_steps = last_steps(self._run_id) if resumed else {}
        with _own_randomness():
            run = _offline_run(self._run_id, resumed, self._options)
        if self._custom_run_id is not None:
            run["sys/custom_run_id"] = self._custom_run_id
        self._begin(run)
        return run

    def _begin(self, run: Run) -> None:
        if self._tags:
            run[names.TAGS].add(self._tags)
        run[names.FAILED] = False
        run.wait(disk_only=True)

    @tracked
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        run = self.experiment
        for name, value in metrics.items():
            self._append(run, names.TRAIN_EPOCH if name == "epoch" else name, float(value), step)
        run.wait(disk_only=True)

    def _append(self, run: Run, name: str, value: float, step: int | None) -> None:
        if not math.isfinite(value):
            name, point = names.nonfinite(name), str(value)
        else:
            point = value  # type: ignore[assignment]
        if self._is_new(run, name, step):
            run[name].append(point, step=step)

    def _is_new(self, run: Run, name: str, step: int | None) -> bool:
        if step is None:
            return True
        if self._resumed_online and name not in self._last_steps:
            self._last_steps[name] = _last_step(run, name)
        if step <= self._last_steps.get(name, -math.inf):
            return False
        self._last_steps[name] = step
        return True

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
        run, file = self.experiment, _import_client().types.File.from_content(png, extension="png")
        if step is None:
            run[name].upload(file)
        elif self._is_new(run, name, step):
            run[name].append(file, step=step)
        run.wait(disk_only=True)

    @tracked
    def log_histograms(
        self, histograms: Mapping[str, Histogram], step: int, namespace: str = names.WEIGHTS
    ) -> None:
        self.log_file(names.histograms(step, namespace), encode_histograms(histograms), "npz")

    @tracked
    def log_file(self, name: str, content: Path | str | bytes, extension: str | None = None) -> None:
        run = self.experiment
        if isinstance(content, bytes):
            run[name].upload(_import_client().types.File.from_content(content, extension=extension))
        else:
            run[name].upload(str(Path(content).resolve()))
        run.wait(disk_only=True)

    @tracked
    def log_values(self, values: Mapping[str, Scalar]) -> None:
        run = self.experiment
        for name, value in values.items():
            run[name] = _storable(value)
        run.wait(disk_only=True)

    @tracked
    def log_tags(self, tags: Sequence[str]) -> None:
        self.experiment[names.TAGS].add(list(tags))
        self.experiment.wait(disk_only=True)

    @tracked
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.log_values({names.parameter("module", key): value for key, value in dict(params).items()})

    @tracked
    def flush(self) -> None:
        if self._run is not None:
            self._run.wait(disk_only=True)

    @tracked
    def finalize(self, status: str) -> None:
        # Lightning calls this after each of fit, validate and test: the run stays open
        if self._run is None:
            return
        if status != "success":
            self._run[names.FAILED] = True
        self._run.wait(disk_only=True)

    @tracked
    def close(self, failed: bool = False) -> None:
        if self._run is None:
            return
        if failed:
            self._run[names.FAILED] = True
        self._run.stop()
        self._run = None
        tell_failures(self)

    @property
    def run_id(self) -> str | None:
        """The offline run's id, or ``sys/id`` on a server."""
        return self._run_id if isinstance(self.experiment, _import_client().Run) else None

    @property
    def location(self) -> str:
        """Directory of the operation log, or the run's address."""
        run = self.experiment
        if self.mode != "offline":
            return run.get_url()
        return str(Path(run._op_processor.data_path).resolve())

    @property
    def name(self) -> str | None:
        return self._name

    @property
    def version(self) -> str:
        return ""  # what a progress bar would show beside each step


@contextmanager
def _without_iri_grammar() -> Iterator[None]:
    """Keeps ``jsonschema`` from building a grammar for IRIs, most of what importing the client takes.

    ``jsonschema`` does without the module where it is not installed; no request of the client has an IRI.
    """
    missing = "rfc3987_syntax" not in sys.modules
    if missing:
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if missing:
            del sys.modules["rfc3987_syntax"]


def _import_client() -> Any:
    with _without_iri_grammar():
        import neptune
        import neptune.exceptions
        import neptune.types
    logging.getLogger("neptune").setLevel(logging.WARNING)  # greetings; addresses are told by `location`
    return neptune


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Lets the client draw a suffix that no seed repeats, and leaves the run's own draws alone."""
    state = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(state)


def _offline_run(run_id: str, resumed: bool, options: dict[str, Any]) -> Run:
    """An offline run with an identifier of our choice: readers join directories by it."""
    neptune = _import_client()

    class OfflineRun(neptune.Run):  # type: ignore[name-defined]
        def _get_or_create_api_object(self) -> Any:
            container = super()._get_or_create_api_object()
            container.id = run_id
            return container

        def _write_initial_attributes(self) -> None:
            if not resumed:  # else the name that the run has would be overwritten
                super()._write_initial_attributes()

    return OfflineRun(mode="offline", **options)


def _last_step(run: Run, name: str) -> float:
    """Step of the last point that the server holds of a series."""
    series = run.get_attribute(name)
    fetch = getattr(series, "_fetch_values_from_backend", None)
    if fetch is None:  # a new series, or images, whose repeats the server refuses itself
        return -math.inf
    count = fetch(0, 1).totalItemCount
    return fetch(count - 1, 1).values[0].step if count else -math.inf


def _storable(value: Scalar) -> bool | int | float | str:
    """The value in a type that the client does not drop."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -_INT32 <= value < _INT32 else float(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    return "null" if value is None else str(value)
