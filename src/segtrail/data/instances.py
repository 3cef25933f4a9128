"""Single objects for the loader: boxes and masks in step with the image, copy-paste, batches of one shape."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from segtrail.data.augmentation import Augmentation
from segtrail.data.datamodule import SegmentationDataModule
from segtrail.data.detections import encode
from segtrail.data.mixing import mosaic
from segtrail.data.objects import boxes_of
from segtrail.data.pipeline import SampleSource
from segtrail.data.sampler import EpochSampler
from segtrail.data.types import DataError, Instances, Sample


class InstanceDataModule(SegmentationDataModule):
    """Loaders of images with their objects.

    A batch holds ``image``, a list of (3, H, W) uint8 tensors of their own sizes; ``targets``, a list of
    dicts of boxes (N, 4) float32 xyxy, labels (N,) int64 and masks (N, H, W) uint8, without crowds;
    ``truth``, empty while training, else COCO-like entries of all objects; ``sizes`` (B, 2) and
    ``indices`` (B,) int64, and ``ids``.

    Args:
        aspect_ratio_groups: images are grouped by height / width into so many groups of equal number, and
            a training batch is of one group, since padding it costs time; 1 is off.
        copy_paste: probability that objects of another image are pasted into a training image.
        mosaic: probability that a training image is a mosaic of itself and three others.
        min_visible: an object is dropped if pasted ones leave a smaller share of it visible.
        **options: those of :class:`SegmentationDataModule`.
    """

    def __init__(
        self,
        *,
        aspect_ratio_groups: int = 3,
        copy_paste: float = 0.0,
        mosaic: float = 0.0,
        min_visible: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if aspect_ratio_groups < 1 or not all(0 <= share <= 1 for share in (copy_paste, mosaic, min_visible)):
            raise ValueError(
                f"aspect_ratio_groups={aspect_ratio_groups} must be at least 1, copy_paste={copy_paste}, "
                f"mosaic={mosaic} and min_visible={min_visible} within 0..1"
            )
        self.aspect_ratio_groups = aspect_ratio_groups
        self.copy_paste = copy_paste
        self.mosaic = mosaic
        self.min_visible = min_visible

    def dataset(self, split: str) -> Any:
        """Returns the dataset of a split, with objects, made at the first call."""
        if split not in self._datasets and split in self.splits:
            self._datasets[split] = self.make_dataset(split=split, instances=True)
        return super().dataset(split)

    def class_counts(self) -> torch.Tensor:
        """Counts the pixels of the training objects' boxes outside and inside of the object; (2,) float64.

        That is what the mask head sees, and so what losses weight it by.
        """
        inside = total = 0.0
        dataset = self.dataset("train")
        for index in range(len(dataset)):
            objects = dataset[index].instances
            extent = objects.boxes[:, 2:] - objects.boxes[:, :2]
            inside += float(objects.masks.sum())
            total += float(extent.prod(axis=1).sum())
        return torch.tensor([total - inside, inside], dtype=torch.float64)

    def _sampler(self, dataset: SampleSource, rank: int, world_size: int) -> EpochSampler:
        groups = aspect_ratio_groups(dataset, self.aspect_ratio_groups)
        factors = getattr(dataset, "repeat_factors", None)
        return AspectRatioSampler(groups, self.batch_size, self.seed, rank, world_size, factors)

    def _samples(
        self, dataset: SampleSource, transforms: Sequence[Any], training: bool
    ) -> Dataset[dict[str, Any]]:
        augmentation = InstanceAugmentation(transforms)
        if not training:
            return InstanceSamples(dataset, augmentation, self.seed, training)
        return InstanceSamples(
            dataset, augmentation, self.seed, training, self.copy_paste, self.min_visible, self.mosaic
        )

    def _collate(self, dataset: SampleSource) -> Callable[[Sequence[dict[str, Any]]], dict[str, Any]]:
        return collate


class InstanceAugmentation(Augmentation):
    """Albumentations transforms over an image and the masks of its objects; boxes follow the masks.

    Args:
        transforms: albumentations transforms in order of application.
    """

    def sample(self, sample: Sample, objects: Instances, key: Sequence[int]) -> tuple[np.ndarray, Instances]:
        """Transforms one image; objects of which nothing is left are dropped.

        Args:
            sample: the image.
            objects: its objects.
            key: what the randomness depends on: (seed, epoch, index).
        """
        if self.compose is None:
            return sample.image, _visible(objects, objects.masks)
        generator = np.random.default_rng(list(key))
        self.compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        given: dict[str, Any] = {"image": sample.image}
        if len(objects.masks):
            given["masks"] = objects.masks.astype(np.uint8)
        result = self.compose(**given)
        # Transforms that pad fill masks with the ignore index: there is no object.
        masks = result.get("masks", np.zeros((0, *result["image"].shape[:2]), np.uint8))
        return result["image"], _visible(objects, np.asarray(masks) == 1)


def _visible(objects: Instances, masks: np.ndarray, keep: np.ndarray | None = None) -> Instances:
    """The objects with new masks, without the invisible ones and those not to keep."""
    seen = np.asarray(masks.any(axis=(1, 2)), bool)
    if keep is not None:
        seen = np.logical_and(seen, keep)
    masks = masks[seen]
    return Instances(masks, objects.labels[seen], boxes_of(masks), objects.iscrowd[seen])


class InstanceSamples(Dataset[dict[str, Any]]):
    """Decodes and augments; indexed by (epoch, index).

    Args:
        dataset: samples with instances.
        augmentation: applied to each of them.
        seed: of augmentation and pasting.
        training: without crowds, and without entries for the evaluation.
        copy_paste, min_visible, mosaic: see :class:`InstanceDataModule`.
    """

    def __init__(
        self,
        dataset: SampleSource,
        augmentation: InstanceAugmentation,
        seed: int = 0,
        training: bool = True,
        copy_paste: float = 0.0,
        min_visible: float = 0.1,
        mosaic: float = 0.0,
    ) -> None:
        self.dataset = dataset
        self.augmentation = augmentation
        self.seed = seed
        self.training = training
        self.copy_paste = copy_paste
        self.min_visible = min_visible
        self.mosaic = mosaic

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        image, objects, name = self._augmented(index, (self.seed, epoch, index))
        generator = np.random.default_rng([self.seed, epoch, index, 1])  # 1: apart from the augmentation's
        if self.copy_paste and generator.random() < self.copy_paste:
            other = int(generator.integers(len(self.dataset)))
            source, pasted, _ = self._augmented(other, (self.seed, epoch, index, other))
            chosen = generator.random(len(pasted.labels)) < 0.5
            image, objects = paste_objects(
                image, objects, source, _visible(pasted, pasted.masks, chosen), self.min_visible
            )
        single = _visible(objects, objects.masks, np.logical_not(objects.iscrowd))
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "targets": {
                "boxes": torch.from_numpy(single.boxes),
                "labels": torch.from_numpy(single.labels),
                "masks": torch.from_numpy(single.masks.view(np.uint8)),
            },
            "truth": [] if self.training else truth_entries(objects),
            "sizes": image.shape[:2],
            "indices": index,
            "ids": name,
        }

    def _mixed(self, index: int, key: Sequence[int]) -> Sample:
        sample = self.dataset[index]
        generator = np.random.default_rng([*key, 2])  # 2: apart from augmentation's and pasting's
        if not self.mosaic or generator.random() >= self.mosaic:
            return sample
        others = [self.dataset[int(other)] for other in generator.integers(len(self.dataset), size=3)]
        height, width = sample.image.shape[:2]
        return mosaic([sample, *others], (height, width), self.dataset.ignore_index, generator)

    def _augmented(self, index: int, key: Sequence[int]) -> tuple[np.ndarray, Instances, str]:
        sample = self._mixed(index, key)
        if sample.instances is None:
            raise DataError(
                f"{type(self.dataset).__name__} has no objects, only a class for every pixel; "
                f"train a semantic model on it, or choose a dataset with instances"
            )
        try:
            image, objects = self.augmentation.sample(sample, sample.instances, key)
        except Exception as error:
            shape = sample.image.shape
            raise DataError(f"{sample.id}: augmentation failed on a {shape} image: {error}") from error
        return image, objects, sample.id


def paste_objects(
    image: np.ndarray, objects: Instances, source: np.ndarray, pasted: Instances, min_visible: float
) -> tuple[np.ndarray, Instances]:
    """Copies objects of one image onto another, at their place (Ghiasi et al. 2021, arXiv:2012.07177).

    Args:
        image: (H, W, 3) uint8.
        objects: of the image; hidden where something is pasted over them.
        source: (h, w, 3) uint8 image to copy from; what lies outside of the other image is cut off.
        pasted: its objects that are copied.
        min_visible: share of an object that must stay visible for it to be kept.

    Returns:
        The new image and the objects in it, the pasted ones last.
    """
    rows, columns = min(image.shape[0], source.shape[0]), min(image.shape[1], source.shape[1])
    masks = np.zeros((len(pasted.masks), *image.shape[:2]), bool)
    masks[:, :rows, :columns] = pasted.masks[:, :rows, :columns]
    over = np.asarray(masks.any(axis=0), bool)
    image = image.copy()
    image[over] = source[:rows, :columns][over[:rows, :columns]]
    left = objects.masks & ~over
    area = objects.masks.sum(axis=(1, 2))
    below = _visible(objects, left, left.sum(axis=(1, 2)) >= min_visible * area)
    above = _visible(pasted, masks)
    return image, Instances(
        *(
            np.concatenate([getattr(below, name), getattr(above, name)])
            for name in ("masks", "labels", "boxes", "iscrowd")
        )
    )


def truth_entries(objects: Instances) -> list[dict[str, Any]]:
    """What :class:`~segtrail.metrics.mask_ap.MaskAP` compares with, one entry an object."""
    return [
        {
            "category_id": int(label),
            "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "segmentation": encode(mask),
            "area": float(mask.sum()),
            "iscrowd": int(crowd),
        }
        for box, label, mask, crowd in zip(
            objects.boxes, objects.labels, objects.masks, objects.iscrowd, strict=True
        )
    ]


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Makes a batch, see :class:`InstanceDataModule`; images keep their sizes."""
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in items[0]}
    return {**batch, "sizes": torch.tensor(batch["sizes"]), "indices": torch.tensor(batch["indices"])}


class AspectRatioSampler(EpochSampler):
    """Shuffled training order whose batches hold images of one group, as far as the groups suffice.

    Every image appears as often as in :class:`EpochSampler`; what is left of each group at the end forms
    the last batches. The order stays a function of (seed, epoch).

    Args:
        groups: (num_samples,) group of each image.
        batch_size, seed, rank, world_size, repeat_factors: see :class:`EpochSampler`.
    """

    def __init__(
        self,
        groups: np.ndarray,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        repeat_factors: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        super().__init__(len(groups), batch_size, seed, rank, world_size, repeat_factors)
        self.groups = groups

    def order(self, epoch: int) -> np.ndarray:
        """Returns the epoch's order over all processes, before it is cut into batches; (N,) int64."""
        block = self.batch_size * self.world_size
        pending: dict[int, list[int]] = {int(group): [] for group in np.unique(self.groups)}
        ordered: list[int] = []
        for index in super().order(epoch):
            group = pending[int(self.groups[index])]
            group.append(int(index))
            if len(group) == block:
                ordered += group
                group.clear()
        return np.array(ordered + [index for group in pending.values() for index in group], np.int64)


def aspect_ratio_groups(dataset: SampleSource, count: int) -> np.ndarray:
    """Groups images by height / width into ``count`` groups of about equal number.

    Reads the headers of the image files; a dataset without files counts as one group.

    Returns:
        (num_samples,) int64.
    """
    sources, records = getattr(dataset, "sources", None), getattr(dataset, "records", None)
    if count == 1 or sources is None or records is None or not sources(records[0]):
        return np.zeros(len(dataset), np.int64)
    ratios = np.empty(len(dataset))
    for index in range(len(dataset)):
        with Image.open(sources(records[index])[0]) as image:
            ratios[index] = image.height / image.width
    # One ratio belongs to one group, however common it is.
    return np.searchsorted(np.quantile(ratios, np.arange(1, count) / count), ratios, side="left")
