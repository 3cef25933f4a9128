"""``python predict.py model=mask_rcnn source=...``: the objects in any images, as a tracked run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.progress import track
from torch import nn

from segtrail.callbacks.histogram_figure import draw_histograms
from segtrail.callbacks.instance_images import log_detections
from segtrail.callbacks.run_facts import environment, flatten_config, packages
from segtrail.callbacks.weight_histograms import compute_histograms
from segtrail.config.build import make
from segtrail.config.check import ConfigError
from segtrail.data.detections import Detections
from segtrail.data.types import DataError
from segtrail.inference.instance_sources import Video, find_media
from segtrail.inference.instance_writer import InstanceWriter, VideoWriter
from segtrail.inference.predict import read_ahead
from segtrail.inference.sources import ImageFile
from segtrail.models.mask_rcnn import MaskRCNN
from segtrail.models.mask_rcnn_matterport import matterport_parameters
from segtrail.tracking import names
from segtrail.training.checkpoint import LoadedRun
from segtrail.visual.palette import default_palette

log = logging.getLogger(__name__)


class InstancePredictor:
    """Finds objects in images of any size.

    Args:
        model: moved to ``device`` and set to evaluate.
        device: ``auto`` is the GPU if there is one.
        mask_threshold: probability from which a pixel belongs to an object.
    """

    def __init__(self, model: MaskRCNN, device: str = "auto", mask_threshold: float = 0.5) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.mask_threshold = mask_threshold

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Detections:
        """Returns the objects of one (H, W, 3) uint8 RGB image."""
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(self.device)
        found = {name: value.float().cpu() for name, value in self.model([pixels])[0].items()}
        height, width = image.shape[:2]
        return Detections.from_model(found, (height, width), self.mask_threshold)


@dataclass(frozen=True)
class Network:
    """A network with what is needed to show its results.

    Attributes:
        model: the network.
        class_names: in id order.
        palette: (K, 3) uint8.
        config: the node ``model`` of the config that it was made from.
    """

    model: MaskRCNN
    class_names: tuple[str, ...]
    palette: np.ndarray
    config: Mapping[str, Any]


def published(config: DictConfig) -> Network:
    """Makes the network of ``config.model`` with published weights, or those of a local file.

    Raises:
        ConfigError: there are none for this network.
    """
    if config.model.get("weights") is None:
        names_of = {(None, "resnet50"): "coco", ("batch", "resnet50"): "coco_v2"}
        weights = names_of.get((config.model.head_norm, config.model.backbone.get("name")))
        if weights is None:
            raise ConfigError(
                "model.weights: nobody has published weights of this network; give a file, or checkpoint=RUN"
            )
        log.info("model.weights=%s, since neither weights nor a checkpoint are given", weights)
        config.model.weights = weights
        if weights == "coco":  # trained so; the statistics are part of the weights
            config.model.backbone.norm = "frozen"
    model = make(config.model)
    return Network(model, model.class_names, default_palette(len(model.class_names)), _plain(config.model))


def trained(loaded: LoadedRun) -> Network:
    """Takes the network of a run."""
    module = loaded.module
    return Network(module.model, module.class_names, module.palette, _plain(loaded.config.model))


def _plain(node: DictConfig) -> Mapping[str, Any]:
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def predict(config: DictConfig, loaded: LoadedRun | None = None) -> int:
    """Finds objects in all sources, writes and tracks them.

    Args:
        config: as ``conf/predict.yaml`` has it.
        loaded: the run whose network to take; None takes ``config.model`` with published weights.

    Returns:
        The number of images and video frames.

    Raises:
        ConfigError: a key has an impossible value.
        DataError: a source is missing, or broken with ``on_error=raise``.
    """
    options = config.instances
    output = _folder(config)
    source: Any = OmegaConf.to_container(config.source) if OmegaConf.is_list(config.source) else config.source
    media = find_media(source, output / "downloads", config.exif, options.every_n_frames)
    network = published(config) if loaded is None else trained(loaded)
    predictor = InstancePredictor(network.model, config.device, options.mask_threshold)
    writer = make(options.files, folder=output, class_names=network.class_names, palette=network.palette)
    with tracked_inference(config, network) as tracker:
        if tracker is not None:
            _log_weights(tracker, network.model, options.histogram_layers)
        seen = Seen(writer, tracker, network, int(options.tracked_images))
        images = [item for item in media if isinstance(item, ImageFile)]
        with ThreadPoolExecutor(2) as pool:
            reading = read_ahead(images, pool)
            for item, image in track(reading, "finding objects", total=len(images), transient=True):
                if isinstance(image, DataError):
                    if config.on_error == "raise":
                        raise image
                    log.warning("skipped %s", image)
                    continue
                seen.image(item, image, predictor(image))  # type: ignore[arg-type]
        for video in media:
            if isinstance(video, Video):
                _watch(video, predictor, seen)
        seen.finish()
    log.info("%d objects in %d images: %s", seen.counts.total(), seen.images, output)
    return seen.images


def _folder(config: DictConfig) -> Path:
    """The output folder; each job of a multirun has one of its own."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().runtime.output_dir)
    return Path(config.output)


class Seen:
    """What was found so far, in files and in the tracked run.

    Args:
        writer: of files.
        tracker: None does not track.
        network: whose findings these are.
        tracked_images: so many images are tracked, the rest only counted.
    """

    def __init__(self, writer: InstanceWriter, tracker: Any, network: Network, tracked_images: int) -> None:
        self.writer = writer
        self.tracker = tracker
        self.network = network
        self.tracked_images = tracked_images
        self.images = 0
        self.counts: Counter[str] = Counter()
        self._scores: list[float] = []

    def image(self, item: ImageFile, image: np.ndarray, detections: Detections) -> None:
        """Adds an image."""
        self.writer.write(item.name, item.path, image, detections)
        self._add(item.name, image, detections)

    def frame(self, name: str, image: np.ndarray, detections: Detections) -> None:
        """Adds a frame of a video."""
        self.writer.collect(name, name, detections)
        self._add(name, image, detections)

    def _add(self, name: str, image: np.ndarray, detections: Detections) -> None:
        self.counts.update(self.network.class_names[label] for label in detections.labels.tolist())
        self._scores += detections.scores.tolist()
        if self.tracker is not None and self.images < self.tracked_images:
            self.tracker.log_image(names.sample_image(name), image)
            log_detections(self.tracker, name, image, detections, self.network, 0, 0.0)
        self.images += 1

    def finish(self) -> None:
        """Writes what concerns all images."""
        self.writer.finish()
        if self.tracker is None:
            return
        self.tracker.log_file(names.DETECTIONS_TABLE, self.writer.folder / "detections.csv")
        values: dict[str, Any] = {names.detections("images"): self.images}
        values[names.detections("objects")] = self.counts.total()
        if self._scores:
            values[names.detections("mean_score")] = float(np.mean(self._scores))
        values |= {names.detections(f"count/{names.segment(k)}"): n for k, n in self.counts.items()}
        self.tracker.log_values(values)


def _watch(video: Video, predictor: InstancePredictor, seen: Seen) -> None:
    """Writes a video with its objects."""
    pictures = VideoWriter(seen.writer.folder / "pictures" / f"{video.name}.mp4", video.rate)
    try:
        for number, frame in track(video.frames(), video.name, transient=True):
            detections = predictor(frame)
            seen.frame(f"{video.name}/{number:06d}", frame, detections)
            if seen.writer.pictures:
                pictures.write(seen.writer.draw(frame, detections))
    finally:
        pictures.close()


@contextmanager
def tracked_inference(config: DictConfig, network: Network) -> Iterator[Any]:
    """Gives a tracker that already holds the config, its parameters under both names, and the environment."""
    tracker = make(config.tracker)
    if tracker is None:
        yield None
        return
    failed = True
    try:
        text = OmegaConf.to_yaml(config)
        parameters = OmegaConf.to_container(config, resolve=True)
        parameters["model"] = dict(network.config)  # type: ignore[index, call-overload]
        tracker.log_config(text, flatten_config(parameters))  # type: ignore[arg-type]
        theirs = matterport_parameters(network.config, network.class_names)
        as_values = flatten_config({"matterport": theirs})["matterport"]
        assert isinstance(as_values, dict)
        values, diff = environment()
        tracker.log_values({names.parameter("matterport", k): v for k, v in as_values.items()} | values)
        tracker.log_file(names.PACKAGES, packages().encode(), "txt")
        if diff:
            tracker.log_file(names.GIT_DIFF, diff.encode(), "diff")
        tracker.log_tags(["predict", *config.tags])
        yield tracker
        failed = False
    finally:
        tracker.close(failed)
        if tracker.location:
            log.info("Tracked run: %s", tracker.location)


def _log_weights(tracker: Any, model: nn.Module, layers: int | Sequence[str]) -> None:
    chosen = chosen_parameters(model, layers)
    if not chosen:
        return
    histograms = compute_histograms(chosen)
    tracker.log_histograms(histograms, 0, names.WEIGHTS)
    tracker.log_image(names.histogram_figure(), draw_histograms(histograms, "weights"), 0)


def chosen_parameters(model: nn.Module, layers: int | Sequence[str]) -> list[tuple[str, nn.Parameter]]:
    """Weights and biases of the first so many convolutions, or of parameters that match patterns.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    if isinstance(layers, int):
        convolutions = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
        layers = [f"{name}.*" for name in convolutions[:layers]]
    found: list[tuple[str, nn.Parameter]] = []
    for pattern in layers:
        matching = [item for item in model.named_parameters() if fnmatch(item[0], pattern)]
        if not matching:
            first = next(name for name, _ in model.named_parameters())
            raise ConfigError(
                f"instances.histogram_layers: no parameter matches {pattern!r}; they are named like {first}"
            )
        found += [item for item in matching if item[0] not in {name for name, _ in found}]
    return found
