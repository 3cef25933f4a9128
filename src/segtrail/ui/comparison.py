"""What the compare page shows: scores by class, tests against the reference, confusion, scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segtrail.compare import evaluation
from segtrail.compare.statistics import Comparison, Overlap
from segtrail.server.store import NotFoundError, Store
from segtrail.tracking.per_image import PerImage
from segtrail.ui.reply import plain


def compare_page(store: Store, runs: Sequence[str], reference: str, split: str, which: str) -> dict[str, Any]:
    """Scores of runs by class and their differences to the reference.

    Returns:
        ``classes``; ``splits``: those that any run has; ``runs``: for each with an evaluation its step,
        epoch, number of images, ``iou``, ``support`` and ``mean``, and unless it is the reference
        ``difference, low, high, p, p_holm`` (the mean last), ``paired`` images and ``notes``;
        ``missing``: run and why it has none.
    """
    found: dict[str, PerImage] = {}
    missing = []
    for run in runs:
        try:
            found[run] = _evaluation(store, run, split, which)
        except (NotFoundError, ValueError) as error:
            missing.append({"run": run, "why": str(error)})
    classes = evaluation.shared_classes(list(found.values()))
    rows = []
    for run, result in found.items():
        row = _scores(result, classes)
        row |= {"run": run, "step": result.step, "epoch": result.epoch, "images": len(result.ids)}
        if run != reference and reference in found:
            paired, test = evaluation.compare_runs(result, found[reference])
            row["notes"] = _notes(paired)
            if test is not None:
                row |= _tests(test, paired, classes)
        rows.append(row)
    return {
        "classes": list(classes),
        "runs": rows,
        "missing": missing,
        "splits": [split_ for split_ in evaluation.SPLITS if any(_has(store, run, split_) for run in runs)],
    }


def confusion_page(store: Store, run: str, split: str, which: str) -> dict[str, Any]:
    """Pooled confusion counts: ``classes`` and ``counts``, rows by the target."""
    result = _evaluation(store, run, split, which)
    return {"classes": list(result.class_names), "counts": result.counts.sum(axis=0).tolist()}


def scatter_page(store: Store, run: str, reference: str, split: str, which: str) -> dict[str, Any]:
    """Mean IoU of each image that both runs evaluated: ``images, x`` (the reference) and ``y``."""
    paired = evaluation.pair(
        _evaluation(store, run, split, which), _evaluation(store, reference, split, which)
    )
    return {
        "images": list(paired.images),
        "x": plain(paired.reference.image_scores()[:, -1]),
        "y": plain(paired.run.image_scores()[:, -1]),
    }


def _evaluation(store: Store, run: str, split: str, which: str) -> PerImage:
    found = evaluation.evaluations(store, run, split)
    result = found.get(which) or found.get("last") or found.get("best")
    if result is None:
        raise NotFoundError(f"it logged no per-image evaluation of the {split} split yet")
    return result


def _has(store: Store, run: str, split: str) -> bool:
    try:
        return bool(evaluation.evaluations(store, run, split))
    except ValueError:
        return True


def _scores(result: PerImage, classes: Sequence[str]) -> dict[str, Any]:
    scores = Overlap.from_counts(result.counts).scores()
    pixels = evaluation.support(result)
    place = {name: index for index, name in enumerate(result.class_names)}
    nan = float("nan")
    return {
        "iou": plain([scores[place[name]] if name in place else nan for name in classes]),
        "mean": plain(scores[-1]),
        "support": [int(pixels[place[name]]) if name in place else None for name in classes],
    }


def _tests(test: Comparison, paired: evaluation.Paired, classes: Sequence[str]) -> dict[str, Any]:
    order = [paired.classes.index(name) if name in paired.classes else -2 for name in classes] + [-1]

    def spread(values: np.ndarray) -> list[float | None]:
        return plain([float("nan") if place == -2 else values[place] for place in order])

    return {
        "difference": spread(test.difference),
        "low": spread(test.low),
        "high": spread(test.high),
        "p": spread(test.p_value),
        "p_holm": spread(test.p_holm),
        "paired": test.images,
    }


def _notes(paired: evaluation.Paired) -> list[str]:
    notes = []
    if not paired.images:
        notes.append("no image in common with the reference: no paired test")
    elif paired.unpaired:
        notes.append(f"{paired.unpaired} images that only one of them evaluated are left out")
    if paired.unshared:
        notes.append(
            f"class lists differ ({', '.join(paired.unshared[:5])}): the mean's test is over the "
            f"{len(paired.classes)} shared classes"
        )
    return notes
