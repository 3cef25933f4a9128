"""What most losses need to know of the probabilities, in one pass and with one gradient.

With p the softmax, y the labels, and every sum over the valid pixels of an image, these are: p_y at
every pixel, its cross-entropy, and for each class c the sums of p_c and p_c^2 over the pixels that are
not of the class. No tensor of the logits' size is made but the softmax, which becomes the gradient; on a
GPU that Triton compiles for, :mod:`segtrail.losses.fused` makes nothing but the gradient.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segtrail.losses.base import Loss

# numbers of a tensor that the CPU works on at a time
BLOCK = 2**21
# exponentials that are not this small are exact, and so are their sums and quotients
LOWEST = 1e-15

# the first four of the Statistics
Quantities = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, slots=True)
class Statistics:
    """The module's quantities for a batch; those that no loss asked for are None.

    Attributes:
        cross_entropy: -log p_y, of the labels' shape; 0 at void pixels.
        true_probability: p_y, of the labels' shape; 1 at void pixels; given with either sum.
        false_positives: sums of p_c over the pixels not of class c, (B, C).
        false_squares: the same of p_c^2.
        logits, labels, valid: as in :meth:`segtrail.losses.base.Loss.compute`.
    """

    cross_entropy: Tensor | None
    true_probability: Tensor | None
    false_positives: Tensor | None
    false_squares: Tensor | None
    logits: Tensor
    labels: Tensor
    valid: Tensor

    @property
    def independent(self) -> bool:
        """True if every channel is a binary problem of its own."""
        return self.labels.ndim == 4

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the valid pixels, 0 if there are none, of values that are 0 at void pixels."""
        return values.sum() / self.valid.sum().clamp(min=1)

    def by_label(self, values: Tensor) -> Tensor:
        """Sums over each class's pixels, (B, C), of values at the pixels that are 0 at void pixels."""
        if self.independent:
            return (values * self.labels).sum((2, 3))
        # every row has accumulators of its own: exact for many pixels, little contention on a GPU
        rows = values.new_zeros(*values.shape[:-1], self.logits.shape[1])
        return rows.scatter_add(-1, self.labels, values).sum(1)

    def labelled(self) -> Tensor:
        """Number of valid pixels of each class, (B, C)."""
        return self.by_label(self.valid.to(self.logits.dtype))

    def pixels(self) -> Tensor:
        """Number of valid pixels of each image, (B, 1), or of each image's channels, (B, C)."""
        count = self.valid.flatten(2 if self.independent else 1).sum(-1).to(self.logits.dtype)
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
) -> Quantities:
    toward_label = torch.where(valid, torch.where(labels == 1, logits, -logits), torch.inf)
    wrong = torch.where((labels == 0) & valid, (-toward_label).sigmoid(), 0)
    return (
        -F.logsigmoid(toward_label) if entropy else None,
        toward_label.sigmoid() if first or second else None,
        wrong.sum((2, 3)) if first else None,
        wrong.square().sum((2, 3)) if second else None,
    )


@torch.compiler.disable
def _by_softmax(
    logits: Tensor, labels: Tensor, valid: Tensor, entropy: bool, first: bool, second: bool
) -> Quantities:
    function = _on_gpu(logits.device) if logits.is_cuda else _SoftmaxStatistics
    return function.apply(logits, labels, valid, entropy, first, second)


@functools.cache
def _on_gpu(device: torch.device) -> type[torch.autograd.Function]:
    """The fused kernels if they run there: Triton may be missing, or lack the C compiler that some need."""
    try:
        from segtrail.losses.fused import FusedStatistics

        with torch.inference_mode(False), torch.enable_grad():  # validation may come first
            logits = torch.zeros(1, 2, 1, 1, device=device, requires_grad=True)
            labels = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
            FusedStatistics.apply(logits, labels, labels == 0, True, True, True)[0].sum().backward()
    except Exception as error:
        warnings.warn(
            f"Triton's kernels do not run on {device} ({error}); losses take PyTorch's, slower and with more "
            "memory",
            stacklevel=2,
        )
        return _SoftmaxStatistics
    return FusedStatistics


class _SoftmaxStatistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor, entropy: bool, first: bool, second: bool
    ) -> Quantities:
        ctx.set_materialize_grads(False)
        ctx.regions = first or second
        p = torch.empty_like(logits, memory_format=torch.contiguous_format)
        cross_entropy, total = logits.new_empty(labels.shape), logits.new_empty(labels.shape)
        true = logits.new_empty(labels.shape) if ctx.regions else None
        sums, squares = (logits.new_zeros(logits.shape[:2]) if wanted else None for wanted in (first, second))
        # no pass for void where there is none
        mask = None if valid.device.type == "cpu" and bool(valid.all()) else valid
        for x, label, known, part, loss, scale, probability, image in blocks(
            logits, labels, mask, p, cross_entropy, total, true
        ):
            _exponentials(x, label, part, scale, loss)
            if known is not None:
                loss.masked_fill_(~known, 0)
            if probability is not None:
                torch.neg(loss, out=probability).exp_()
                _of_others(part, label, scale, known)
            if sums is not None:
                sums[image] += part.sum(2)
            if squares is not None:
                squares[image] += torch.linalg.vector_norm(part, dim=2).square_()
        ctx.save_for_backward(logits, labels, mask, cross_entropy, total)
        ctx.p = p if ctx.needs_input_grad[0] else None
        return cross_entropy if entropy else None, true, sums, squares

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_entropy: Tensor | None,
        grad_true: Tensor | None,
        grad_first: Tensor | None,
        grad_second: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        logits, labels, valid, cross_entropy, total = ctx.saved_tensors
        # The softmax is turned into the gradient in place; whoever comes twice pays for another softmax.
        gradient, ctx.p = ctx.p, None
        again = gradient is None
        if again:
            gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        # With t = d loss / dp: dx_j = p_j (t_j - <p, t>), and p_j - [j = y] for the cross-entropy.
        for x, label, known, p, loss, scale, of_entropy, of_true, image in blocks(
            logits, labels, valid, gradient, cross_entropy, total, grad_entropy, grad_true
        ):
            if again:
                scale = torch.empty_like(loss)
                _exponentials(x, label, p, scale, torch.empty_like(loss))
                if ctx.regions:
                    _of_others(p, label, scale, known)
            own = loss.neg().exp_()
            factor = torch.zeros_like(own) if of_entropy is None else of_entropy
            if of_true is not None:
                factor = factor - own * of_true
            if grad_first is not None:
                factor = factor - (grad_first[image].unsqueeze(1) @ p).squeeze(1)
            if grad_second is not None:
                slope, squares = 2 * grad_second[image], p.square()
                factor = factor - (slope.unsqueeze(1) @ squares).squeeze(1)
            at_label = own * (factor if of_true is None else factor + of_true)
            if of_entropy is not None:
                at_label -= of_entropy
            if not ctx.regions:
                factor = factor / scale
            if known is not None:
                at_label = torch.where(known, at_label, 0)
                factor = torch.where(known, factor, 0)
            factor = factor.unsqueeze(1)
            if grad_first is not None:
                factor = grad_first[image].unsqueeze(2) + factor
            p.mul_(factor)
            if grad_second is not None:
                p.addcmul_(squares, slope.unsqueeze(2))
            p.scatter_(1, label.unsqueeze(1), at_label.unsqueeze(1))
        return gradient, None, None, None, None, None


def _exponentials(x: Tensor, label: Tensor, out: Tensor, total: Tensor, entropy: Tensor) -> None:
    """Writes exponentials of the logits, their sum over the classes, and -log p_y.

    On a CPU first without the pixels' maxima taken off, two passes less: with logits of the usual size
    no number leaves float32's range.
    """
    label = label.unsqueeze(1)
    if x.device.type == "cpu":
        torch.exp(x, out=out)
        torch.sum(out, 1, out=total)
        own = out.gather(1, label).squeeze(1)
        if float(own.min()) > LOWEST and float(total.max()) < 1 / LOWEST:
            torch.div(total, own, out=entropy).log_()
            return
    torch.sub(x, x.amax(1, keepdim=True), out=out)
    own = out.gather(1, label).squeeze(1)
    torch.sum(out.exp_(), 1, out=total)
    torch.sub(total.log(), own, out=entropy)


def _of_others(exponentials: Tensor, label: Tensor, total: Tensor, valid: Tensor | None) -> None:
    """Turns the exponentials into p_c, or 0 at void pixels and where c is the label."""
    scale = total.reciprocal() if valid is None else torch.where(valid, total.reciprocal(), 0)
    exponentials.mul_(scale.unsqueeze(1))
    # a tensor of zeros: three times as fast as the number 0
    exponentials.scatter_(1, label.unsqueeze(1), torch.zeros_like(scale).unsqueeze(1))


def blocks(*tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Views of tensors of (B, C, H, W) and (B, H, W), a block at a time, (b, C, n) and (b, n), and the slice
    of images: some images, or some of one's pixels, so that the first tensor's blocks stay in a CPU's cache.
    Elsewhere there is one block."""
    flat = [None if x is None else x.flatten(-2) for x in tensors]
    first = flat[0]
    assert first is not None
    if first.device.type != "cpu":
        yield *flat, slice(None)
        return
    pixels, numbers = first.shape[-1], first[:1].numel()
    step = max(1, -(-pixels // max(1, round(numbers / BLOCK))))
    images = max(1, BLOCK // max(1, numbers))
    for image in range(0, len(first), images):
        at = slice(image, image + images)
        for start in range(0, pixels, step):
            yield *(None if x is None else x[at, ..., start : start + step] for x in flat), at
