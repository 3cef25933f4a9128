"""IoU-balanced losses: of a detector's boxes, where they come from, and a per-pixel analogue."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrail.losses.region import ratio, soft_counts
from segtrail.losses.statistics import Statistics, StatisticsLoss, required


def iou_balanced_cross_entropy(logits: Tensor, labels: Tensor, ious: Tensor, eta: float = 1.5) -> Tensor:
    """Cross-entropy that favors positives whose box fits (Wu et al., 2019), mean over the RoIs.

    A positive weighs ``iou^eta``, rescaled such that the positives' sum stays what it was; no gradient
    goes through the weights. Where every IoU is 0 the weights are 1.

    Args:
        logits: (R, C) class scores.
        labels: (R,) int64, 0 for background.
        ious: (R,) overlap of each RoI's decoded box with its object; read at positives.
        eta: strength; 0 is plain cross-entropy.
    """
    entropy = F.cross_entropy(logits, labels, reduction="none")
    positive = labels > 0
    favored = torch.where(positive, ious, 0).detach() ** eta * positive
    weights = torch.where(positive, _same_sum(favored, entropy * positive), 1)
    return (weights * entropy).sum() / max(1, len(labels))


def iou_balanced_smooth_l1(
    deltas: Tensor, targets: Tensor, ious: Tensor, eta: float = 1.5, weight: float | None = None
) -> Tensor:
    """Sum over positives of ``iou^eta`` times their smooth L1 localization loss (Wu et al., 2019).

    Args:
        deltas: (P, 4) predicted box deltas of the positives, of their own class.
        targets: (P, 4) deltas that would be right.
        ious: (P,) overlap of the decoded boxes with their objects.
        eta: strength; 0 is the plain loss.
        weight: factor that makes up for ``iou^eta`` < 1; None keeps the sum as it was.
    """
    values = F.smooth_l1_loss(deltas, targets, beta=1 / 9, reduction="none").sum(1)
    favored = ious.detach() ** eta
    weights = _same_sum(favored, values) if weight is None else weight * favored
    return (weights * values).sum()


def _same_sum(weights: Tensor, values: Tensor) -> Tensor:
    """The weights rescaled such that the weighted sum is the plain one; 1 where that cannot be."""
    weighted = (weights * values).sum().detach()
    scale = values.sum().detach() / torch.where(weighted > 0, weighted, 1)
    return torch.where(weighted > 0, weights * scale, 1)


def decoded_ious(deltas: Tensor, targets: Tensor, coder_weights: tuple[float, ...]) -> Tensor:
    """IoU of boxes decoded from deltas with those decoded from other deltas of the same proposals, (P,).

    The overlap does not depend on the proposal, which shifts and scales both alike.

    Args:
        deltas, targets: (P, 4) as a box coder with ``coder_weights`` encodes (x, y, w, h).
        coder_weights: what the coder multiplied them by.
    """
    first, second = (_unit_boxes(x.detach(), coder_weights) for x in (deltas, targets))
    overlap = (torch.minimum(first[1], second[1]) - torch.maximum(first[0], second[0])).clamp(min=0).prod(1)
    areas = [(high - low).prod(1) for low, high in (first, second)]
    return overlap / (areas[0] + areas[1] - overlap)


def _unit_boxes(deltas: Tensor, coder_weights: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Corners of the boxes decoded against the proposal of width and height 1 around 0."""
    deltas = torch.stack([d / w for d, w in zip(deltas.unbind(1), coder_weights, strict=True)], 1)
    center, half = deltas[:, :2], deltas[:, 2:].clamp(max=4.135).exp() / 2  # 1000 / 16, as torchvision does
    return center - half, center + half


class IoUBalancedBoxLoss(nn.Module):
    """Both losses of a box head, IoU-balanced; takes the place of torchvision's ``fastrcnn_loss``.

    Args:
        eta: exponent of the classification's weights.
        localization_eta: exponent of the localization's weights.
        localization_weight: its factor; None keeps each batch's sum as it was.
    """

    def __init__(
        self, eta: float = 1.5, localization_eta: float = 1.5, localization_weight: float | None = None
    ) -> None:
        super().__init__()
        self.eta = eta
        self.localization_eta = localization_eta
        self.localization_weight = localization_weight

    def forward(
        self,
        logits: Tensor,
        regression: Tensor,
        labels: Tensor,
        targets: Tensor,
        coder_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0),
    ) -> tuple[Tensor, Tensor]:
        """Classification and localization loss.

        Args:
            logits: (R, C) class scores.
            regression: (R, 4 C) box deltas of every class.
            labels: (R,) int64, 0 for background.
            targets: (R, 4) deltas that would be right.
            coder_weights: of the box coder that encoded the deltas.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits, regression, targets = logits.float(), regression.float(), targets.float()
            own = labels.clamp(min=0)[:, None, None].expand(-1, 1, 4)
            deltas = regression.unflatten(1, (logits.shape[1], 4)).gather(1, own).squeeze(1)
            positive = labels > 0
            ious = torch.where(positive, decoded_ious(deltas, targets, coder_weights), 0)
            classification = iou_balanced_cross_entropy(logits, labels, ious, self.eta)
            localization = iou_balanced_smooth_l1(
                torch.where(positive[:, None], deltas, targets),  # negatives have nothing to localize
                targets,
                ious,
                self.localization_eta,
                self.localization_weight,
            )
            return classification, localization / max(1, len(labels))


class PixelIoUBalancedLoss(StatisticsLoss):
    """Cross-entropy that favors the pixels of well-segmented regions: an analogue, not in the paper.

    A region (a class in an image) takes the part of a box: its pixels weigh ``((1 + iou) / 2)^eta``, iou
    being its soft IoU, rescaled such that the batch's sum stays what it was. The boxes that the paper
    weighs overlap their objects by 1/2 at least, hence that range; with ``iou^eta``, classes that are not
    yet found would never be. No gradient goes through the weights.

    Args:
        eta: strength; 0 is plain cross-entropy.
    """

    needs = frozenset({"cross_entropy", "false_positives"})

    def __init__(self, ignore_index: int | None = 255, eta: float = 1.5) -> None:
        super().__init__(ignore_index)
        if eta < 0:
            raise ValueError(f"eta is {eta}; give eta >= 0")
        self.eta = eta

    def of(self, statistics: Statistics) -> Tensor:
        entropy = required(statistics.cross_entropy)
        counts = soft_counts(statistics, squared=False)
        iou = ratio(counts.intersection, counts.labelled + counts.false_positives).detach()
        labels = statistics.labels
        if statistics.independent:
            of_region = torch.where(labels == 1, iou[:, :, None, None], 1)
        else:
            of_region = iou.gather(1, labels.flatten(1)).view(labels.shape)
        weights = _same_sum(((1 + of_region) / 2) ** self.eta, entropy)
        return statistics.mean(weights * entropy)
