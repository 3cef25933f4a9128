"""Everything that may be wrong with a dataset, in one report, and a contact sheet to look at."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segtrail.data.datasets.base import SegmentationDataset, SkippedSamples
from segtrail.data.files import IMAGE_SUFFIXES, orientation
from segtrail.data.types import DataError

_TILE = 160  # pixels of the longer side on the contact sheet


@dataclass
class Report:
    """What :func:`inspect` found.

    Attributes:
        errors: what stops training or falsifies it, one line each with the remedy.
        warnings: what may be meant.
        datasets: the splits that can be read, without their bad samples.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    datasets: dict[str, SegmentationDataset] = field(default_factory=dict)


def inspect(make: Callable[..., SegmentationDataset], splits: tuple[str, ...]) -> Report:
    """Read every sample of every split and look at what a single sample does not tell.

    Args:
        make: called with ``split`` and ``on_error``.
        splits: which to make.
    """
    report = Report()
    for split in splits:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                report.datasets[split] = make(split=split, on_error="skip")
            except DataError as error:
                report.errors.append(f"{split}: {error}")
        for warning in caught:
            if isinstance(warning.message, SkippedSamples):
                report.errors += [f"{split}: {fault}" for fault in warning.message.faults]
            elif issubclass(warning.category, UserWarning):
                report.warnings.append(f"{split}: {warning.message}")
    for split, dataset in report.datasets.items():
        _look_at_classes(report, split, dataset)
        _look_at_files(report, split, dataset)
    _look_for_leaks(report)
    return report


def _look_at_classes(report: Report, split: str, dataset: SegmentationDataset) -> None:
    counts = dataset.class_counts()
    names = dataset.class_names if len(dataset.class_names) > 1 else ("background", *dataset.class_names)
    for name, pixels in zip(names, counts.sum(axis=0), strict=True):
        if not pixels and split == "train":
            report.errors.append(
                f"train: no pixel of class {name!r}; label some, or leave it out of dataset.class_names"
            )
        elif not pixels:
            report.warnings.append(f"{split}: no pixel of class {name!r}; its score will be undefined")
    void = np.flatnonzero(counts.sum(axis=1) == 0)
    only_first = np.flatnonzero((counts[:, 1:].sum(axis=1) == 0) & (counts[:, 0] > 0))
    for indices, what in ((void, "is void everywhere"), (only_first, f"has nothing but {names[0]!r}")):
        for index in indices.tolist():
            report.warnings.append(
                f"{split}: {dataset.describe(dataset.records[index])} {what}; was it labeled?"
            )


def _look_at_files(report: Report, split: str, dataset: SegmentationDataset) -> None:
    for record in dataset.records:
        for number, path in enumerate(dataset.sources(record)):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if number and path.suffix.lower() in (".jpg", ".jpeg"):
                report.warnings.append(f"{split}: {path} is a JPEG mask, whose edges smear; export PNG")
            if number == 0 and (turn := orientation(path)) != 1 and dataset.exif == "ignore":
                report.warnings.append(
                    f"{split}: {path} has EXIF orientation {turn}, which is ignored; set dataset.exif=apply "
                    f"if it was labeled upright"
                )


def _look_for_leaks(report: Report) -> None:
    seen: dict[bytes, tuple[str, Path]] = {}
    for split, dataset in report.datasets.items():
        for record in dataset.records:
            for path in dataset.sources(record)[:1]:
                key = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
                other, other_path = seen.setdefault(key, (split, path))
                if path != other_path and other != split:
                    report.errors.append(f"{split}: {path} equals {other_path} of {other}; remove one")
                elif path != other_path:
                    report.warnings.append(f"{split}: {path} equals {other_path}")


def contact_sheet(datasets: Mapping[str, SegmentationDataset], each: int = 8, columns: int = 4) -> np.ndarray:
    """Some samples of each split, the picture beside its mask in the classes' colors; void is white.

    Args:
        datasets: splits by name.
        each: samples of a split, evenly spaced.
        columns: pairs side by side.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    tiles = []
    for split, dataset in datasets.items():
        for index in np.linspace(0, len(dataset) - 1, min(each, len(dataset))).round().astype(int).tolist():
            tiles.append(_tile(dataset, index, f"{split}/{dataset.ids[index]}"))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)])


def _tile(dataset: SegmentationDataset, index: int, caption: str) -> np.ndarray:
    sample = dataset.read(index)
    height, width = sample.mask.shape
    scale = _TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    palette = np.vstack([dataset.palette, np.full((1, 3), 255, np.uint8)])
    if len(dataset.class_names) == 1:
        palette = np.array([[0, 0, 0], [255, 255, 255], [128, 128, 128]], np.uint8)
    ids = np.where(sample.mask == dataset.ignore_index, len(palette) - 1, sample.mask)
    panels: list[Any] = [
        cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(palette[ids], size, interpolation=cv2.INTER_NEAREST),
    ]
    tile = np.full((_TILE + 18, 2 * _TILE + 8, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        tile[: size[1], number * _TILE : number * _TILE + size[0]] = panel
    cv2.putText(
        tile, caption[-44:], (2, _TILE + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA
    )
    return tile
