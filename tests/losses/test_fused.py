"""The Triton kernels, interpreted on the CPU, give what the plain statistics give."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch import Tensor

from segtrail.losses import statistics

FLAGS = ((True, False, False), (False, True, False), (False, False, True), (True, True, True))
# classes, rounded up or not, one program or many, a last program that is not full
SHAPES = ((1, 2, 3, 5), (2, 5, 7, 13), (2, 21, 30, 11))


def outputs_and_gradient(
    function: type[torch.autograd.Function],
    size: tuple[int, ...],
    dtype: torch.dtype,
    flags: tuple[bool, ...],
) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(sum(size))
    images, classes, *sides = size
    logits = 4 * torch.randn(size, generator=generator, dtype=dtype)
    valid = torch.rand(images, *sides, generator=generator) > 0.2
    labels = torch.randint(0, classes, (images, *sides), generator=generator)
    logits[0, :, 0, 0] = torch.linspace(-1e4, 1e4, classes)
    leaf = logits.requires_grad_()
    found = function.apply(leaf, torch.where(valid, labels, 0), valid, *flags)
    terms = [
        (value * torch.randn(value.shape, generator=generator, dtype=dtype)).sum()
        for value in found
        if value is not None
    ]
    torch.stack(terms).sum().backward()
    return [*found, leaf.grad]


def compare() -> None:
    from segtrail.losses.fused import FusedStatistics

    for size in SHAPES:
        for dtype in (torch.float32, torch.float64):
            for flags in FLAGS:
                both = (
                    outputs_and_gradient(function, size, dtype, flags)
                    for function in (FusedStatistics, statistics._SoftmaxStatistics)
                )
                for ours, wanted in zip(*both, strict=True):
                    assert (ours is None) == (wanted is None)
                    if ours is not None and wanted is not None:
                        tight = dtype == torch.float64
                        torch.testing.assert_close(
                            ours, wanted, rtol=1e-9 if tight else 1e-5, atol=1e-10 if tight else 1e-5
                        )


def test_interpreted_kernels_agree_with_the_plain_statistics() -> None:
    # a process of its own: Triton chooses between compiling and interpreting when it is imported
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-m", "tests.losses.test_fused"], env=environment, check=True)


if __name__ == "__main__":
    compare()
