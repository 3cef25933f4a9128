"""Every loss against its definition, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segtrail.losses.base import Loss
from segtrail.losses.boundary import BoundaryLoss
from segtrail.losses.cross_entropy import CrossEntropyLoss
from segtrail.losses.dice import DiceLoss
from segtrail.losses.distance_ce import DistanceCrossEntropyLoss
from segtrail.losses.focal import FocalLoss
from segtrail.losses.generalized_dice import GeneralizedDiceLoss
from segtrail.losses.hausdorff import HausdorffLoss
from segtrail.losses.hausdorff_er import HausdorffERLoss
from segtrail.losses.iou_balanced import PixelIoUBalancedLoss
from segtrail.losses.jaccard import JaccardLoss
from segtrail.losses.lovasz import LovaszLoss
from segtrail.losses.lovasz_hinge import LovaszHingeLoss
from segtrail.losses.mcc import MCCLoss
from segtrail.losses.ohem import OHEMLoss
from segtrail.losses.sensitivity_specificity import SensitivitySpecificityLoss
from segtrail.losses.topk import TopKLoss
from segtrail.losses.tversky import TverskyLoss
from segtrail.losses.weighted_sum import WeightedSum
from tests.losses import cases, oracles

WEIGHTS = [0.5, 2.0, 1.0, 3.0]


def cut(case: oracles.Case) -> list[float]:
    return WEIGHTS[:2] if oracles.is_independent(case) else WEIGHTS[: case.p.shape[1]]


def region_weights(case: oracles.Case) -> list[float]:
    return WEIGHTS[: case.p.shape[1]]


# name -> (loss of C channels, its definition)
LOSSES = {
    "cross_entropy": (lambda c: CrossEntropyLoss(), oracles.cross_entropy),
    "weighted_ce": (
        lambda c: CrossEntropyLoss(class_weights=WEIGHTS[:c]),
        lambda case: oracles.weighted_cross_entropy(case, cut(case)),
    ),
    "focal": (lambda c: FocalLoss(), oracles.focal),
    "focal-alpha": (
        lambda c: FocalLoss(gamma=0.5, alpha=WEIGHTS[:c]),
        lambda case: oracles.focal(case, 0.5, cut(case)),
    ),
    "dice": (lambda c: DiceLoss(), oracles.dice),
    "dice-image": (
        lambda c: DiceLoss(per_image=True, absent="count", smooth=1.0),
        lambda case: oracles.dice(case, 1.0, per_image=True, absent="count"),
    ),
    "dice-weights": (
        lambda c: DiceLoss(class_weights=WEIGHTS[:c]),
        lambda case: oracles.dice(case, weights=region_weights(case)),
    ),
    "squared_dice": (lambda c: DiceLoss(squared=True), lambda case: oracles.dice(case, squared=True)),
    "log_cosh_dice": (lambda c: DiceLoss(log_cosh=True), oracles.log_cosh_dice),
    "generalized_dice": (lambda c: GeneralizedDiceLoss(), oracles.generalized_dice),
    "generalized_dice-image": (
        lambda c: GeneralizedDiceLoss(per_image=True, absent="count"),
        lambda case: oracles.generalized_dice(case, True, "count"),
    ),
    "jaccard": (lambda c: JaccardLoss(), oracles.jaccard),
    "tversky": (lambda c: TverskyLoss(), oracles.tversky),
    "focal_tversky": (lambda c: TverskyLoss(gamma=0.75), lambda case: oracles.tversky(case, gamma=0.75)),
    "mcc": (lambda c: MCCLoss(eps=0.0), oracles.mcc),
    "sensitivity_specificity": (lambda c: SensitivitySpecificityLoss(), oracles.sensitivity_specificity),
    "lovasz": (lambda c: LovaszLoss(), oracles.lovasz),
    "lovasz-image": (
        lambda c: LovaszLoss(per_image=True, absent="count"),
        lambda case: oracles.lovasz(case, True, "count"),
    ),
    "lovasz_hinge": (lambda c: LovaszHingeLoss(), oracles.lovasz_hinge),
    "lovasz_hinge-batch": (
        lambda c: LovaszHingeLoss(per_image=False, absent="skip"),
        lambda case: oracles.lovasz_hinge(case, False, "skip"),
    ),
    "topk": (lambda c: TopKLoss(), oracles.topk),
    "ohem": (lambda c: OHEMLoss(min_kept=5), lambda case: oracles.ohem(case, min_kept=5)),
    "distance_ce": (lambda c: DistanceCrossEntropyLoss(), oracles.distance_cross_entropy),
    "boundary": (lambda c: BoundaryLoss(), oracles.boundary),
    "hausdorff": (lambda c: HausdorffLoss(), oracles.hausdorff),
    "hausdorff_er": (lambda c: HausdorffERLoss(), oracles.hausdorff_er),
    "iou_balanced": (lambda c: PixelIoUBalancedLoss(), oracles.pixel_iou_balanced),
    "ce_dice": (
        lambda c: WeightedSum({"ce": CrossEntropyLoss(), "dice": DiceLoss()}, {"dice": 0.5}),
        lambda case: oracles.cross_entropy(case) + 0.5 * oracles.dice(case),
    ),
    "dice_focal_topk": (
        lambda c: WeightedSum(
            {
                "dice": DiceLoss(squared=True),
                "focal": FocalLoss(),
                "topk": TopKLoss(),
                "jaccard": JaccardLoss(),
            }
        ),
        lambda case: (
            oracles.dice(case, squared=True)
            + oracles.focal(case)
            + oracles.topk(case)
            + oracles.jaccard(case)
        ),
    ),
}
# A weight per class means something else where channels are independent: [background, foreground].
PER_LABEL = {"weighted_ce", "focal-alpha"}


def made(name: str, target: Tensor, channels: int) -> Loss:
    independent = channels == 1 or target.ndim == 4
    return LOSSES[name][0](2 if independent and name in PER_LABEL else channels)


def with_gradient(function, logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = function(leaf)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


# Distance maps are float32, whatever the logits are.
DISTANCES = {"distance_ce", "boundary", "hausdorff"}


@pytest.mark.parametrize("case", cases.NAMES)
@pytest.mark.parametrize("name", LOSSES)
def test_agrees_with_its_definition(name: str, case: str) -> None:
    logits, target = cases.batch(case)
    if name == "mcc" and case.startswith("single"):
        return  # 0/0 by definition
    loss = made(name, target, logits.shape[1])
    wanted, wanted_gradient = with_gradient(lambda x: LOSSES[name][1](oracles.case(x, target)), logits)
    # What float32 probabilities near 1 cannot tell apart, no loss of them can.
    floor = 1e-6 if case.startswith("right") else 1e-7
    for dtype, relative, absolute in (
        (torch.float64, 1e-6 if name in DISTANCES else 1e-9, 1e-12),
        (torch.float32, 1e-5, floor),
    ):
        value, gradient = with_gradient(lambda x: loss(x, target), logits.to(dtype))
        assert value.item() == pytest.approx(wanted.item(), rel=relative, abs=absolute), dtype
        scale = wanted_gradient.abs().max().item()
        torch.testing.assert_close(
            gradient.double(), wanted_gradient, rtol=0, atol=relative * scale + absolute
        )


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "iou_balanced"])
def test_gradient_is_the_slope(name: str, channels: int) -> None:
    logits, target = cases.batch(f"random-{channels}")
    loss = made(name, target, channels)
    logits, target = logits[:, :, :4, :4].clone().requires_grad_(), target[:, :4, :4]
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (logits,))
