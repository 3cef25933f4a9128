"""IoU-balanced losses of a box head, against their definition and torchvision's plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import box_iou

from segtrail.losses.iou_balanced import (
    IoUBalancedBoxLoss,
    decoded_ious,
    iou_balanced_cross_entropy,
    iou_balanced_smooth_l1,
)

CODER = (10.0, 10.0, 5.0, 5.0)


@pytest.fixture
def rois() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([1, 0, 2, 0, 1, 2, 0])
    logits = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    regression = torch.randn(7, 12, generator=generator, dtype=torch.float64)
    targets = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    return logits, regression, labels, targets


def test_iou_is_that_of_the_decoded_boxes() -> None:
    generator = torch.Generator().manual_seed(1)
    proposals = torch.rand(9, 2, generator=generator) * 50
    proposals = torch.cat([proposals, proposals + 5 + 40 * torch.rand(9, 2, generator=generator)], 1)
    deltas, targets = (torch.randn(9, 4, generator=generator) for _ in range(2))
    coder = BoxCoder(CODER)
    boxes, objects = (coder.decode_single(x, proposals) for x in (deltas, targets))
    torch.testing.assert_close(decoded_ious(deltas, targets, CODER), box_iou(boxes, objects).diagonal())


def test_classification_follows_the_definition(rois: tuple[Tensor, ...]) -> None:
    logits, _, labels, _ = rois
    ious = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    positive = [i for i in range(7) if labels[i] > 0]
    scale = sum(entropy[i] for i in positive) / sum(ious[i] ** 1.5 * entropy[i] for i in positive)
    wanted = sum(entropy[i] * (ious[i] ** 1.5 * scale if i in positive else 1) for i in range(7)) / 7
    torch.testing.assert_close(iou_balanced_cross_entropy(logits, labels, ious), wanted)
    # the sum is that of plain cross-entropy, the gradients are not
    torch.testing.assert_close(wanted, entropy.mean())
    leaf = logits.clone().requires_grad_()
    iou_balanced_cross_entropy(leaf, labels, ious).backward()
    plain = logits.clone().requires_grad_()
    torch.nn.functional.cross_entropy(plain, labels).backward()
    assert leaf.grad is not None
    assert plain.grad is not None
    ratio = (leaf.grad / plain.grad)[:, 0]
    torch.testing.assert_close(ratio[positive], (ious**1.5 * scale)[positive])


def test_localization_follows_the_definition(rois: tuple[Tensor, ...]) -> None:
    _, regression, _, targets = rois
    deltas, ious = regression[:, :4], torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    difference = (deltas - targets).abs()
    values = torch.where(difference < 1 / 9, 4.5 * difference**2, difference - 1 / 18).sum(1)
    wanted = 3.05 * (ious**1.5 * values).sum()
    torch.testing.assert_close(iou_balanced_smooth_l1(deltas, targets, ious, weight=3.05), wanted)
    torch.testing.assert_close(iou_balanced_smooth_l1(deltas, targets, ious), values.sum())


def test_no_strength_is_torchvisions_loss(rois: tuple[Tensor, ...]) -> None:
    logits, regression, labels, targets = (x.float() if x.is_floating_point() else x for x in rois)
    ours = IoUBalancedBoxLoss(eta=0, localization_eta=0)(logits, regression, labels, targets, CODER)
    torch.testing.assert_close(ours, fastrcnn_loss(logits, regression, [labels], [targets]))


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.long), torch.zeros(0, dtype=torch.long)])
def test_without_positives(labels: Tensor) -> None:
    logits = torch.randn(len(labels), 3, requires_grad=True)
    regression = torch.randn(len(labels), 12, requires_grad=True)
    classification, localization = IoUBalancedBoxLoss()(
        logits, regression, labels, torch.zeros(len(labels), 4)
    )
    (classification + localization).backward()
    assert classification.isfinite()
    assert localization == 0
    assert regression.grad is not None
    assert (regression.grad == 0).all()


def test_boxes_that_all_miss_count_as_usual(rois: tuple[Tensor, ...]) -> None:
    logits, _, labels, _ = rois
    plain = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(
        iou_balanced_cross_entropy(logits, labels, torch.zeros(7, dtype=torch.float64)), plain
    )
