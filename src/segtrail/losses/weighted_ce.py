"""Cross-entropy with class weights given, or computed from the training split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segtrail.losses.cross_entropy import CrossEntropyLoss


def median_frequency(counts: Tensor) -> Tensor:
    """Median of the present classes' frequencies over the class's own (Eigen and Fergus, 2015)."""
    return counts[counts > 0].quantile(0.5) / counts


def inverse(counts: Tensor) -> Tensor:
    """Inverse frequency, such that the mean weight of a pixel is 1."""
    return counts.sum() / ((counts > 0).sum() * counts)


def effective_number(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """(1 - beta) / (1 - beta^n), mean 1 over the present classes (Cui et al., 2019)."""
    weights = (1 - beta) / -torch.expm1(counts * torch.log(torch.tensor(beta, dtype=counts.dtype)))
    present = counts > 0
    return weights * present.sum() / weights[present].sum()


def enet(counts: Tensor, c: float = 1.02) -> Tensor:
    """1 / log(c + frequency), between 1 and 50 (Paszke et al., 2016)."""
    return 1 / torch.log(c + counts / counts.sum())


WEIGHTINGS = {f.__name__: f for f in (median_frequency, inverse, effective_number, enet)}


class WeightedCrossEntropyLoss(CrossEntropyLoss):
    """Cross-entropy whose class weights come from a list or from the training split's pixel counts.

    Classes without a pixel in the training split get weight 0, except under ``enet``.

    Args:
        weights: ``median_frequency``, ``inverse``, ``effective_number``, ``enet``, or one number a
            class ([background, foreground] if binary).
        num_classes: channels of the logits.

    Raises:
        ValueError: an unknown name, or a list of the wrong length.
    """

    def __init__(
        self,
        num_classes: int,
        weights: str | Sequence[float] = "effective_number",
        ignore_index: int | None = 255,
        label_smoothing: float = 0.0,
    ) -> None:
        size = max(2, num_classes)
        by_name = isinstance(weights, str)
        if by_name and weights not in WEIGHTINGS:
            raise ValueError(f"weights is {weights!r}; give a list or one of {', '.join(WEIGHTINGS)}")
        if not by_name and len(weights) != size:
            raise ValueError(f"weights has {len(weights)} numbers; give {size}, one a class")
        super().__init__(ignore_index, label_smoothing, [1.0] * size if by_name else weights)  # type: ignore[arg-type]
        self.weighting = WEIGHTINGS[weights] if isinstance(weights, str) else None
        self.class_counts_wanted = by_name

    def set_class_counts(self, counts: Tensor) -> None:
        """Computes the weights from the pixels of each class, (C,); (2,) if binary."""
        if self.weighting is None or self.class_weights is None:
            return
        if counts.shape != self.class_weights.shape or not counts.sum() > 0:
            raise ValueError(
                f"got class counts {counts.tolist()}; give {len(self.class_weights)} counts, not all 0"
            )
        weights = self.weighting(counts.double())
        self.class_weights.copy_(torch.where(torch.isfinite(weights), weights, 0))
