"""Cost of the framework: `python benchmarks/step.py [--quick] [OVERRIDE...]`.

Trains the same model on the same data in two ways in one process, epoch by epoch in turn: a bare PyTorch
loop, and segtrail with all default callbacks and the Neptune tracker on. Both train and validate; the
bare loop logs, draws, saves and records nothing. Prints ms per training step of whole epochs.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

import segtrail
from segtrail.metrics.confusion import confusion_per_image


class BareLoop:
    """The peer: what one writes by hand with PyTorch alone."""

    def __init__(self, experiment: segtrail.Experiment) -> None:
        module = experiment.module
        self.model = copy.deepcopy(module.model)
        self.normalize = module.normalize
        self.ignore_index = module.ignore_index
        self.num_classes = len(module.class_names)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.train_loader = experiment.datamodule.train_dataloader()
        self.val_loader = experiment.datamodule.val_dataloader()

    def epoch(self, number: int) -> float:
        """Trains and validates one epoch; returns its seconds."""
        started = time.perf_counter()
        self.model.train()
        self.train_loader.sampler.set_epoch(number)
        for batch in self.train_loader:
            logits = self.model(self.normalize(batch["image"])).logits
            loss = F.cross_entropy(logits, batch["mask"].long(), ignore_index=self.ignore_index)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.model.eval()
        total = torch.zeros(self.num_classes, self.num_classes)
        with torch.no_grad():
            for batch in self.val_loader:
                logits = self.model(self.normalize(batch["image"])).logits
                target = batch["mask"].long()
                F.cross_entropy(logits, target, ignore_index=self.ignore_index)
                total += confusion_per_image(
                    logits.argmax(1), target, self.num_classes, self.ignore_index
                ).sum(0)
        return time.perf_counter() - started


class Interleave(pl.Callback):
    """Runs an epoch of the bare loop before each of the trainer's, and times both."""

    def __init__(self) -> None:
        self.bare: list[float] = []
        self.framework: list[float] = []
        self._loop: BareLoop | None = None
        self._started = 0.0

    def start(self, loop: BareLoop) -> None:
        self._loop = loop

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish()
        assert self._loop is not None
        self.bare.append(self._loop.epoch(trainer.current_epoch))
        self._started = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish()

    def _finish(self) -> None:
        if self._started:
            self.framework.append(time.perf_counter() - self._started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data and two epochs: does it run?")
    arguments, overrides = parser.parse_known_args()
    epochs = 2 if arguments.quick else 7
    small = ["dataset=shapes", "dataset.num_samples=16", "dataset.size=32", "loader.batch_size=4"]
    with tempfile.TemporaryDirectory() as folder:
        config = segtrail.compose(
            [
                f"run_dir={folder}",
                "loss=cross_entropy",
                "augmentation=basic",
                "loader.num_workers=0",
                f"trainer.max_epochs={epochs}",
                "scheduler=constant",
                *(small if arguments.quick else []),
                *overrides,
            ]
        )
        pl.seed_everything(0, verbose=False)
        experiment = segtrail.build(config)
        interleave = Interleave()
        interleave.start(BareLoop(experiment))
        trainer = experiment.trainer
        trainer.callbacks.insert(0, interleave)
        trainer.fit(experiment.module, datamodule=experiment.datamodule)
        steps = trainer.num_training_batches
    # the first epoch of each warms up threads and allocator
    bare = [1000 * seconds / steps for seconds in interleave.bare[1:]]
    framework = [1000 * seconds / steps for seconds in interleave.framework[1:]]
    report("bare PyTorch loop", bare)
    report("segtrail, all defaults on", framework)
    ratios = [b / f for b, f in zip(bare, framework, strict=True)]
    print(f"bare / segtrail: median of epochs {statistics.median(ratios):.3f} (1 means no overhead)")
    return 0


def report(name: str, values: list[Any]) -> None:
    print(
        f"{name:<28} {statistics.median(values):8.1f} ms/step (min {min(values):.1f}, max {max(values):.1f})"
    )


if __name__ == "__main__":
    sys.exit(main())
