"""Class weights from counts, and weighted sums with their schedules."""

from __future__ import annotations

import math

import pytest
import torch

from segtrail.losses.base import Loss
from segtrail.losses.boundary import BoundaryLoss
from segtrail.losses.cross_entropy import CrossEntropyLoss
from segtrail.losses.dice import DiceLoss
from segtrail.losses.hausdorff import HausdorffLoss
from segtrail.losses.lovasz import LovaszLoss
from segtrail.losses.weighted_ce import WeightedCrossEntropyLoss
from segtrail.losses.weighted_sum import Balanced, LinearRamp, WeightedSum
from tests.losses import cases

COUNTS = torch.tensor([700.0, 200.0, 0.0, 100.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        # frequencies .7 .2 0 .1, median of the present ones .2
        ("median_frequency", [2 / 7, 1.0, 0.0, 2.0]),
        ("inverse", [1 / 2.1, 1 / 0.6, 0.0, 1 / 0.3]),
        ("enet", [1 / math.log(1.02 + share) for share in (0.7, 0.2, 0.0, 0.1)]),
    ],
)
def test_weights_from_counts(weights: str, wanted: list[float]) -> None:
    loss = WeightedCrossEntropyLoss(4, weights)
    assert loss.class_counts_wanted
    loss.set_class_counts(COUNTS)
    assert loss.class_weights.tolist() == pytest.approx(wanted, rel=1e-5)


def test_effective_number() -> None:
    loss = WeightedCrossEntropyLoss(4, "effective_number")
    loss.set_class_counts(COUNTS)
    numbers = [(1 - 0.9999**n) / (1 - 0.9999) for n in (700, 200, 100)]
    scale = 3 / sum(1 / n for n in numbers)
    wanted = [scale / numbers[0], scale / numbers[1], 0.0, scale / numbers[2]]
    assert loss.class_weights.tolist() == pytest.approx(wanted, rel=1e-5)


def test_binary_weights_are_of_background_and_foreground() -> None:
    loss = WeightedCrossEntropyLoss(1, "inverse")
    loss.set_class_counts(torch.tensor([75.0, 25.0]))
    assert loss.class_weights.tolist() == pytest.approx([2 / 3, 2.0])
    logits, target = cases.batch("random-1")
    pair = torch.cat([torch.zeros_like(logits), logits], 1)
    wanted = torch.nn.functional.cross_entropy(
        pair, target, weight=loss.class_weights.double(), ignore_index=cases.VOID
    )
    torch.testing.assert_close(loss(logits, target), wanted)


def test_given_weights_want_no_counts() -> None:
    assert not WeightedCrossEntropyLoss(2, [1.0, 2.0]).class_counts_wanted


def test_counts_of_another_length() -> None:
    with pytest.raises(ValueError, match="give 4 counts, not all 0"):
        WeightedCrossEntropyLoss(4).set_class_counts(torch.ones(3))


@pytest.mark.parametrize(
    ("ramp", "wanted"),
    [
        (LinearRamp(1.0, 0.01, 0.01), [1.0, 0.99, 0.98]),
        (LinearRamp(0.0, 1.0, 0.6), [0.0, 0.6, 1.0]),
        (LinearRamp(2.0, 0.0), [2.0, 1.0, 0.0]),
    ],
)
def test_ramp(ramp: LinearRamp, wanted: list[float]) -> None:
    assert [ramp(epoch, 3) for epoch in range(3)] == pytest.approx(wanted)


def test_ramps_follow_the_epoch() -> None:
    logits, target = cases.batch("random-4")
    dice, boundary = DiceLoss(), BoundaryLoss()
    ramps = {"dice": LinearRamp(1.0, 0.0), "boundary": LinearRamp(0.0, 1.0)}
    loss = WeightedSum({"dice": dice, "boundary": boundary}, ramps)
    for epoch, share in enumerate((0.0, 0.5, 1.0)):
        loss.set_epoch(epoch, 3)
        wanted = (1 - share) * dice(logits, target) + share * boundary(logits, target)
        torch.testing.assert_close(loss(logits, target), wanted)


def test_balanced_terms_are_equal_and_have_no_gradient_through_the_weight() -> None:
    logits, target = cases.batch("random-4")
    dice, hausdorff = DiceLoss(), HausdorffLoss()
    loss = WeightedSum({"dice": dice, "hausdorff": hausdorff}, {"hausdorff": Balanced("dice", 0.5)})
    parts = loss.parts(logits, target)
    torch.testing.assert_close(parts["hausdorff"], 0.5 * parts["dice"])
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss.parts(leaf, target)["hausdorff"], leaf)
    (alone,) = torch.autograd.grad(hausdorff(leaf, target), leaf)
    torch.testing.assert_close(gradient, alone * (0.5 * parts["dice"] / hausdorff(logits, target)).item())


def test_terms_share_one_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    from segtrail.losses import statistics

    calls = []
    original = statistics._by_softmax
    monkeypatch.setattr(statistics, "_by_softmax", lambda *a: calls.append(1) or original(*a))
    logits, target = cases.batch("random-4")
    loss = WeightedSum({"ce": CrossEntropyLoss(), "dice": DiceLoss(), "squared": DiceLoss(squared=True)})
    leaf = logits.clone().requires_grad_()
    loss(leaf, target).backward()
    assert len(calls) == 1


def test_sums_of_sums_pass_everything_on() -> None:
    inner = WeightedSum(
        {"ce": WeightedCrossEntropyLoss(4), "boundary": BoundaryLoss()}, {"ce": LinearRamp(0.0, 1.0)}
    )
    loss: Loss = WeightedSum({"inner": inner, "lovasz": LovaszLoss()})
    assert loss.class_counts_wanted
    assert set(loss.derived) == {"signed_distance"}
    loss.set_class_counts(COUNTS + 1)
    assert inner.losses["ce"].class_weights.std() > 0
    logits, target = cases.batch("random-4")
    start = loss(logits, target)
    loss.set_epoch(4, 5)
    assert loss(logits, target) > start


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"dise": 1.0}, "weights for dise, but the losses are dice, ce"),
        ({"dice": Balanced("iou")}, "dice is balanced to iou, but the losses are dice, ce"),
    ],
)
def test_weights_of_unknown_terms(weights: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedSum({"dice": DiceLoss(), "ce": CrossEntropyLoss()}, weights)


def test_no_terms() -> None:
    with pytest.raises(ValueError, match="at least one loss"):
        WeightedSum({"dice": None})
