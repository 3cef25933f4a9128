"""``python predict.py checkpoint=... source=...``: label maps and pictures of any images."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from rich.progress import track

from segtrail.config.build import make
from segtrail.config.check import ConfigError
from segtrail.data.types import DataError
from segtrail.inference.predictor import Postprocess, SemanticPredictor
from segtrail.inference.sources import Source, find_sources
from segtrail.inference.writer import PredictionWriter
from segtrail.models.base import ImageSizeError
from segtrail.training.checkpoint import LoadedRun, load_run

log = logging.getLogger(__name__)


def run(config: DictConfig) -> int:
    """Predicts on all sources with whatever model was asked for.

    Args:
        config: as ``conf/predict.yaml`` has it.

    Returns:
        The number of images written.

    Raises:
        ConfigError: a key has no or an impossible value.
        DataError: a source is missing, or broken with ``on_error=raise``.
        CheckpointError: the checkpoint cannot be loaded.
    """
    node = config.get("model") or {}
    if "_target_" in node and config.checkpoint is None:  # published weights, without a run of ours
        require(config, "source")
        module: Any = get_class(config.module._target_)
        return importlib.import_module(module.predictor).predict(config)
    if "_target_" in node:
        raise ConfigError("model: the checkpoint has its own; change keys of it by +model.KEY=VALUE")
    require(config, "checkpoint", "source")
    loaded = load_run(config.checkpoint, **{f"model.{key}": value for key, value in node.items()})
    return importlib.import_module(loaded.module.predictor).predict(config, loaded)


def predict(config: DictConfig, loaded: LoadedRun) -> int:
    """Writes label maps of all sources, see :func:`run`.

    Args:
        config: as ``conf/predict.yaml`` has it.
        loaded: a run of a semantic model.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    if settings["on_error"] not in ("raise", "skip"):
        raise ConfigError(f"on_error: raise or skip, got {settings['on_error']!r}")
    sources = find_sources(settings["source"], settings["exif"])
    predictor = build_predictor(loaded, settings, make(config.postprocess))
    output = Path(settings["output"])
    writer = PredictionWriter(
        output,
        loaded.module.class_names,
        loaded.module.palette,
        overlays=settings["overlays"],
        confidence=settings["confidence"],
        opacity=settings["opacity"],
    )
    written = 0
    # Decoding and encoding go on beside the model.
    with ThreadPoolExecutor(2) as pool:
        writing: Future[None] | None = None
        images = read_ahead(sources, pool)
        for source, image in track(images, "predicting", total=len(sources), transient=True):
            if not isinstance(image, DataError):
                try:
                    prediction = predictor(image)
                except ImageSizeError as error:
                    image = DataError(f"{source.name}: {error}")
            if isinstance(image, DataError):
                if settings["on_error"] == "raise":
                    raise image
                log.warning("skipped %s", image)
                continue
            if writing is not None:
                writing.result()
            writing = pool.submit(writer.write, source.name, image, prediction)
            written += 1
        if writing is not None:
            writing.result()
    skipped = f", {len(sources) - written} skipped" if written < len(sources) else ""
    log.info("%d images predicted%s: %s", written, skipped, output)
    return written


def require(settings: Mapping[str, Any] | DictConfig, *keys: str) -> None:
    """Raises one line for each key that has no value."""
    missing = [key for key in keys if settings[key] in (None, "", [])]
    if missing:
        raise ConfigError(*(f"{key}: has no value; give it as {key}=VALUE" for key in missing))


PREDICTOR_KEYS = ("window", "overlap", "blend", "flips", "scales", "batch_size", "device")


def build_predictor(
    loaded: LoadedRun, settings: Mapping[str, Any], postprocess: Postprocess | None
) -> SemanticPredictor:
    """The predictor of a loaded run.

    Args:
        loaded: a run of a semantic model.
        settings: holds ``PREDICTOR_KEYS``, as in ``conf/predict.yaml``.
        postprocess: applied to the averaged probabilities.

    Raises:
        ConfigError: a setting has an impossible value.
    """
    options = {key: settings[key] for key in PREDICTOR_KEYS}
    try:
        return SemanticPredictor(
            loaded.module.model, loaded.config.num_classes, postprocess=postprocess, **options
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def read_ahead(
    sources: Iterable[Source], pool: ThreadPoolExecutor
) -> Iterator[tuple[Source, np.ndarray | DataError]]:
    """Each source with its image or what is wrong with it; the next one is read meanwhile."""

    def read(source: Source) -> tuple[Source, np.ndarray | DataError]:
        try:
            return source, source.read()
        except DataError as error:
            return source, error

    waiting: Future[tuple[Source, np.ndarray | DataError]] | None = None
    for source in sources:
        coming = pool.submit(read, source)
        if waiting is not None:
            yield waiting.result()
        waiting = coming
    if waiting is not None:
        yield waiting.result()
