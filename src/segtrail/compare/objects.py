"""Which objects of one run another run keeps, loses, gains, or calls something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from hotcoco import mask as coco_mask
from scipy.optimize import linear_sum_assignment

Change = Literal["kept", "relabelled", "lost", "gained"]
_SAME_CLASS = 1e-3  # decides between equally good partners, and never between unequal ones


@dataclass(frozen=True, slots=True)
class Match:
    """One object of two runs.

    Attributes:
        before, after: positions in the lists of the two runs; None where the run has no such object.
        iou: of the two masks, 0 without a partner.
        change: what the second run made of it.
    """

    before: int | None
    after: int | None
    iou: float
    change: Change


def match_objects(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], min_iou: float = 0.5
) -> list[Match]:
    """Pairs the objects of one image by their masks, so that the sum of IoUs is largest.

    Args:
        before: objects with ``segmentation`` (run-length encoded) and ``category_id``, as in a run's
            ``samples/<id>/detections/<step>``.
        after: those of the other run.
        min_iou: from which two masks mean the same object.

    Returns:
        Pairs in the order of ``before``, then lost ones, then gained ones.
    """
    ious = np.zeros((len(before), len(after)))
    if before and after:
        found, sought = ([dict(item["segmentation"]) for item in items] for items in (before, after))
        ious = np.asarray(coco_mask.iou(found, sought, [False] * len(after)))
    classes = [np.array([item["category_id"] for item in items]) for items in (before, after)]
    same = classes[0][:, None] == classes[1][None, :] if ious.size else np.zeros(ious.shape, bool)
    possible = ious >= min_iou
    rows, columns = linear_sum_assignment(-(ious + _SAME_CLASS * same) * possible)
    pairs = [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if possible[r, c]]
    matches = [
        Match(row, column, float(ious[row, column]), "kept" if same[row, column] else "relabelled")
        for row, column in pairs
    ]
    first, second = {row for row, _ in pairs}, {column for _, column in pairs}
    matches += [Match(row, None, 0.0, "lost") for row in range(len(before)) if row not in first]
    matches += [Match(None, column, 0.0, "gained") for column in range(len(after)) if column not in second]
    return matches
