"""Lovász hinge: the convex extension of the Jaccard loss, on margins."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrail.losses.base import Loss
from segtrail.losses.lovasz import lovasz_mean


class LovaszHingeLoss(Loss):
    """Lovász extension of the foreground's Jaccard loss at the hinge errors (Berman et al., 2018).

    The errors are ``max(0, 1 - s m)`` with s = 1 in the foreground and -1 elsewhere. The margin m is the
    logit of a binary or multi-label target. With more classes each is one against the rest and m is what
    its logit is above the highest other one; two classes are then the binary case.

    Args:
        per_image: mean over the images of each one's loss, rather than the loss of the whole batch.
        absent: ``count`` averages over all channels, ``skip`` over those with a foreground pixel.
    """

    def __init__(self, ignore_index: int | None = 255, per_image: bool = True, absent: str = "count") -> None:
        super().__init__(ignore_index)
        if absent not in ("skip", "count"):
            raise ValueError(f"absent is {absent!r}; give 'skip' or 'count'")
        self.per_image = per_image
        self.absent = absent

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor, **derived: Tensor) -> Tensor:
        independent = labels.ndim == logits.ndim
        margin = logits if independent else _over_the_others(logits)
        # scores whose distance to 1 (foreground) or 0 is the hinge error
        negative = (1 + margin).relu()
        positive = 1 - (1 - margin).relu()
        if independent:
            scores = torch.where(labels == 1, positive, negative)
        else:
            index = labels.unsqueeze(1)
            scores = negative.scatter(1, index, positive.gather(1, index))
        return lovasz_mean(scores, labels, valid, self.per_image, self.absent == "count")


def _over_the_others(logits: Tensor) -> Tensor:
    """Each logit less the highest of the other classes."""
    highest, which = logits.topk(2, dim=1)
    margin = logits - highest[:, :1]
    return margin.scatter(1, which[:, :1], highest[:, :1] - highest[:, 1:])
