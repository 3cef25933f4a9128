"""Sums of losses, with weights that may follow the epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segtrail.losses.base import Loss, at_least_float32, split_void
from segtrail.losses.statistics import StatisticsLoss, statistics


class LinearRamp:
    """A weight that goes linearly from ``start`` by ``step`` an epoch until it reaches ``end``.

    Args:
        start: weight in epoch 0.
        end: weight that is then kept.
        step: change an epoch, without sign; None spreads the change over all epochs.
    """

    def __init__(self, start: float, end: float, step: float | None = None) -> None:
        if step is not None and step <= 0:
            raise ValueError(f"step is {step}; give step > 0, its direction follows from start and end")
        self.start = start
        self.end = end
        self.step = step

    def __call__(self, epoch: int, max_epochs: int) -> float:
        distance = abs(self.end - self.start)
        step = distance / max(1, max_epochs - 1) if self.step is None else self.step
        moved = min(distance, step * epoch)
        return self.start + (moved if self.end > self.start else -moved)


class Balanced:
    """A weight that makes a term as large as another, in every batch anew, without gradient.

    Args:
        to: name of the other term.
        factor: how many times as large.
    """

    def __init__(self, to: str, factor: float = 1.0) -> None:
        self.to = to
        self.factor = factor

    def __call__(self, value: Tensor, reference: Tensor) -> Tensor:
        value = value.detach()
        empty = value == 0
        return torch.where(empty, 0, self.factor * reference.detach() / torch.where(empty, 1, value))


class WeightedSum(Loss):
    """Weighted sum of losses; those that are functions of the same statistics share one pass.

    Args:
        losses: the terms by name; a null term is left out.
        weights: by the same names, a number, a :class:`LinearRamp` or :class:`Balanced`; 1 where none
            is given.

    Raises:
        ValueError: no term, weights of unknown terms, or a term balanced to one that is not there.
    """

    def __init__(
        self,
        losses: Mapping[str, Loss | None],
        weights: Mapping[str, float | LinearRamp | Balanced] | None = None,
        ignore_index: int | None = 255,
    ) -> None:
        super().__init__(ignore_index)
        terms = {name: loss for name, loss in losses.items() if loss is not None}
        weights = dict(weights or {})
        if not terms:
            raise ValueError("a weighted sum needs at least one loss")
        if unknown := sorted(set(weights) - set(losses)):
            raise ValueError(f"weights for {', '.join(unknown)}, but the losses are {', '.join(losses)}")
        self.losses = nn.ModuleDict(terms)
        self.weights = {name: weights.get(name, 1.0) for name in terms}
        for name, weight in self.weights.items():
            if isinstance(weight, Balanced) and weight.to not in terms:
                raise ValueError(f"{name} is balanced to {weight.to}, but the losses are {', '.join(terms)}")
        self.epoch = (0, 1)
        self.derived = {key: f for loss in terms.values() for key, f in loss.derived.items()}
        self.class_counts_wanted = any(loss.class_counts_wanted for loss in terms.values())

    @property
    def terms(self) -> dict[str, Loss]:
        """The losses by name."""
        return {name: loss for name, loss in self.losses.items() if isinstance(loss, Loss)}

    def forward(self, logits: Tensor, target: Tensor, **derived: Tensor) -> Tensor:
        return torch.stack(list(self.parts(logits, target, **derived).values())).sum()

    def parts(self, logits: Tensor, target: Tensor, **derived: Tensor) -> dict[str, Tensor]:
        """The weighted terms by their names."""
        shared = {name: loss for name, loss in self.terms.items() if isinstance(loss, StatisticsLoss)}
        if len({loss.ignore_index for loss in shared.values()}) > 1 or len(shared) == 1:
            shared = {}
        values = {}
        if shared:
            labels, valid = split_void(logits, target, next(iter(shared.values())).ignore_index)
            needs = frozenset().union(*(loss.needs for loss in shared.values()))
            with torch.autocast(logits.device.type, enabled=False):
                found = statistics(at_least_float32(logits), labels, valid, needs)
                values = {name: loss.of(found) for name, loss in shared.items()}
        for name, loss in self.terms.items():
            if name not in shared:
                given = {key: derived[key] for key in loss.derived if key in derived}
                values[name] = loss(logits, target, **given)
        return {name: self._weight(name, values) * values[name] for name in self.terms}

    def _weight(self, name: str, values: dict[str, Tensor]) -> float | Tensor:
        weight = self.weights[name]
        if isinstance(weight, LinearRamp):
            return weight(*self.epoch)
        if isinstance(weight, Balanced):
            return weight(values[name], values[weight.to])
        return weight

    def set_epoch(self, epoch: int, max_epochs: int) -> None:
        """Moves the weights along their schedules."""
        self.epoch = (epoch, max_epochs)
        for loss in self.terms.values():
            loss.set_epoch(epoch, max_epochs)

    def set_class_counts(self, counts: Tensor) -> None:
        """Passes the counts on to the terms that want them."""
        for loss in self.terms.values():
            if loss.class_counts_wanted:
                loss.set_class_counts(counts)
