"""Forward and backward of each loss beside the fastest implementation elsewhere of the same definition.

    pip install -e .[bench]
    python benchmarks/losses.py                     4 x 21 x 256 x 256
    python benchmarks/losses.py --size 8 19 512 1024
    python benchmarks/losses.py --losses dice topk  some of them
    python benchmarks/losses.py --plain             malloc as it is
    python benchmarks/losses.py --quick             a smoke test

Candidates of a loss take turns after a warm-up; times are medians, and the ratio is the median of the
peer's over ours. The process keeps the memory that it frees, for all candidates alike: by default malloc
maps every tensor of more than 32 MiB anew, and smaller ones at its whim, and the page faults then take up
to half of the time, in two modes. ``--plain`` leaves malloc as it is.
``--clock cpu`` counts the process's CPU time instead: the one to trust on a machine that others use.
"memory" is the peak above the inputs of a run of its own, "value" and "gradient" the relative
differences to the peer. Peers that are not installable libraries are written here in the form that is
published: top-k as in SegLossOdyssey, which is the reference, and in a second row as in nnU-Net, which
does without the copy to the classes' last place; sensitivity-specificity as in SegLossOdyssey.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrail.losses.boundary import BoundaryLoss
from segtrail.losses.cross_entropy import CrossEntropyLoss
from segtrail.losses.dice import DiceLoss
from segtrail.losses.focal import FocalLoss
from segtrail.losses.generalized_dice import GeneralizedDiceLoss
from segtrail.losses.hausdorff import HausdorffLoss
from segtrail.losses.hausdorff_er import HausdorffERLoss
from segtrail.losses.jaccard import JaccardLoss
from segtrail.losses.lovasz import LovaszLoss
from segtrail.losses.sensitivity_specificity import SensitivitySpecificityLoss
from segtrail.losses.topk import TopKLoss
from segtrail.losses.tversky import TverskyLoss
from segtrail.losses.weighted_sum import WeightedSum

Run = Callable[[Tensor, Tensor], Tensor]
# loss -> the ratio that it should reach
WANTED = {
    "cross_entropy": 1.0,
    "dice": 1.0,
    "generalized_dice": 1.0,
    "jaccard": 1.0,
    "tversky": None,
    "ce_dice": 1.7,
    "focal": 2.0,
    "topk": 2.0,
    "topk_nnunet": None,
    "sensitivity_specificity": 2.0,
    "lovasz": 4.0,
    "boundary": 5.0,
    "hausdorff": 4.0,
    "hausdorff_er": 4.0,
}


def candidates(name: str) -> tuple[Run, dict[str, Run]]:
    """Ours, and the peers of the same definition by name."""
    import kornia.losses as kornia
    import monai.losses as monai
    import segmentation_models_pytorch.losses as smp

    soft = {"softmax": True, "to_onehot_y": True}

    def over_monai(loss: torch.nn.Module) -> Run:
        return lambda x, y: loss(x, y.unsqueeze(1))

    table: dict[str, tuple[Run, dict[str, Run]]] = {
        "cross_entropy": (CrossEntropyLoss(), {"torch": F.cross_entropy}),
        "dice": (
            DiceLoss(per_image=True),
            {
                "monai": over_monai(monai.DiceLoss(**soft)),
                "kornia": lambda x, y: kornia.dice_loss(x, y, average="macro"),
            },
        ),
        "generalized_dice": (
            GeneralizedDiceLoss(per_image=True, absent="count"),
            {"monai": over_monai(monai.GeneralizedDiceLoss(**soft))},
        ),
        "jaccard": (
            JaccardLoss(per_image=True),
            {
                "monai": over_monai(monai.DiceLoss(**soft, jaccard=True)),
                "kornia": lambda x, y: kornia.tversky_loss(x, y, 1.0, 1.0),
            },
        ),
        "tversky": (
            TverskyLoss(per_image=True),
            {
                "monai": over_monai(monai.TverskyLoss(**soft, alpha=0.3, beta=0.7)),
                "kornia": lambda x, y: kornia.tversky_loss(x, y, 0.3, 0.7),
            },
        ),
        "ce_dice": (
            WeightedSum({"cross_entropy": CrossEntropyLoss(), "dice": DiceLoss(per_image=True)}),
            {"monai": over_monai(monai.DiceCELoss(**soft))},
        ),
        "focal": (
            FocalLoss(),  # both peers divide by the number of classes too
            {
                "monai": lambda x, y: (
                    x.shape[1] * monai.FocalLoss(use_softmax=True, to_onehot_y=True)(x, y.unsqueeze(1))
                ),
                "kornia": lambda x, y: (
                    x.shape[1] * kornia.focal_loss(x, y, alpha=None, gamma=2.0, reduction="mean")
                ),
            },
        ),
        "topk": (TopKLoss(), {"SegLoss's form": topk_of_segloss}),
        "topk_nnunet": (TopKLoss(), {"nnU-Net's form": topk_of_nnunet}),
        "sensitivity_specificity": (
            SensitivitySpecificityLoss(),
            {"SegLoss's form": sensitivity_specificity_of_segloss},
        ),
        "lovasz": (LovaszLoss(), {"smp": smp.LovaszLoss("multiclass")}),
        "boundary": (
            BoundaryLoss(),
            {"monai": over_monai(monai.BoundaryLoss(**soft, include_background=True))},
        ),
        "hausdorff": (
            HausdorffLoss(),
            {"monai": over_monai(monai.HausdorffDTLoss(**soft, include_background=True))},
        ),
        "hausdorff_er": (
            HausdorffERLoss(),
            {"kornia": lambda x, y: kornia.HausdorffERLoss()(x.softmax(1), y.unsqueeze(1))},
        ),
    }
    return table[name]


def topk_of_segloss(x: Tensor, y: Tensor) -> Tensor:
    values = F.cross_entropy(x.movedim(1, -1).reshape(-1, x.shape[1]), y.reshape(-1), reduction="none")
    return values.topk(int(len(values) * 10 / 100), sorted=False).values.mean()


def topk_of_nnunet(x: Tensor, y: Tensor) -> Tensor:
    values = F.cross_entropy(x, y, reduction="none").view(-1)
    return values.topk(int(len(values) * 10 / 100), sorted=False).values.mean()


def sensitivity_specificity_of_segloss(x: Tensor, y: Tensor) -> Tensor:
    p = x.softmax(1)
    q = torch.zeros_like(p).scatter_(1, y.unsqueeze(1), 1)
    squares = (q - p) ** 2
    own = (squares * q).sum((0, 2, 3)) / (q.sum((0, 2, 3)) + 1e-5)
    others = (squares * (1 - q)).sum((0, 2, 3)) / ((1 - q).sum((0, 2, 3)) + 1e-5)
    return (0.05 * own + 0.95 * others).mean()


def batch(size: list[int], device: str) -> tuple[Tensor, Tensor]:
    """Logits and labels of blocks of 16 pixels, with logits that favor them somewhat."""
    images, classes, height, width = size
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (images, -(-height // 16), -(-width // 16)), generator=generator)
    target = target.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :height, :width].contiguous()
    logits = torch.randn(size, generator=generator)
    logits.scatter_add_(1, target.unsqueeze(1), torch.ones(images, 1, height, width))
    return logits.to(device), target.to(device)


def once(
    run: Run, logits: Tensor, target: Tensor, clock: Callable[[], float]
) -> tuple[float, Tensor, Tensor]:
    """Seconds of a forward and backward pass, the value and the gradient."""
    leaf = logits.clone().requires_grad_()
    if leaf.is_cuda:
        torch.cuda.synchronize()
    start = clock()
    value = run(leaf, target)
    value.backward()
    if leaf.is_cuda:
        torch.cuda.synchronize()
    seconds = clock() - start
    assert leaf.grad is not None
    return seconds, value.detach(), leaf.grad


def _peak(name: str, peer: str | None, size: list[int], result: multiprocessing.Queue) -> None:
    warnings.filterwarnings("ignore")
    ours, peers = candidates(name)
    run = ours if peer is None else peers[peer]
    small = [size[0], size[1], 32, 32]
    once(run, *batch(small, "cpu"), time.perf_counter)  # loads what is loaded late
    inputs = batch(size, "cpu")
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the highest memory starts anew
    before = _kibibytes("VmRSS")
    once(run, *inputs, time.perf_counter)
    result.put((_kibibytes("VmHWM") - before) / 1024)


def _kibibytes(field: str) -> int:
    """A line of this process's status, Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_memory(name: str, peer: str | None, size: list[int]) -> float:
    """MiB that a pass takes beyond its inputs, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=_peak, args=(name, peer, size, result))
    process.start()
    process.join()
    return result.get() if process.exitcode == 0 else float("nan")


def compare(name: str, options: argparse.Namespace) -> None:
    logits, target = batch(options.size, options.device)
    ours, peers = candidates(name)
    runs = {"segtrail": ours, **peers}
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    found = {key: once(run, logits, target, clock) for key, run in runs.items()}
    start = time.perf_counter()
    while time.perf_counter() - start < options.warm_up:
        for run in runs.values():
            once(run, logits, target, clock)
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    start = time.perf_counter()
    while len(seconds["segtrail"]) < options.rounds or time.perf_counter() - start < options.least:
        for key, run in runs.items():
            seconds[key].append(once(run, logits, target, clock)[0])
    median = {key: statistics.median(values) for key, values in seconds.items()}
    best = min(peers, key=lambda key: median[key])
    ratio = statistics.median(a / b for a, b in zip(seconds[best], seconds["segtrail"], strict=True))
    value = abs(found["segtrail"][1] / found[best][1] - 1).item()
    gradient = ((found["segtrail"][2] - found[best][2]).norm() / found[best][2].norm()).item()
    memory = "-"
    if options.memory:
        memory = f"{peak_memory(name, None, options.size):.0f} / {peak_memory(name, best, options.size):.0f}"
    if not options.plain and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # the next loss starts without this one's memory
    wanted = WANTED[name]
    print(
        f"| {name} | {1e3 * median['segtrail']:.1f} | {1e3 * median[best]:.1f} {best} | {ratio:.2f} "
        f"| {'-' if wanted is None else wanted} | {memory} | {value:.0e} | {gradient:.0e} |",
        flush=True,
    )


def lovasz_error(size: list[int], device: str) -> None:
    """Distance of the Lovász gradients from float64's, ours and smp's."""
    logits, target = batch(size, device)
    ours, peers = candidates("lovasz")
    truth = once(ours, logits.double(), target, time.perf_counter)[2]
    for key, run in {"segtrail": ours, **peers}.items():
        gradient = once(run, logits, target, time.perf_counter)[2].double()
        distance = (gradient - truth).norm() / truth.norm()
        print(f"Lovász gradient, relative distance to float64: {key} {distance:.1e}")


def keep_freed_memory() -> bool:
    """Lets glibc's malloc map nothing and return nothing (mallopt(3)); False where it is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt, trim_threshold, mmap_max = ctypes.CDLL(None).mallopt, -1, -4
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, nargs=4, default=[4, 21, 256, 256])
    parser.add_argument("--losses", nargs="+", default=list(WANTED), choices=list(WANTED))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--rounds", type=int, default=7, help="passes of each candidate, at least")
    parser.add_argument("--least", type=float, default=3, help="seconds of measurement a loss, at least")
    parser.add_argument("--warm-up", type=float, default=20, help="seconds before, a loss")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--plain", action="store_true", help="do not keep freed memory")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    np.seterr(all="ignore")
    if options.quick:
        options.size, options.rounds, options.least, options.warm_up = [2, 5, 64, 64], 2, 0, 0
        options.memory = False
    options.memory = options.memory and options.device == "cpu"
    kept = not options.plain and keep_freed_memory()
    size = " x ".join(map(str, options.size))
    print(
        f"{size}, {options.device}, {options.threads} threads, {options.clock} time, "
        f"{'freed memory kept' if kept else 'malloc as it is'}\n"
    )
    print("| loss | ms | best peer, ms | ratio | wanted | memory MiB, ours / peer | value | gradient |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.losses:
        compare(name, options)
    if "lovasz" in options.losses:
        print()
        lovasz_error(options.size, options.device)


if __name__ == "__main__":
    main()
