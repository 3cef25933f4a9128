"""What most losses need to know of the probabilities, in one pass and with one gradient.

With p the softmax, y the labels, and every sum over the valid pixels of an image, these are: p_y at
every pixel, its cross-entropy, and for each class c the sums of p_c and p_c^2 over the pixels that are
not of the class. No tensor of the logits' size is made but the softmax, which becomes the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segtrail.losses.base import Loss


@dataclass(frozen=True, slots=True)
class Statistics:
    """The module's quantities for a batch; those that no loss asked for are None.

    Attributes:
        true_probability: p_y, of the labels' shape.
        cross_entropy: -log p_y, of the labels' shape.
        false_positives: sums of p_c over the pixels not of class c, (B, C).
        false_squares: the same of p_c^2.
        logits, labels, valid: as in :meth:`segtrail.losses.base.Loss.compute`.
    """

    true_probability: Tensor
    cross_entropy: Tensor | None
    false_positives: Tensor | None
    false_squares: Tensor | None
    logits: Tensor
    labels: Tensor
    valid: Tensor

    @property
    def independent(self) -> bool:
        """True if every channel is a binary problem of its own."""
        return self.labels.ndim == 4

    def by_label(self, values: Tensor) -> Tensor:
        """Sums over each class's pixels, (B, C), of values at the pixels."""
        values = torch.where(self.valid, values, 0)
        if self.independent:
            return (values * self.labels).sum((2, 3))
        # every row has accumulators of its own: exact for many pixels, little contention on a GPU
        rows = values.new_zeros(*values.shape[:-1], self.logits.shape[1])
        return rows.scatter_add(-1, self.labels, values).sum(1)

    def labelled(self) -> Tensor:
        """Number of valid pixels of each class, (B, C)."""
        return self.by_label(torch.ones_like(self.true_probability))

    def pixels(self) -> Tensor:
        """Number of valid pixels of each image, (B, 1), or of each image's channels, (B, C)."""
        count = self.valid.flatten(2 if self.independent else 1).sum(-1).to(self.true_probability.dtype)
        return count if self.independent else count[:, None]


class StatisticsLoss(Loss):
    """Base of the losses that are functions of the :class:`Statistics`; sums of them share one pass.

    Attributes:
        needs: which of cross_entropy, false_positives and false_squares :meth:`of` reads.
    """

    needs: frozenset[str] = frozenset()

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor, **derived: Tensor) -> Tensor:
        return self.of(statistics(logits, labels, valid, self.needs))

    def of(self, statistics: Statistics) -> Tensor:
        """The loss, given the statistics of a batch."""
        raise NotImplementedError


def required(quantity: Tensor | None) -> Tensor:
    """A quantity that the loss named in ``needs``."""
    if quantity is None:
        raise ValueError("the loss reads a quantity that its `needs` does not name")
    return quantity


def statistics(logits: Tensor, labels: Tensor, valid: Tensor, needs: frozenset[str]) -> Statistics:
    """Computes what ``needs`` names, by softmax or, if the channels are independent, by sigmoid."""
    entropy = "cross_entropy" in needs
    first, second = "false_positives" in needs, "false_squares" in needs
    if labels.ndim == logits.ndim:
        found = _by_sigmoid(logits, labels, valid, entropy, first, second)
    else:
        found = _by_softmax(logits, labels, valid, entropy, first, second)
    return Statistics(*found, logits, labels, valid)


def _by_sigmoid(
    logits: Tensor, labels: Tensor, valid: Tensor, entropy: bool, first: bool, second: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    toward_label = torch.where(labels == 1, logits, -logits)
    wrong = torch.where((labels == 0) & valid, (-toward_label).sigmoid(), 0)
    return (
        toward_label.sigmoid(),
        -F.logsigmoid(toward_label) if entropy else None,
        wrong.sum((2, 3)) if first else None,
        wrong.square().sum((2, 3)) if second else None,
    )


@torch.compiler.disable
def _by_softmax(
    logits: Tensor, labels: Tensor, valid: Tensor, entropy: bool, first: bool, second: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    return _SoftmaxStatistics.apply(logits, labels, valid, entropy, first, second)


class _SoftmaxStatistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor, entropy: bool, first: bool, second: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.regions = first or second
        wrong, found = _probabilities(logits, labels, valid, entropy, first, second)
        ctx.save_for_backward(logits, labels, valid, found[0])
        ctx.wrong = wrong if ctx.needs_input_grad[0] else None
        return found

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_true: Tensor | None,
        grad_entropy: Tensor | None,
        grad_first: Tensor | None,
        grad_second: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        logits, labels, valid, true = ctx.saved_tensors
        # The softmax is turned into the gradient in place; whoever comes twice pays for another softmax.
        wrong, ctx.wrong = ctx.wrong, None
        if wrong is None:
            wrong = _probabilities(logits, labels, valid, False, ctx.regions, False)[0]
        # With t = d loss / dp: dx_j = p_j (t_j - <p, t>), and p_j - [j = y] for the cross-entropy.
        for i, p in enumerate(wrong):  # image by image: small temporaries, and p stays in a cache
            factor = torch.zeros_like(true[i]) if grad_entropy is None else grad_entropy[i]
            if grad_true is not None:
                factor = factor - true[i] * grad_true[i]
            if grad_first is not None:
                factor = factor - (grad_first[i] @ p.flatten(1)).view_as(factor)
            if grad_second is not None:
                slope = 2 * grad_second[i, :, None, None]
                factor = factor - (p.square() * slope).sum(0)
            at_label = true[i] * (factor if grad_true is None else factor + grad_true[i])
            if grad_entropy is not None:
                at_label -= grad_entropy[i]
            if grad_first is not None:
                factor = grad_first[i, :, None, None] + factor
            if grad_second is not None:
                factor = torch.addcmul(factor, p, slope)
            p.mul_(factor)
            p.scatter_(0, labels[i : i + 1], torch.where(valid[i], at_label, 0).unsqueeze(0))
        return wrong, None, None, None, None, None


def _probabilities(
    logits: Tensor, labels: Tensor, valid: Tensor, entropy: bool, first: bool, second: bool
) -> tuple[Tensor, tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]]:
    """Softmax with zeros at void and, for sums over regions, at the labels; the four quantities."""
    on_cpu = logits.device.type == "cpu"
    p = logits.new_empty(logits.shape)
    true = logits.new_empty(labels.shape)
    cross_entropy = logits.new_empty(labels.shape) if entropy and not on_cpu else None
    sums, squares = (logits.new_empty(logits.shape[:2]) if wanted else None for wanted in (first, second))
    masked = not on_cpu or not bool(valid.all())
    step = 1 if on_cpu else len(logits)  # image by image what a cache may hold
    for start in range(0, len(logits), step):
        at = slice(start, start + step)
        part, own = p[at], labels[at].unsqueeze(1)
        if on_cpu:
            torch.softmax(logits[at], 1, out=part)
        else:
            torch.log_softmax(logits[at], 1, out=part)
            if cross_entropy is not None:
                cross_entropy[at] = -part.gather(1, own).squeeze(1)
            part.exp_()
        true[at] = part.gather(1, own).squeeze(1)
        if masked:
            part.mul_(valid[at].unsqueeze(1))
        if first or second:
            part.scatter_(1, own, 0)
        if sums is not None:
            sums[at] = part.sum((2, 3))
        if squares is not None:
            squares[at] = torch.linalg.vector_norm(part, dim=(2, 3)).square_()
    if on_cpu and entropy:
        cross_entropy = -true.log()
        lost = true < 1e-30  # underflow: take these few from the logits
        if lost.any():
            columns = logits.movedim(1, -1)[lost]
            cross_entropy[lost] = F.cross_entropy(columns, labels[lost], reduction="none")
    return p, (true, cross_entropy, sums, squares)
