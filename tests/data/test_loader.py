"""Batches arrive whole from loader workers, whatever they hold and however long they are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from segtrail.data.loader import Loader


class Pictures(Dataset[Any]):
    """Samples of many sizes and types."""

    def __len__(self) -> int:
        return 37

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        height = 8 + 17 * (index % 5) + 3 * index
        return {
            "image": torch.randint(0, 256, (3, height, 11), dtype=torch.uint8, generator=generator),
            "map": torch.rand(height, 11, generator=generator).T,  # not contiguous
            "objects": [(torch.full((index % 3, 4), index), torch.tensor(index % 2 == 0))],
            "id": f"sample {index}",
        }


def as_list(items: list[Any]) -> list[Any]:
    return items


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("prefetch_factor", [1, 2, 4])
def test_batches_that_are_kept_are_those_of_this_process(prefetch_factor: int) -> None:
    alone = list(Loader(Pictures(), 3, collate_fn=as_list))
    loader = Loader(
        Pictures(),
        3,
        collate_fn=as_list,
        num_workers=2,
        prefetch_factor=prefetch_factor,
        persistent_workers=True,
    )
    for _ in range(2):
        kept = list(loader)
        assert equal(kept, alone)
        assert not any(sample["image"].is_shared() for batch in kept for sample in batch)


def test_an_epoch_that_is_left_early_does_not_spoil_the_next() -> None:
    alone = list(Loader(Pictures(), 2, collate_fn=as_list))
    loader = Loader(Pictures(), 2, collate_fn=as_list, num_workers=2, persistent_workers=True)
    for count in (1, 4):
        batches = iter(loader)
        assert equal([next(batches) for _ in range(count)], alone[:count])
    assert equal(list(loader), alone)


def test_batches_without_tensors_and_of_torchs_own_collate_function() -> None:
    assert list(Loader(["a", "b"], 2, collate_fn=as_list, num_workers=1)) == [["a", "b"]]
    (batch,) = Loader([{"x": 1.5, "name": "a"}, {"x": 2.5, "name": "b"}], 2, num_workers=1)
    assert equal(batch, {"x": torch.tensor([1.5, 2.5], dtype=torch.float64), "name": ["a", "b"]})


def test_a_loader_made_anew_from_the_attributes_of_another() -> None:
    first = Loader(Pictures(), 3, collate_fn=as_list, num_workers=1)
    again = Loader(Pictures(), 3, collate_fn=first.collate_fn, num_workers=1)
    assert equal(list(again), list(first))
