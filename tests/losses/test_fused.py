"""The Triton kernels: interpreted they give what the plain statistics give, and they compile for GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segtrail.losses import statistics

triton = pytest.importorskip("triton", reason="Triton comes with torch on Linux")
compiler = pytest.importorskip("triton.compiler")
backends = pytest.importorskip("triton.backends.compiler")
fused = pytest.importorskip("segtrail.losses.fused")

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
    with torch.inference_mode():
        assert statistics._on_gpu(torch.device("cpu")) is fused.FusedStatistics
    for size in SHAPES:
        for dtype in (torch.float32, torch.float64):
            for flags in FLAGS:
                both = (
                    outputs_and_gradient(function, size, dtype, flags)
                    for function in (fused.FusedStatistics, statistics._SoftmaxStatistics)
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


@pytest.mark.parametrize(("capability", "dtype"), [(75, "fp32"), (80, "fp64"), (90, "fp32")])
def test_kernels_compile_for_gpus(capability: int, dtype: str, tmp_path: Path) -> None:
    target = backends.GPUTarget("cuda", capability, 32)
    types = {"labels": "*i64", "valid": "*i1", "pixels": "i32", "classes": "i32"}
    sizes = {"rows": 32, "columns": 128}
    for kernel, quantities in (
        (fused._forward, {"first": ["true", "sums"], "second": ["squares"]}),
        (
            fused._backward,
            {f"has_{name}": [f"grad_{name}"] for name in ("entropy", "true", "first", "second")},
        ),
    ):
        for given in (True, False):
            absent = [name for names in quantities.values() for name in names if not given]
            constants = {**sizes, **dict.fromkeys(quantities, given), **dict.fromkeys(absent)}
            signature = {
                name: "constexpr" if name in constants else types.get(name, f"*{dtype}")
                for name in kernel.arg_names
            }
            positions = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
            with triton.knobs.cache.scope():
                triton.knobs.cache.dir = str(tmp_path)
                source = compiler.ASTSource(fn=kernel, signature=signature, constexprs=positions)
                assert triton.compile(source, target=target).asm["cubin"]


def test_a_gpu_without_triton_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(fused.FusedStatistics, "apply", broken)
    statistics._on_gpu.cache_clear()
    with pytest.warns(UserWarning, match=r"do not run on cpu \(Failed to find C compiler\)"):
        assert statistics._on_gpu(torch.device("cpu")) is statistics._SoftmaxStatistics
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert statistics._on_gpu(torch.device("cpu")) is statistics._SoftmaxStatistics
    statistics._on_gpu.cache_clear()


if __name__ == "__main__":
    compare()
