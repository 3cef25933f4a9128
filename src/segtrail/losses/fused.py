"""The statistics of :mod:`segtrail.losses.statistics` by two Triton kernels, on a GPU.

The forward kernel reads the logits once and keeps a number a pixel, the backward kernel reads them again
and writes the gradient: no tensor of the logits' size is made but that one.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# numbers that a program holds, classes times pixels
TILE = 4096


class FusedStatistics(torch.autograd.Function):
    """-log p_y, p_y, and the sums of p_c and p_c^2 over the valid pixels of other classes, as asked for.

    Logits (B, C, H, W) float32 or float64, labels (B, H, W) int64 and 0 at void, valid (B, H, W) bool; the
    results are two of (B, H, W), with 0 and 1 at void, and two of (B, C). None stands for what is not asked
    for; p_y comes with either sum.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor, entropy: bool, first: bool, second: bool
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        logits, labels, valid = logits.contiguous(), labels.contiguous(), valid.contiguous()
        images, classes = logits.shape[:2]
        grid, tile = _tiles(labels, classes)
        cross_entropy = logits.new_empty(labels.shape)
        true = logits.new_empty(labels.shape) if first or second else None
        # a row for every program, summed afterwards: no atomic additions, the same result every time
        sums, squares = (
            logits.new_empty(images, grid[0], classes) if wanted else None for wanted in (first, second)
        )
        with torch.cuda.device_of(logits):
            _forward[grid](
                *(logits, labels, valid, cross_entropy, true, sums, squares),
                *(labels[0].numel(), classes, *tile, first, second),
            )
        ctx.save_for_backward(logits, labels, valid)
        return (
            cross_entropy if entropy else None,
            true,
            None if sums is None else sums.sum(1),
            None if squares is None else squares.sum(1),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, labels, valid = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        grid, tile = _tiles(labels, logits.shape[1])
        given = [None if grad is None else grad.contiguous() for grad in grads]
        with torch.cuda.device_of(logits):
            _backward[grid](
                *(logits, labels, valid, *given, gradient),
                *(labels[0].numel(), logits.shape[1], *tile, *(grad is not None for grad in given)),
            )
        return gradient, None, None, None, None, None


def _tiles(labels: Tensor, classes: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Programs an image and images; rows (classes, rounded up) and columns (pixels) of a program."""
    rows = triton.next_power_of_2(classes)
    columns = max(16, TILE // rows)
    return (triton.cdiv(labels[0].numel(), columns), len(labels)), (rows, columns)


@triton.jit
def _load(logits, labels, valid, image, pixels, classes, rows: tl.constexpr, columns: tl.constexpr):
    """A tile of logits, where its label and its valid numbers are, and the offsets and masks of both."""
    row = tl.arange(0, rows)
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    inside = column < pixels
    there = (row < classes)[:, None] & inside[None, :]
    at_pixel = image * pixels + column
    at = (image * classes + row)[:, None] * pixels + column[None, :]
    x = tl.load(logits + at, mask=there, other=float("-inf"))
    known = tl.load(valid + at_pixel, mask=inside, other=0) != 0
    own = row[:, None] == tl.load(labels + at_pixel, mask=inside, other=0)[None, :]
    return x, known, own, at, there, at_pixel, inside


@triton.jit
def _powers(x, inside):
    """Highest logit of each pixel, the exponentials below it, and their sum."""
    x = tl.where(inside[None, :], x, 0.0)
    highest = tl.max(x, 0)
    power = tl.exp(x - highest[None, :])
    return highest, power, tl.sum(power, 0)


@triton.jit
def _forward(
    logits,
    labels,
    valid,
    entropy,
    true,
    sums,
    squares,
    pixels,
    classes,
    rows: tl.constexpr,
    columns: tl.constexpr,
    first: tl.constexpr,
    second: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    x, known, own, _, _, at_pixel, inside = _load(
        logits, labels, valid, image, pixels, classes, rows, columns
    )
    highest, power, total = _powers(x, inside)
    minus_log = tl.log(total) - (tl.sum(tl.where(own, x, 0.0), 0) - highest)
    tl.store(entropy + at_pixel, tl.where(known, minus_log, 0.0), mask=inside)
    if first or second:
        tl.store(true + at_pixel, tl.where(known, tl.exp(-minus_log), 1.0), mask=inside)
        wrong = tl.where(own | (known == 0)[None, :], 0.0, power / total[None, :])
        row = tl.arange(0, rows)
        out = (image * tl.num_programs(0) + tl.program_id(0)) * classes + row
        if first:
            tl.store(sums + out, tl.sum(wrong, 1), mask=row < classes)
        if second:
            tl.store(squares + out, tl.sum(wrong * wrong, 1), mask=row < classes)


@triton.jit
def _backward(
    logits,
    labels,
    valid,
    grad_entropy,
    grad_true,
    grad_first,
    grad_second,
    gradient,
    pixels,
    classes,
    rows: tl.constexpr,
    columns: tl.constexpr,
    has_entropy: tl.constexpr,
    has_true: tl.constexpr,
    has_first: tl.constexpr,
    has_second: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    x, known, own, at, there, at_pixel, inside = _load(
        logits, labels, valid, image, pixels, classes, rows, columns
    )
    _, power, total = _powers(x, inside)
    p = power / total[None, :]
    row = tl.arange(0, rows)
    # with t = d loss / dp: dx_j = p_j (t_j - <p, t>), and p_j - [j = y] for the cross-entropy
    slope = tl.zeros_like(x)
    if has_first:
        weight = tl.load(grad_first + image * classes + row, mask=row < classes, other=0.0)
        slope += weight[:, None]
    if has_second:
        weight = tl.load(grad_second + image * classes + row, mask=row < classes, other=0.0)
        slope += 2 * weight[:, None] * p
    at_label = tl.zeros_like(x)
    if has_true:
        at_label += tl.load(grad_true + at_pixel, mask=inside, other=0.0)[None, :]
    slope = tl.where(own, at_label, slope)
    result = p * (slope - tl.sum(p * slope, 0)[None, :])
    if has_entropy:
        factor = tl.load(grad_entropy + at_pixel, mask=inside, other=0.0)
        result += factor[None, :] * (p - tl.where(own, 1.0, 0.0))
    tl.store(gradient + at, tl.where(known[None, :], result, 0.0), mask=there)
