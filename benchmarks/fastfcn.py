"""FastFCN against the dilated encoder that it replaces: time, MACs and peak memory of one forward pass.

    python benchmarks/fastfcn.py              # ResNet-50 and -101, four heads, 512 x 512
    python benchmarks/fastfcn.py --quick      # a smoke run

Both networks have the same encoder and head, random weights and channels_last memory, and run in turn
in one process; times are medians after a warm-up: on a GPU wall time, on a CPU the process's CPU time on
one thread, which other programs on the machine disturb less. MACs are counted with the auxiliary head, as
published. "of MACs" is the ratio of the times over the ratio of the MACs that were run: 1 means that time
follows work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from segtrail.inference.model_table import count_macs
from segtrail.models.fastfcn import FastFCN

# GMACs at 512 x 512 with 59 classes: dilated, JPU
PUBLISHED = {
    ("50", "fcn"): (155, 100),
    ("50", "psp"): (194, 138),
    ("50", "aspp"): (180, 125),
    ("101", "fcn"): (233, 119),
    ("101", "psp"): (272, 158),
    ("101", "aspp"): (258, 144),
}


def measure(
    runs: list[Callable[[], object]], device: torch.device, warm_up: float, repeats: int
) -> list[float]:
    """Median seconds of each function, run in turn."""

    clock = time.perf_counter if device.type == "cuda" else time.process_time

    def timed(run: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    end = time.perf_counter() + warm_up
    for run in runs:
        timed(run)
    while time.perf_counter() < end:
        for run in runs:
            timed(run)
    times = [[timed(run) for run in runs] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def peak_megabytes(run: Callable[[], object], device: torch.device) -> float:
    """Peak memory of one run above what was held before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():  # elsewhere than on Linux the peak of the process cannot be reset
        return float("nan")
    reset.write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="64 x 64, ResNet-50 only, no warm-up")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds a pair")
    parser.add_argument("--depths", nargs="+", default=["50", "101"])
    parser.add_argument("--heads", nargs="+", default=["fcn", "psp", "aspp", "encnet"])
    parser.add_argument("--half", action="store_true", help="float16 autocast, on a GPU")
    options = parser.parse_args()
    if options.quick:
        options.size, options.repeats, options.warm_up, options.depths = 64, 1, 0.0, ["50"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread, CPU time"
    print(f"{name}; {options.batch} x 3 x {options.size} x {options.size}; dilated -> JPU")
    print(
        f"{'network':<14}{'GMAC':>16}{'published':>14}{'ratio':>7}{'ms':>18}{'ratio':>7}"
        f"{'of MACs':>9}{'peak MiB':>16}"
    )
    for depth in options.depths:
        for head in options.heads:
            row(depth, head, device, options)


def row(depth: str, head: str, device: torch.device, options: argparse.Namespace) -> None:
    models = [
        FastFCN(59, head, f"tu-resnet{depth}s", upsampling=upsampling, ignore_index=-1)
        for upsampling in ("none", "jpu")
    ]
    published = [count_macs(model.train(), options.size) / 1e9 for model in models]
    run_macs = [count_macs(model.eval(), options.size) / 1e9 for model in models]
    models = [model.to(device, memory_format=torch.channels_last) for model in models]
    image = torch.randn(options.batch, 3, options.size, options.size, device=device)
    image = image.contiguous(memory_format=torch.channels_last)

    def runner(model: nn.Module) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=options.half):
                return model(image)

        return run

    runs = [runner(model) for model in models]
    seconds = measure(runs, device, options.warm_up, options.repeats)
    peaks = [peak_megabytes(run, device) for run in runs]
    speed = seconds[0] / seconds[1]
    work = run_macs[0] / run_macs[1]
    known = PUBLISHED.get((depth, head)) if options.size == 512 else None
    print(
        f"{head + '-R' + depth:<14}{published[0]:>8.1f}{published[1]:>8.1f}"
        f"{f'{known[0]} -> {known[1]}' if known else '-':>14}{published[0] / published[1]:>7.2f}"
        f"{1e3 * seconds[0]:>9.1f}{1e3 * seconds[1]:>9.1f}{speed:>7.2f}{speed / work:>9.2f}"
        f"{peaks[0]:>8.0f}{peaks[1]:>8.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
