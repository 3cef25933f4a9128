"""Per-image evaluations of runs, read from the store and paired by image and class name."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segtrail.compare.statistics import Comparison, Overlap, compare
from segtrail.server.store import NotFoundError, Store
from segtrail.tracking import names
from segtrail.tracking.per_image import PerImage, decode_per_image

SPLITS = ("val", "test")
_KEPT = 64
_decoded: dict[str, dict[str, PerImage]] = {}  # by the hash of the file's content


@dataclass(frozen=True, slots=True)
class Paired:
    """Two evaluations brought to the images and classes that both have.

    Attributes:
        images: ids of the shared images.
        classes: names of the shared classes.
        run, reference: overlaps with these images and classes, in this order.
        unpaired: how many images only one of them has.
        unshared: class names that only one of them has.
    """

    images: tuple[str, ...]
    classes: tuple[str, ...]
    run: Overlap
    reference: Overlap
    unpaired: int
    unshared: tuple[str, ...]


def evaluations(store: Store, run: str, split: str) -> dict[str, PerImage]:
    """Evaluations of a run by "best" and "last"; none where the run has no such file.

    Raises:
        ValueError: the file is damaged or missing from the store.
    """
    path = names.per_image(split)
    try:
        stream, file = store.open_file(run, path)
    except NotFoundError:
        return {}
    except (OSError, KeyError):
        raise ValueError(f"the file of {path} is missing from the store") from None
    with stream:
        known = _decoded.get(file["blob"])
        if known is not None:
            return known
        data = stream.read()
    try:
        result = decode_per_image(data)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    while len(_decoded) >= _KEPT:
        _decoded.pop(next(iter(_decoded)), None)
    _decoded[file["blob"]] = result
    return result


def class_names_of(store: Store, run: str) -> list[str]:
    """Class names of a run by id, from its evaluation; empty where it has none yet."""
    for split in SPLITS:
        try:
            found = evaluations(store, run, split)
        except ValueError:
            continue
        for result in found.values():
            return list(result.class_names)
    return []


def pair(run: PerImage, reference: PerImage) -> Paired:
    """Brings two evaluations to the images and classes that both have."""
    images = [image for image in run.ids if image in set(reference.ids)]
    classes = [name for name in run.class_names if name in set(reference.class_names)]

    def select(result: PerImage) -> Overlap:
        rows = {image: index for index, image in enumerate(result.ids)}
        columns = {name: index for index, name in enumerate(result.class_names)}
        return Overlap.from_counts(result.counts).select(
            [rows[image] for image in images], [columns[name] for name in classes]
        )

    return Paired(
        tuple(images),
        tuple(classes),
        select(run),
        select(reference),
        len(set(run.ids) ^ set(reference.ids)),
        tuple(sorted(set(run.class_names) ^ set(reference.class_names))),
    )


def compare_runs(
    run: PerImage, reference: PerImage, resamples: int = 4999
) -> tuple[Paired, Comparison | None]:
    """Tests the difference of two runs; no comparison where they share no image or no class."""
    paired = pair(run, reference)
    if not paired.images or not paired.classes:
        return paired, None
    return paired, compare(paired.run, paired.reference, resamples)


def image_means(result: PerImage) -> np.ndarray:
    """(N,) mean IoU of each image over the classes it has; NaN where nothing was evaluated."""
    return Overlap.from_counts(result.counts).image_scores()[:, -1]


def support(result: PerImage) -> np.ndarray:
    """(C,) pixels of each class in the targets."""
    return result.counts.sum(axis=(0, 2))


def shared_classes(results: Sequence[PerImage]) -> tuple[str, ...]:
    """All class names of several evaluations, in order of first appearance."""
    return tuple(dict.fromkeys(name for result in results for name in result.class_names))
