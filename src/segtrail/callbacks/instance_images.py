"""Objects found in a fixed set of validation samples, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl

from segtrail.callbacks.fixed_samples import FixedSamples
from segtrail.callbacks.trackers import last_step
from segtrail.data.detections import Detections, decode, to_coco
from segtrail.data.object_files import label_map, objects_json, paint
from segtrail.tracking import names
from segtrail.tracking.base import Tracker
from segtrail.visual.instances import draw_instances


@dataclass(frozen=True, slots=True)
class Shown:
    """One sample of a validation; the image is (H, W, 3) uint8."""

    position: int
    id: str
    image: np.ndarray
    truth: list[dict[str, Any]]
    detections: Detections


class InstanceImages(FixedSamples[Shown]):
    """Logs files, pictures and label maps of the objects in a fixed set of validation samples.

    Photograph and truth are logged once, what was found at each logged validation.

    Args:
        num_samples, every_n_validations: as in :class:`FixedSamples`.
        min_score: of the objects in pictures and label maps; the files hold all.
    """

    def __init__(self, num_samples: int = 8, every_n_validations: int = 1, min_score: float = 0.5) -> None:
        super().__init__(num_samples, every_n_validations)
        self.min_score = min_score

    def collect(self, module: Any, outputs: Any, batch: Mapping[str, Any], row: int, position: int) -> Shown:
        image = np.ascontiguousarray(batch["image"][row].cpu().numpy().transpose(1, 2, 0))
        return Shown(position, batch["ids"][row], image, batch["truth"][row], outputs["detections"][row])

    def record(self, tracker: Tracker, module: Any, items: Sequence[Shown], trainer: pl.Trainer) -> None:
        for item in items:
            if self.first:
                tracker.log_image(names.sample_image(item.id), item.image)
                log_truth(tracker, item.id, item.detections.size, item.truth, module)
            log_detections(
                tracker, item.id, item.image, item.detections, module, last_step(trainer), self.min_score
            )


def log_truth(
    tracker: Tracker, sample_id: str, size: tuple[int, int], truth: list[dict[str, Any]], classes: Any
) -> None:
    """Logs the objects of the truth and their label map.

    Args:
        tracker: where to.
        sample_id: of the sample.
        size: height and width.
        truth: COCO-like entries.
        classes: what has ``class_names``, ``palette`` and ``ignore_index``.
    """
    content = objects_json(truth, size, classes.class_names, classes.palette, 0)
    tracker.log_file(names.sample_objects(sample_id), content, "json")
    masks, labels = [item["segmentation"] for item in truth], [item["category_id"] for item in truth]
    target = paint(masks, labels, size, 255)
    tracker.log_label_map(
        names.sample_target(sample_id), target, classes.palette, 255, class_names=classes.class_names
    )


def log_detections(
    tracker: Tracker,
    sample_id: str,
    image: np.ndarray,
    detections: Detections,
    classes: Any,
    step: int,
    min_score: float,
) -> None:
    """Logs what was found in one sample: the file, the picture, the label map; see :func:`log_truth`."""
    entries = to_coco(detections, sample_id)
    content = objects_json(entries, detections.size, classes.class_names, classes.palette, step)
    tracker.log_file(names.sample_detections(sample_id, step), content, "json")
    sure = detections.above(min_score)
    picture = draw_instances(
        image,
        sure.boxes,
        (decode(mask) for mask in sure.masks),
        sure.labels.tolist(),
        sure.scores.tolist(),
        classes.class_names,
    )
    tracker.log_image(names.sample_picture(sample_id), picture, step)
    tracker.log_label_map(
        names.sample_prediction(sample_id),
        label_map(sure, 255),
        classes.palette,
        255,
        step,
        class_names=classes.class_names,
    )
