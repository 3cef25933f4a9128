"""The contract of every loss: raw logits and integer labels in, a scalar out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn

from segtrail.data.types import DerivedTarget


class Loss(nn.Module):
    """Base of the semantic losses.

    Shape:
        logits (B, C, H, W) raw scores in any float type, C = 1 meaning binary; target (B, H, W) int64
        class ids (0 or 1 if binary) or ``ignore_index``; result a scalar.

    Attributes:
        derived: targets that the loader computes per sample when this loss is used, by name. They
            arrive as keyword arguments; a loss called without them computes them itself.
        class_counts_wanted: true if :meth:`set_class_counts` must be called before training.
    """

    derived: Mapping[str, DerivedTarget] = MappingProxyType({})
    class_counts_wanted: bool = False

    def forward(self, logits: Tensor, target: Tensor, **derived: Tensor) -> Tensor:
        raise NotImplementedError

    def parts(self, logits: Tensor, target: Tensor, **derived: Tensor) -> dict[str, Tensor]:
        """Weighted terms by name, whose sum is the loss; one term unless the loss is a sum."""
        return {type(self).__name__.removesuffix("Loss").lower(): self(logits, target, **derived)}

    def set_epoch(self, epoch: int, max_epochs: int) -> None:
        """Tells schedules where training stands; passed on to child losses."""
        for child in self.children():
            if isinstance(child, Loss):
                child.set_epoch(epoch, max_epochs)

    def set_class_counts(self, counts: Tensor) -> None:
        """Gives the training split's pixel counts, (C,) float64, to losses that weight by them."""
        for child in self.children():
            if isinstance(child, Loss) and child.class_counts_wanted:
                child.set_class_counts(counts)
