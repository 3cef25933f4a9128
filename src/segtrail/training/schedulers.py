"""Learning-rate schedules: ``schedule(optimizer, total_steps) -> Lightning scheduler config``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers

Schedule = dict[str, Any]


def _warmup_steps(warmup: float, total_steps: int) -> int:
    """``warmup`` below 1 is a share of all steps, otherwise a number of steps."""
    return round(warmup * total_steps) if warmup < 1 else int(warmup)


def _by_step(
    optimizer: Optimizer, total_steps: int, warmup: float, shape: Callable[[float], float]
) -> Schedule:
    """Linear warm-up, then ``shape(progress in 0..1)`` times the base rate, updated every step."""
    warmup_steps = _warmup_steps(warmup, total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return shape(min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))

    return {"scheduler": torch_schedulers.LambdaLR(optimizer, factor), "interval": "step"}


def poly(optimizer: Optimizer, total_steps: int, power: float = 0.9, warmup: float = 0.0) -> Schedule:
    """``lr * (1 - step / total_steps) ** power``, the schedule of DeepLabv2 (Chen et al. 2017, §4.1)."""
    return _by_step(optimizer, total_steps, warmup, lambda progress: (1 - progress) ** power)


def cosine(optimizer: Optimizer, total_steps: int, min_factor: float = 0.0, warmup: float = 0.05) -> Schedule:
    """Half a cosine from ``lr`` to ``lr * min_factor`` after a warm-up (Loshchilov & Hutter 2017, SGDR)."""
    return _by_step(
        optimizer,
        total_steps,
        warmup,
        lambda progress: _half_cosine(1.0, min_factor, progress),
    )


def constant(optimizer: Optimizer, total_steps: int, warmup: float = 0.0) -> Schedule:
    """``lr`` throughout, after a warm-up."""
    return _by_step(optimizer, total_steps, warmup, lambda progress: 1.0)


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    warmup: float = 0.3,
    start_factor: float = 0.04,
    final_factor: float = 1e-4,
) -> Schedule:
    """Half a cosine up to ``lr``, half a cosine down (Smith & Topin 2018, super-convergence).

    The rate runs from ``lr * start_factor`` over ``lr`` to ``lr * final_factor``; momentum stays as it is.
    """
    peak = min(max(1, _warmup_steps(warmup, total_steps)), max(1, total_steps - 1))

    def factor(step: int) -> float:
        if step <= peak:
            return _half_cosine(start_factor, 1.0, step / peak)
        return _half_cosine(1.0, final_factor, min(1.0, (step - peak) / max(1, total_steps - 1 - peak)))

    return {"scheduler": torch_schedulers.LambdaLR(optimizer, factor), "interval": "step"}


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def plateau(
    optimizer: Optimizer,
    total_steps: int,
    monitor: str = "val/mIoU",
    mode: Literal["min", "max"] = "max",
    factor: float = 0.5,
    patience: int = 5,
    min_lr: float = 0.0,
) -> Schedule:
    """Lowers the rate by ``factor`` when ``monitor`` has not improved for ``patience`` validations."""
    scheduler = torch_schedulers.ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=patience, min_lr=min_lr
    )
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


def torch_scheduler(
    optimizer: Optimizer, total_steps: int, scheduler: Callable[[Optimizer], Any], interval: str = "step"
) -> Schedule:
    """Any scheduler of torch or of your own, given as a partial; stepped every "step" or "epoch"."""
    return {"scheduler": scheduler(optimizer), "interval": interval}
