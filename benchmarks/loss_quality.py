"""What every loss learns on the embedded dataset in the same budget, and what an epoch with it costs.

python benchmarks/loss_quality.py                       mIoU of every loss, beside cross-entropy's
python benchmarks/loss_quality.py --losses dice focal   of some
python benchmarks/loss_quality.py --epoch-time          epochs with maps made in workers, beside dice
python benchmarks/loss_quality.py --quick               a smoke test
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path

import torch

import segtrail

BUDGET = [
    "dataset=earth",
    "model=unet",
    "model.encoder_depth=3",
    "model.decoder_channels=[64,32,16]",
    "augmentation=basic",
    "optimizer.lr=2e-3",
    "trainer=cpu",
    "tracker=none",
    "callbacks=none",
    "trainer.enable_checkpointing=false",
    "trainer.enable_progress_bar=false",
    "loader.batch_size=8",
]
TIMED = ("dice", "boundary", "hausdorff")


def experiment(loss: str, *overrides: str) -> segtrail.Experiment:
    torch.manual_seed(0)
    return segtrail.build(segtrail.compose([f"loss={loss}", *BUDGET, *overrides]))


def trained(loss: str, epochs: int) -> tuple[float, float]:
    """mIoU on the validation split in percent, and seconds of CPU time."""
    start = time.process_time()
    parts = experiment(
        loss,
        f"trainer.max_epochs={epochs}",
        f"trainer.check_val_every_n_epoch={epochs}",
        "loader.num_workers=0",
    )
    parts.trainer.fit(parts.module, parts.datamodule)
    return 100 * parts.trainer.callback_metrics["val/mIoU"].item(), time.process_time() - start


def quality(losses: list[str], epochs: int) -> None:
    print(f"{epochs} epochs of {' '.join(BUDGET)}\n")
    print(f"| {'loss':24s} | val mIoU | to cross-entropy | CPU s |\n|---|---|---|---|", flush=True)
    reference = None
    for loss in ["cross_entropy", *(name for name in losses if name != "cross_entropy")]:
        score, seconds = trained(loss, epochs)
        reference = score if reference is None else reference
        print(f"| {loss:24s} | {score:8.1f} | {score - reference:+16.1f} | {seconds:5.0f} |", flush=True)


def epoch_seconds(parts: segtrail.Experiment, optimizer: torch.optim.Optimizer, steps: int | None) -> float:
    start = time.perf_counter()
    for index, batch in enumerate(parts.datamodule.train_dataloader()):
        if index == steps:
            break
        batch = parts.module.on_after_batch_transfer(batch, 0)
        terms = parts.module.losses(parts.module(batch), batch)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    return time.perf_counter() - start


def epoch_time(rounds: int, steps: int | None) -> None:
    """Interleaved epochs on two cores: one worker beside the training process."""
    runs = {}
    for loss in TIMED:
        parts = experiment(loss, "loader.num_workers=1")
        parts.datamodule.setup("fit")
        runs[loss] = parts, torch.optim.AdamW(parts.module.parameters())
    seconds: dict[str, list[float]] = {loss: [] for loss in TIMED}
    for round_ in range(rounds + 1):
        turn = round_ % len(TIMED)  # nobody always comes after the same one
        for loss in TIMED[turn:] + TIMED[:turn]:
            taken = epoch_seconds(*runs[loss], steps)
            if round_:  # the first warms up
                seconds[loss].append(taken)
    print("| loss | s an epoch | ratio to dice |\n|---|---|---|")
    for loss in TIMED:
        ratios = [a / b for a, b in zip(seconds[loss], seconds["dice"], strict=True)]
        print(f"| {loss} | {statistics.median(seconds[loss]):.2f} | {statistics.median(ratios):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    conf = Path(__file__).parents[1] / "conf" / "loss"
    parser.add_argument("--losses", nargs="+", default=sorted(path.stem for path in conf.glob("*.yaml")))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epoch-time", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if options.epoch_time:
        epoch_time(1 if options.quick else options.rounds, 2 if options.quick else None)
    elif options.quick:
        quality(["dice"], 1)
    else:
        quality(options.losses, options.epochs)


if __name__ == "__main__":
    main()
