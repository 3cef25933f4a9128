"""From a dataset's samples to collated uint8 batches, in loader workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from segtrail.data.augmentation import Augmentation
from segtrail.data.types import DataError, DerivedTarget, Sample


class SampleSource(Protocol):
    """What the pipeline needs of a dataset."""

    ids: list[str]
    ignore_index: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class AugmentedDataset(Dataset[dict[str, Any]]):
    """Decodes, augments, and derives targets; indexed by (epoch, index).

    Args:
        dataset: the samples.
        augmentation: applied to each of them.
        num_classes: number of class ids, given to derived targets.
        derived: targets to compute after augmentation, by name.
        seed: of the augmentation.
    """

    def __init__(
        self,
        dataset: SampleSource,
        augmentation: Augmentation,
        num_classes: int,
        derived: Mapping[str, DerivedTarget],
        seed: int,
    ) -> None:
        self.dataset = dataset
        self.augmentation = augmentation
        self.num_classes = num_classes
        self.derived = dict(derived)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        sample = self.dataset[index]
        try:
            image, mask = self.augmentation(sample.image, sample.mask, (self.seed, epoch, index))
        except Exception as error:
            raise DataError(
                f"{sample.id}: augmentation failed on a {sample.image.shape} image: {error}"
            ) from error
        item: dict[str, Any] = {"image": image, "mask": mask, "id": sample.id, "index": index}
        for name, derive in self.derived.items():
            item[name] = derive(image, mask, self.num_classes, self.dataset.ignore_index)
        return item


class Collate:
    """Stacks samples to a batch; images of different size are padded at the right and the bottom.

    Args:
        ignore_index: fills the padding of masks. Other arrays are padded with 0.
    """

    def __init__(self, ignore_index: int) -> None:
        self.ignore_index = ignore_index

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Returns the batch.

        Shape:
            image (B, 3, H, W) uint8, mask (B, H, W) uint8 or int32, sizes (B, 2) int64 of the images before
            padding, indices (B,) int64, ids list of B; derived arrays (B, ..., H, W).
        """
        sizes = [item["mask"].shape for item in items]
        size = (max(h for h, _ in sizes), max(w for _, w in sizes))
        batch: dict[str, Any] = {
            "image": _stack_channels_first([item["image"] for item in items], size),
            "mask": _stack([item["mask"] for item in items], size, self.ignore_index),
            "sizes": torch.tensor(sizes),
            "indices": torch.tensor([item["index"] for item in items]),
            "ids": [item["id"] for item in items],
        }
        for name in items[0].keys() - {"image", "mask", "id", "index"}:
            batch[name] = _stack([item[name] for item in items], size, 0)
        return batch


def _stack_channels_first(images: Sequence[np.ndarray], size: tuple[int, int]) -> torch.Tensor:
    """(H, W, 3) arrays to a padded (B, 3, *size) tensor in one copy."""
    batch = torch.empty(len(images), 3, *size, dtype=torch.uint8)
    for image, out in zip(images, batch.numpy(), strict=True):
        if image.shape[:2] == size:
            cv2.split(image, list(out))  # several times faster than a transposed copy
        else:
            out[:] = 0
            out[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
    return batch


def _stack(arrays: Sequence[np.ndarray], size: tuple[int, int], fill: int) -> torch.Tensor:
    """(..., H, W) arrays to a padded (B, ..., *size) tensor of the type that holds them all, in one copy."""
    dtype = torch.from_numpy(np.empty(0, np.result_type(*arrays))).dtype
    batch = torch.empty(len(arrays), *arrays[0].shape[:-2], *size, dtype=dtype)
    for array, out in zip(arrays, batch.numpy(), strict=True):
        if array.shape[-2:] != size:
            out[:] = fill
        out[..., : array.shape[-2], : array.shape[-1]] = array
    return batch


def single_threaded_worker(_: int) -> None:
    """Keeps a loader worker to one core: the workers are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
