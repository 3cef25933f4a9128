"""Boundary loss."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from segtrail.data.derived import signed_distance
from segtrail.losses.base import Loss
from segtrail.losses.distance_maps import signed_distances


class BoundaryLoss(Loss):
    """Mean over valid pixels and classes of ``p_c phi_c``, phi the signed distance (Kervadec et al., 2019).

    phi is positive outside the labelled region and negative inside, so the loss may be negative. It says
    nothing about classes that have no pixel in the image; pair it with a region loss, as its authors do.

    Args:
        classes: the class ids that take part; None for all.
    """

    derived = MappingProxyType({"signed_distance": signed_distance})

    classes: Tensor | None

    def __init__(self, ignore_index: int | None = 255, classes: Sequence[int] | None = None) -> None:
        super().__init__(ignore_index)
        self.register_buffer("classes", None if classes is None else torch.as_tensor(list(classes)))

    def compute(
        self,
        logits: Tensor,
        labels: Tensor,
        valid: Tensor,
        signed_distance: Tensor | None = None,
        **derived: Tensor,
    ) -> Tensor:
        independent = labels.ndim == logits.ndim
        if signed_distance is None:
            signed_distance = signed_distances(labels, valid, logits.shape[1])
        probability = logits.sigmoid() if independent else logits.softmax(1)
        known = valid if independent else valid.unsqueeze(1)
        phi = signed_distance.to(logits.dtype) * known
        known = known.expand_as(phi)
        if self.classes is not None:
            probability, phi, known = (x.index_select(1, self.classes) for x in (probability, phi, known))
        # no product of the logits' size is made; sums of rows, since float32 would not bear those of planes
        sums = torch.einsum("bchw,bchw->bch", probability, phi)
        return sums.sum() / known.sum().clamp(min=1)
