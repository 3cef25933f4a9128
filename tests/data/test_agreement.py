"""The mIoU of training equals what the data sets' own evaluators define.

The two definitions are written here independently, pixel list by pixel list, from the published
descriptions: the official tools are no dependency.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segtrail.data.tables import table
from segtrail.metrics.confusion import SegmentationConfusion, iou

RNG = np.random.default_rng(3)


def scenes(classes: int, count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of truth (with void) and prediction; some classes are absent, some only predicted."""
    pairs = []
    for _ in range(count):
        truth = RNG.integers(0, classes - 3, (24, 32))
        guess = np.where(RNG.random(truth.shape) < 0.7, truth, RNG.integers(0, classes - 1, truth.shape))
        truth[RNG.random(truth.shape) < 0.1] = 255
        pairs.append((truth, guess))
    return pairs


def ours(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> np.ndarray:
    metric = SegmentationConfusion(classes, 255)
    for index, (truth, guess) in enumerate(pairs):
        metric.update(torch.from_numpy(guess)[None], torch.from_numpy(truth)[None], torch.tensor([index]))
    return iou(metric.compute()).numpy()


def cityscapes_scores(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """IoU of each evaluated label over label ids, as the evaluator defines it.

    One confusion matrix over all images and all label ids. For a label: true positives; false
    negatives, its pixels given to any other label, void ones included; false positives, pixels of
    other labels that are not ignored given to it. NaN without any of these.
    """
    labels = table("cityscapes")["labels"]
    label_of = {label["train_id"]: label["id"] for label in labels if label["train_id"] != 255}
    ignored = {label["id"] for label in labels if label["train_id"] == 255}
    counts: dict[tuple[int, int], int] = {}
    for truth, guess in pairs:
        for t, g in zip(truth.ravel().tolist(), guess.ravel().tolist(), strict=True):
            key = (label_of.get(t, 0), label_of[g])
            counts[key] = counts.get(key, 0) + 1
    scores = []
    for _, label in sorted(label_of.items()):
        hit = counts.get((label, label), 0)
        missed = sum(n for (t, g), n in counts.items() if t == label and g != label)
        false = sum(n for (t, g), n in counts.items() if g == label and t != label and t not in ignored)
        scores.append(hit / (hit + missed + false) if hit + missed + false else float("nan"))
    return scores


def test_equals_the_cityscapes_evaluator() -> None:
    pairs = scenes(19)
    expected = np.array(cityscapes_scores(pairs))
    found = ours(pairs, 19)
    assert np.isnan(expected).any()  # a class without any pixel, which does not count
    assert (expected == 0).any()  # a class that is only predicted, which does
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.nanmean(found) == pytest.approx(np.nanmean(expected), abs=1e-12)


def test_equals_the_voc_definition() -> None:
    pairs = scenes(21)
    scores = []
    for label in range(21):
        hit = sum(int(((truth == label) & (guess == label)).sum()) for truth, guess in pairs)
        union = sum(
            int((((truth == label) | (guess == label)) & (truth != 255)).sum()) for truth, guess in pairs
        )
        scores.append(hit / union if union else float("nan"))
    np.testing.assert_allclose(ours(pairs, 21), scores, rtol=0, atol=1e-12)
