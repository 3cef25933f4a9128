"""Where everything that a run logs lives. Writers and readers share these names; nothing else is imported.

The paths are Neptune attribute paths; other trackers use the same text. ``<split>`` is ``val`` or ``test``.
"""

from __future__ import annotations

import re

CONFIG = "config/yaml"
TAGS = "sys/tags"
FAILED = "sys/failed"

TRAIN_LOSS = "train/loss"
TRAIN_LR = "train/lr"
TRAIN_IMAGES_PER_SECOND = "train/images_per_second"
TRAIN_EPOCH = "train/epoch"

COMMAND_LINE = "environment/command_line"
WORKING_DIRECTORY = "environment/working_directory"
PYTHON = "environment/python"
GIT_COMMIT = "environment/git/commit"
GIT_DIRTY = "environment/git/dirty"
GIT_DIFF = "environment/git/diff"
PACKAGES = "environment/packages"
HARDWARE = "environment/hardware"  # a namespace: cpu, cores, memory_gb, gpu

WEIGHTS = "weights"
GRADIENTS = "gradients"

DETECTIONS_TABLE = "detections/table"  # CSV, a row an object: image, class, score, box, area

CHECKPOINTS = "checkpoints"  # a namespace: best/{path,score,step} and last/{path,score,step}

NONFINITE = "nonfinite"
"""Root of the string series that stand for points which are not finite numbers.

The client drops NaN and infinities, so the point ``train/loss = nan`` is the value ``"nan"`` at the same
step of the string series ``nonfinite/train/loss`` (``"nan"``, ``"inf"`` or ``"-inf"``).
"""


def segment(text: str) -> str:
    """One path element made from any text: slashes and control characters become underscores."""
    return re.sub(r"[/\\\x00-\x1f]", "_", text).strip() or "_"


def parameter(group: str, key: str) -> str:
    """A value of the config; ``key`` is dotted (``encoder.name``) or already a path."""
    return f"parameters/{group}/{key.replace('.', '/')}" if key else f"parameters/{group}"


def train_loss_part(part: str) -> str:
    # not under train/loss itself: a Neptune attribute cannot also be a namespace
    return f"{TRAIN_LOSS}_parts/{part}"


def metric(split: str, name: str) -> str:
    """A figure of a split, such as ``mIoU``, ``mDice``, ``pixel_accuracy``, ``loss`` or ``boundary_IoU``."""
    return f"{split}/{name}"


def class_metric(split: str, name: str, class_name: str) -> str:
    """A figure of one class, such as ``val/IoU/lake``."""
    return f"{split}/{name}/{segment(class_name)}"


def _sample(sample_id: str) -> str:
    return f"samples/{segment(sample_id)}"


def sample_image(sample_id: str) -> str:
    """File, once a run: the photograph."""
    return f"{_sample(sample_id)}/image"


def sample_target(sample_id: str) -> str:
    """File, once a run: the label map of the truth."""
    return f"{_sample(sample_id)}/target"


def sample_prediction(sample_id: str) -> str:
    """Image series of label maps over global steps."""
    return f"{_sample(sample_id)}/prediction"


def sample_confidence(sample_id: str) -> str:
    """Image series, 8-bit grey, of the winning probability over global steps."""
    return f"{_sample(sample_id)}/confidence"


def sample_picture(sample_id: str) -> str:
    """Image series over global steps: objects drawn over their photograph, for clients without our UI."""
    return f"{_sample(sample_id)}/picture"


def sample_objects(sample_id: str) -> str:
    """File (JSON), once a run: the objects of the truth, as in :func:`sample_detections`."""
    return f"{_sample(sample_id)}/objects"


def sample_detections(sample_id: str, step: int) -> str:
    """File (JSON): the objects found at a global step.

    ``{"size": [height, width], "step": ..., "classes": [{"id", "name", "color": [r, g, b]}], "objects":
    [{"category_id", "bbox": [x, y, width, height], "score", "segmentation": {"size", "counts"}}]}``;
    the masks are COCO's compressed run-length encodings, the scores fall. Objects of the truth have
    ``iscrowd`` and ``area`` instead of a score.
    """
    return f"{_sample(sample_id)}/detections/{step}"


def detections(key: str) -> str:
    """A value over all images of an inference run: ``images``, ``objects``, ``count/<class>``, ..."""
    return f"detections/{key}"


def histograms(step: int, namespace: str = WEIGHTS) -> str:
    """File: the histograms of all layers at a global step (see :mod:`segtrail.tracking.histogram`)."""
    return f"{namespace}/histograms/{step}"


def histogram_figure(namespace: str = WEIGHTS) -> str:
    """Image series over global steps that shows the same histograms."""
    return f"{namespace}/figure"


def per_image(split: str) -> str:
    """File: per-image confusion counts (see :mod:`segtrail.tracking.per_image`)."""
    return f"evaluation/{split}/per_image"


def checkpoint(which: str, key: str) -> str:
    """``which`` is ``best`` or ``last``; ``key`` is ``path``, ``score`` or ``step``."""
    return f"{CHECKPOINTS}/{which}/{key}"


def bad_batch(step: int) -> str:
    """Text: value of a loss that was not finite or beyond its bound, and the samples of its batch."""
    return f"guards/bad_batch/{step}"


def nonfinite(name: str) -> str:
    """String series beside a float series, for its points that are not finite."""
    return f"{NONFINITE}/{name}"
