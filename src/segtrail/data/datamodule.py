"""The LightningDataModule: datasets of one config, their loaders, and the place in an epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from segtrail.data.augmentation import Augmentation
from segtrail.data.loader import Loader
from segtrail.data.pipeline import AugmentedDataset, Collate, SampleSource, single_threaded_worker
from segtrail.data.sampler import EpochSampler, EvaluationSampler
from segtrail.data.types import DataError, DerivedTarget


class SegmentationDataModule(pl.LightningDataModule):
    """Loaders of the train, val and test splits of a dataset.

    Args:
        dataset: called with ``split=`` to make the dataset of one split.
        splits: the splits that exist.
        num_classes: number of classes of the logits.
        train_transforms, eval_transforms: albumentations transforms.
        batch_size: samples a process takes in one training step.
        eval_batch_size: samples a process takes in one evaluation step; ``batch_size`` if None.
        num_workers: loader processes; "auto" is one less than the cores that this process may use.
        prefetch_factor: batches that each worker holds ready.
        seed: of order and augmentation.
        derived: targets that the model and the loss ask for, by name, for training and evaluation.
    """

    def __init__(
        self,
        dataset: Callable[..., Any],
        splits: Sequence[str],
        num_classes: int,
        train_transforms: Sequence[Any] = (),
        eval_transforms: Sequence[Any] = (),
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int | str = "auto",
        prefetch_factor: int = 4,
        seed: int = 0,
        derived: Mapping[str, DerivedTarget] | None = None,
    ) -> None:
        super().__init__()
        self.make_dataset = dataset
        self.splits = tuple(splits)
        self.num_classes = num_classes
        self.train_transforms = train_transforms
        self.eval_transforms = eval_transforms
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = available_workers() if num_workers == "auto" else int(num_workers)
        self.prefetch_factor = prefetch_factor
        self.seed = seed
        self.derived = dict(derived or {})
        self.test_split = "test"  # what the test loop evaluates; evaluate.py chooses another
        self._datasets: dict[str, SampleSource] = {}
        self._train_sampler: EpochSampler | None = None
        self._resume: tuple[int, int] | None = None

    def dataset(self, split: str) -> Any:
        """Returns the dataset of a split, made at the first call.

        Raises:
            DataError: if the dataset has no such split.
        """
        if split not in self.splits:
            raise DataError(f"the dataset has no split '{split}'; it has: {', '.join(self.splits)}")
        if split not in self._datasets:
            self._datasets[split] = self.make_dataset(split=split)
        return self._datasets[split]

    def class_counts(self) -> torch.Tensor:
        """Counts the training split's pixels by class, without augmentation; (K,) float64."""
        return torch.from_numpy(self.dataset("train").class_counts().sum(axis=0)).double()

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Shuffled and augmented; the order is a function of (seed, epoch)."""
        dataset = self.dataset("train")
        rank, world_size = _rank_and_world_size(self.trainer)
        self._train_sampler = self._sampler(dataset, rank, world_size)
        if self._resume is not None:
            self._train_sampler.resume(*self._resume)
            self._resume = None
        return self._loader(dataset, self.train_transforms, self._train_sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation split in its own order."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The split named by ``test_split`` in its own order."""
        return self.evaluation_dataloader(self.test_split)

    def evaluation_dataloader(self, split: str) -> DataLoader[dict[str, Any]]:
        """A split in its own order, each sample once over all processes."""
        dataset = self.dataset(split)
        sampler = EvaluationSampler(len(dataset), *_rank_and_world_size(self.trainer))
        return self._loader(dataset, self.eval_transforms, sampler, self.eval_batch_size)

    def _sampler(self, dataset: SampleSource, rank: int, world_size: int) -> EpochSampler:
        factors = getattr(dataset, "repeat_factors", None)
        return EpochSampler(len(dataset), self.batch_size, self.seed, rank, world_size, factors)

    def _samples(
        self, dataset: SampleSource, transforms: Sequence[Any], training: bool
    ) -> Dataset[dict[str, Any]]:
        augmentation = Augmentation(transforms)
        return AugmentedDataset(dataset, augmentation, self.num_classes, self.derived, self.seed)

    def _collate(self, dataset: SampleSource) -> Callable[[Sequence[dict[str, Any]]], dict[str, Any]]:
        return Collate(dataset.ignore_index)

    def _loader(
        self, dataset: SampleSource, transforms: Sequence[Any], sampler: Any, batch_size: int
    ) -> DataLoader[dict[str, Any]]:
        samples = self._samples(dataset, transforms, training=isinstance(sampler, EpochSampler))
        workers = min(self.num_workers, len(sampler))
        return Loader(
            samples,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=self._collate(dataset),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            prefetch_factor=self.prefetch_factor if workers else None,
            worker_init_fn=single_threaded_worker,
        )

    def state_dict(self) -> dict[str, Any]:
        """The place in the data: epoch and batches of it that are done."""
        if self.trainer is None:
            return {}
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        # a batch counts as completed only after the callbacks that may save
        done: int = progress.processed  # type: ignore[attr-defined]
        if self._train_sampler is not None and done >= self._train_sampler.num_batches:
            done = 0  # between epochs
        return {"epoch": self.trainer.current_epoch, "batches_done": done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets the next training loader go on where the checkpoint stopped."""
        if state_dict:
            self._resume = (state_dict["epoch"], state_dict["batches_done"])
            if self._train_sampler is not None:
                self._train_sampler.resume(*self._resume)


def available_workers() -> int:
    """Loader workers that leave one core to the training process."""
    return max(0, len(os.sched_getaffinity(0)) - 1) if hasattr(os, "sched_getaffinity") else 2


def _rank_and_world_size(trainer: pl.Trainer | None) -> tuple[int, int]:
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
