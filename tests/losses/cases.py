"""Batches that losses are tested on."""

from __future__ import annotations

import torch
from torch import Tensor

VOID = 255


def blocks(classes: int, seed: int, void: bool = True) -> Tensor:
    """(2, 6, 8) labels in blocks of 3 x 2 with a void strip; the last class is absent, if there are many."""
    generator = torch.Generator().manual_seed(seed)
    present = max(2, classes - 1)
    labels = torch.randint(0, present, (2, 2, 4), generator=generator)
    labels = labels.repeat_interleave(3, 1).repeat_interleave(2, 2)
    if void:
        labels[0, :, 0] = VOID
        labels[1, 5, 5] = VOID
    return labels


def batch(name: str) -> tuple[Tensor, Tensor]:
    """float64 logits and int64 target of a named case."""
    kind, channels = name.split("-")
    size = int(channels.removesuffix("m"))
    generator = torch.Generator().manual_seed(len(name) + size)
    target = blocks(size, seed=size)
    if channels.endswith("m"):  # multi-label
        target = torch.randint(0, 2, (2, size, 6, 8), generator=generator)
        target[0, :, :2] = VOID
        target[1, 0, 3, 3] = VOID
    logits = torch.randn(2, size, 6, 8, generator=generator, dtype=torch.float64)
    if kind == "wrong":  # sure, and mostly wrong
        logits = 12 * logits
    elif kind == "right":
        own = (target == 1).double() if target.ndim == 4 or size == 1 else one_hot(target, size)
        own = own.view(logits.shape)
        logits = logits + 8 * (2 * own - 1)
    elif kind == "single":  # one class only in the first image, one valid pixel in the second
        target[0] = torch.where(target[0] == VOID, VOID, 1)
        keep = target[1, ..., 2, 1].clone()
        target[1] = VOID
        target[1, ..., 2, 1] = torch.where(keep == VOID, 0, keep)
    return logits, target


def one_hot(target: Tensor, classes: int) -> Tensor:
    return torch.stack([target == c for c in range(classes)], 1).double()


NAMES = [
    f"{kind}-{channels}" for kind in ("random", "wrong", "right", "single") for channels in ("1", "4", "3m")
]
