"""The contract of every loss: raw logits and integer labels in, a scalar out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from segtrail.data.types import DerivedTarget


class Loss(nn.Module):
    """Base of the semantic losses.

    A subclass implements :meth:`compute`. :meth:`forward` checks the shapes, takes void pixels out
    of the target and leaves autocast, so that no loss has to care about either.

    Args:
        ignore_index: label of void pixels, which change neither value nor gradient; None if there
            are none.

    Shape:
        logits (B, C, H, W) raw scores in any float type; target (B, H, W) class ids, C = 1 meaning
        binary (0 or 1). A target (B, C, H, W) of zeros and ones is multi-label: every channel is a
        binary problem of its own. Result a scalar, float32 or float64.

    Attributes:
        derived: targets that the loader computes per sample when this loss is used, by name. They
            arrive as keyword arguments; a loss called without them computes them itself.
        class_counts_wanted: true if :meth:`set_class_counts` must be called before training.

    Raises:
        ValueError: shapes that do not fit, or (on the CPU, where looking costs no synchronization)
            labels outside the classes.
    """

    derived: Mapping[str, DerivedTarget] = MappingProxyType({})
    class_counts_wanted: bool = False

    def __init__(self, ignore_index: int | None = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor, **derived: Tensor) -> Tensor:
        labels, valid = split_void(logits, target, self.ignore_index)
        with torch.autocast(logits.device.type, enabled=False):
            return self.compute(at_least_float32(logits), labels, valid, **derived)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor, **derived: Tensor) -> Tensor:
        """The loss proper.

        Args:
            logits: (B, C, H, W) float32 or float64.
            labels: int64, 0 at void pixels; (B, H, W), or (B, C, H, W) of zeros and ones where the
                channels are independent (binary and multi-label).
            valid: bool, false at void pixels, of the labels' shape.
            **derived: what the loader computed, if it did.
        """
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


def at_least_float32(logits: Tensor) -> Tensor:
    """Half precision to float32; wider types stay."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def split_void(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Labels with 0 at void pixels, and where pixels are valid; (B, C, H, W) if channels are independent."""
    if logits.ndim != 4 or target.ndim not in (3, 4):
        raise ValueError(
            f"got logits {tuple(logits.shape)} and target {tuple(target.shape)}; give logits (B, C, H, W) "
            "and target (B, H, W), or (B, C, H, W) if multi-label"
        )
    channels = logits.shape[1]
    if channels == 1 and target.ndim == 3:
        target = target.unsqueeze(1)
    independent = target.ndim == 4
    expected = logits.shape if independent else logits.shape[:1] + logits.shape[2:]
    if target.shape != expected:
        raise ValueError(f"target {tuple(target.shape)} does not fit logits {tuple(logits.shape)}")
    labels = target.long()
    # looking costs a synchronization on a device
    look = labels.device.type == "cpu" and labels.numel() > 0 and not torch.compiler.is_compiling()
    low, high = map(int, labels.aminmax()) if look else (0, 0)
    if ignore_index is None or (look and not low <= ignore_index <= high):
        valid = torch.ones_like(labels, dtype=torch.bool)
    else:
        valid = labels != ignore_index
        labels = torch.where(valid, labels, 0)
        low, high = map(int, labels.aminmax()) if look else (0, 0)
    classes = 2 if independent else channels
    if low < 0 or high >= classes:
        raise ValueError(
            f"label {low if low < 0 else high} in the target, but the logits stand for classes "
            f"0..{classes - 1} and void is {ignore_index}; mend the masks, num_classes or ignore_index"
        )
    return labels, valid


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of the values at valid pixels, 0 if there are none."""
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)
