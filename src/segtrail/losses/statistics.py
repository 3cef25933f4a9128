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
        wrong, true, cross_entropy = _probabilities(logits, labels, valid, entropy, ctx.regions)
        ctx.save_for_backward(logits, labels, valid, true)
        ctx.wrong = wrong if ctx.needs_input_grad[0] else None
        return (
            true,
            cross_entropy,
            wrong.sum((2, 3)) if first else None,
            torch.linalg.vector_norm(wrong, dim=(2, 3)).square_() if second else None,
        )

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
            wrong = _probabilities(logits, labels, valid, False, ctx.regions)[0]
        # With t = d loss / dp: dx_j = p_j (t_j - <p, t>), and p_j - [j = y] for the cross-entropy.
        slope = None if grad_second is None else 2 * grad_second[:, :, None, None]
        shift = torch.zeros_like(true) if grad_entropy is None else grad_entropy
        at_label = None if grad_entropy is None else (true - 1) * grad_entropy
        inner = None
        if grad_true is not None:
            inner = true * grad_true
        if grad_first is not None:
            inner = _plus(inner, torch.bmm(grad_first.unsqueeze(1), wrong.flatten(2)).view_as(true))
        if slope is not None:
            squares = [(w.square() * s).sum(0) for w, s in zip(wrong, slope, strict=True)]
            inner = _plus(inner, torch.stack(squares))
        if inner is not None:
            shift = shift - inner
            at_label = _plus(at_label, true * (-inner if grad_true is None else grad_true - inner))
        for image, part in enumerate(wrong):  # temporaries of one image
            factor = shift[image]
            if grad_first is not None:
                factor = grad_first[image, :, None, None] + factor
            if slope is not None:
                factor = torch.addcmul(factor, part, slope[image])
            part.mul_(factor)
        if at_label is not None:
            wrong.scatter_(1, labels.unsqueeze(1), torch.where(valid, at_label, 0).unsqueeze(1))
        return wrong, None, None, None, None, None


def _plus(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first + second


def _probabilities(
    logits: Tensor, labels: Tensor, valid: Tensor, entropy: bool, regions: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Softmax with zeros at void and, for regions, at the labels; p_y; cross-entropy if asked for."""
    cross_entropy, own = None, labels.unsqueeze(1)
    if logits.device.type == "cpu":
        p = logits.softmax(1).contiguous()
        true = p.gather(1, own).squeeze(1)
        if entropy:
            cross_entropy = -true.log()
            lost = true < 1e-30  # underflow: take these few from the logits
            if lost.any():
                columns = logits.movedim(1, -1)[lost]
                cross_entropy[lost] = F.cross_entropy(columns, labels[lost], reduction="none")
        masked = not bool(valid.all())
    else:
        p = logits.log_softmax(1).contiguous()
        if entropy:
            cross_entropy = -p.gather(1, own).squeeze(1)
        p.exp_()
        true = p.gather(1, own).squeeze(1)
        masked = True
    if masked:
        p.mul_(valid.unsqueeze(1))
    if regions:
        p.scatter_(1, own, 0)
    return p, true, cross_entropy
