"""A ``DataLoader`` that names a dead worker as the cause of the errors that its death shows as."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader

T = TypeVar("T", covariant=True)
PATIENCE = 2.0  # seconds that a killed process may take to end


class Loader(DataLoader[T]):
    """Loads as torch's does, and takes its arguments.

    A worker that is killed after it queued a batch, and before it handed over that batch's memory, shows as a
    reset connection, a missing socket, or an end of file, while torch still takes the worker for alive.

    Raises:
        RuntimeError: if a worker has died, while iterating.
    """

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]  # a generator in place of torch's own class
        batches = super().__iter__()
        return _watched(batches, getattr(batches, "_workers", ()))


def _watched(batches: Iterator[T], workers: Any) -> Iterator[T]:
    try:
        yield from batches
    except (OSError, EOFError) as error:
        deadline = time.monotonic() + PATIENCE
        while workers and time.monotonic() < deadline:
            for worker in workers:
                if worker.exitcode:
                    how = f"exited unexpectedly with status {worker.exitcode}"
                    raise RuntimeError(f"DataLoader worker (pid {worker.pid}) {how}") from error
            time.sleep(0.05)
        raise
