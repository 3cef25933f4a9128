"""A ``DataLoader`` that hands batches over in memory used again and again, and names dead workers."""

from __future__ import annotations

import io
import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

T = TypeVar("T", covariant=True)
PATIENCE = 2.0  # seconds that a killed process may take to end
_ALIGN = 64  # bytes
_Place = tuple[int, tuple[int, ...], torch.dtype]


class Loader(DataLoader[T]):
    """Loads as torch's does, and takes its arguments.

    Each worker writes its batches to a few pieces of shared memory in turn, and they are copied from there:
    new shared memory for every batch costs a page fault on both sides for each 4 KB, far more than the copy.
    This relies on batches in order, torch's default.

    A worker that is killed after it queued a batch, and before it handed over that batch's memory, shows as a
    reset connection, a missing socket, or an end of file, while torch still takes the worker for alive.

    Raises:
        RuntimeError: if a worker has died, while iterating.
    """

    def __init__(
        self,
        dataset: Dataset[T],
        batch_size: int | None = 1,
        *,
        collate_fn: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(collate_fn, _Pack):  # Lightning makes loaders anew from the attributes of others
            collate_fn = collate_fn.collate
        pack = _Pack(collate_fn or default_collate)
        super().__init__(dataset, batch_size, collate_fn=pack, **options)
        # torch lets a worker be prefetch_factor batches ahead of the one that is copied here
        pack.pieces = [torch.empty(0, dtype=torch.uint8)] * (1 + (self.prefetch_factor or 0))

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]  # a generator in place of torch's own class
        batches = super().__iter__()
        return _received(batches, getattr(batches, "_workers", ()))


def _received(batches: Iterator[Any], workers: Any) -> Iterator[Any]:
    mapped: dict[tuple[int, int], Tensor] = {}  # keeps torch from mapping each piece anew
    try:
        for batch in batches:
            if isinstance(batch, _Packed):
                mapped[batch.place] = batch.memory
                yield batch.unpack()
            else:
                yield batch
    except (OSError, EOFError) as error:
        deadline = time.monotonic() + PATIENCE
        while workers and time.monotonic() < deadline:
            for worker in workers:
                if worker.exitcode:
                    how = f"exited unexpectedly with status {worker.exitcode}"
                    raise RuntimeError(f"DataLoader worker (pid {worker.pid}) {how}") from error
            time.sleep(0.05)
        raise


class _Pack:
    """A collate function that, in a worker, moves the tensors of its result to the next piece of memory."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate
        self.pieces: list[Tensor] = []
        self.turn = 0

    def __call__(self, items: Any) -> Any:
        batch = self.collate(items)
        worker = get_worker_info()
        if worker is None:
            return batch
        pickler = _Pickler()
        pickler.dump(batch)
        end, places = 0, []
        for tensor in pickler.tensors:
            places.append((end, tuple(tensor.shape), tensor.dtype))
            end += -(-tensor.nbytes // _ALIGN) * _ALIGN
        self.turn = (self.turn + 1) % len(self.pieces)
        if self.pieces[self.turn].nbytes < end:
            size = end + end // 4  # room for batches that are a little larger
            storage = torch.UntypedStorage._new_shared(size)
            self.pieces[self.turn] = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (size,))  # type: ignore[call-overload]
        memory = self.pieces[self.turn]
        for tensor, place in zip(pickler.tensors, places, strict=True):
            _at(memory, place).copy_(tensor)
        return _Packed((worker.id, self.turn), memory, end, places, pickler.file.getvalue())


@dataclass
class _Packed:
    """A batch on its way.

    Attributes:
        place: worker and piece of memory.
        memory: uint8, the piece.
        size: bytes of it in use.
        tensors: start in bytes, shape and type of each tensor.
        rest: the batch, pickled, with numbers of tensors.
    """

    place: tuple[int, int]
    memory: Tensor
    size: int
    tensors: list[_Place]
    rest: bytes

    def pin_memory(self) -> Any:
        """What torch's pinning thread calls."""
        return self._load(self.memory[: self.size].pin_memory())

    def unpack(self) -> Any:
        return self._load(self.memory[: self.size].clone())

    def _load(self, memory: Tensor) -> Any:
        return _Unpickler(self.rest, [_at(memory, place) for place in self.tensors]).load()


def _at(memory: Tensor, place: _Place) -> Tensor:
    start, shape, dtype = place
    return memory[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


class _Pickler(pickle.Pickler):
    """Sets tensors aside."""

    def __init__(self) -> None:
        self.file, self.tensors = io.BytesIO(), list[Tensor]()
        super().__init__(self.file, pickle.HIGHEST_PROTOCOL)

    def persistent_id(self, obj: Any) -> int | None:
        if type(obj) is not Tensor:  # subclasses keep their own ways
            return None
        self.tensors.append(obj)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    """Puts them back."""

    def __init__(self, rest: bytes, tensors: list[Tensor]) -> None:
        super().__init__(io.BytesIO(rest))
        self.tensors = tensors

    def persistent_load(self, number: int) -> Tensor:
        return self.tensors[number]
