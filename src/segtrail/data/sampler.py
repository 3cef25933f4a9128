"""Samplers whose order is a pure function of (seed, epoch): what exact resuming rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from segtrail.data.types import DataError


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffled training order, split over processes, that can start in the middle of an epoch.

    Yields ``(epoch, index)``, so that augmentation in a worker can be a function of (seed, epoch,
    index). Consecutive blocks of ``world_size * batch_size`` samples are one global batch whatever the
    number of processes: rank r takes the r-th slice of each block. An incomplete last block is dropped.

    Args:
        num_samples: size of the data set.
        batch_size: samples a process takes in one step.
        seed: of the order.
        rank, world_size: this process's place among all.
        repeat_factors: (num_samples,) expected number of times that a sample appears in an epoch; the
            fractional part is drawn anew each epoch (Gupta et al. 2019, LVIS, repeat-factor sampling).

    Raises:
        DataError: if an epoch would hold no complete global batch.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        repeat_factors: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.repeat_factors = None if repeat_factors is None else np.asarray(repeat_factors, dtype=np.float64)
        self.epoch = 0
        self.first_batch = 0
        expected = num_samples if self.repeat_factors is None else int(np.floor(self.repeat_factors).sum())
        self.num_batches = expected // (batch_size * world_size)
        if self.num_batches == 0:
            batch = f"{batch_size} x {world_size} processes" if world_size > 1 else f"{batch_size}"
            raise DataError(
                f"the training split has {num_samples} samples, fewer than one batch of {batch}: "
                f"set loader.batch_size={max(1, expected // world_size)}"
            )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration; a new epoch starts at its first batch."""
        if epoch != self.epoch:
            self.epoch, self.first_batch = epoch, 0

    def resume(self, epoch: int, batches_done: int) -> None:
        """Makes the next iteration of ``epoch`` begin after ``batches_done`` batches of this process."""
        self.epoch, self.first_batch = epoch, batches_done

    def order(self, epoch: int) -> np.ndarray:
        """Returns the epoch's order over all processes, before it is cut into batches; (N,) int64."""
        generator = np.random.default_rng([self.seed, epoch])
        indices = np.arange(self.num_samples)
        if self.repeat_factors is not None:
            whole = np.floor(self.repeat_factors)
            extra = generator.random(self.num_samples) < self.repeat_factors - whole
            indices = np.repeat(indices, (whole + extra).astype(np.int64))
        return generator.permutation(indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, first = self.epoch, self.first_batch
        self.first_batch = 0
        blocks = self.order(epoch)[: self.num_batches * self.world_size * self.batch_size]
        mine = blocks.reshape(self.num_batches, self.world_size, self.batch_size)[first:, self.rank]
        for index in mine.ravel():
            yield epoch, int(index)

    def __len__(self) -> int:
        return self.num_batches * self.batch_size


class EvaluationSampler(Sampler[tuple[int, int]]):
    """Every sample exactly once over all processes; ranks may differ by one in number.

    Yields ``(0, index)``. Unlike torch's DistributedSampler it does not repeat samples to make the
    ranks equal, so that metrics over processes equal those of one process.
    """

    def __init__(self, num_samples: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, num_samples, world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)
