"""Numbers of a split: pixels by class, class weights, sizes, mean and deviation of the colors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from segtrail.data.datasets.base import SegmentationDataset, usable_cores

COLOR_SAMPLES = 500  # images that mean and deviation are taken from, evenly spaced


@dataclass(frozen=True)
class Statistics:
    """Of one split.

    Attributes:
        class_names: K names.
        pixels: (K,) pixels of each class.
        images: (K,) images that have each class.
        labeled: (K,) labeled pixels of the images that have each class.
        void: share of void pixels.
        count: number of images.
        sizes: (N, 2) height and width.
        mean, std: (3,) of the colors, in 0..1.
    """

    class_names: tuple[str, ...]
    pixels: np.ndarray
    images: np.ndarray
    labeled: np.ndarray
    void: float
    count: int
    sizes: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """(K,) share of each class in the labeled pixels."""
        return self.pixels / max(1, self.pixels.sum())

    def weights(self) -> dict[str, np.ndarray]:
        """Usual class weights; infinite for a class without pixels.

        ``median_frequency`` is median(f) / f with f the share of a class in the images that have it
        (Eigen and Fergus, ICCV 2015), ``inverse_root`` is 1 / sqrt(p) with mean 1, and ``enet`` is
        1 / ln(1.02 + p) (Paszke et al., arXiv:1606.02147).
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            frequency = np.where(self.labeled > 0, self.pixels / np.maximum(self.labeled, 1), 0)
            present = frequency > 0
            median = np.median(frequency[present]) if present.any() else 0.0
            root = 1 / np.sqrt(self.shares)
            return {
                "median_frequency": median / frequency,
                "inverse_root": root / root[np.isfinite(root)].mean(),
                "enet": 1 / np.log(1.02 + self.shares),
            }

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain lists, for JSON; infinite weights are null."""
        weights = {
            name: [round(float(value), 6) if np.isfinite(value) else None for value in values]
            for name, values in self.weights().items()
        }
        return {
            "images": self.count,
            "class_names": list(self.class_names),
            "pixels": self.pixels.tolist(),
            "shares": self.shares.round(6).tolist(),
            "images_with_class": self.images.tolist(),
            "void_share": round(self.void, 6),
            "weights": weights,
            "mean": self.mean.round(4).tolist(),
            "std": self.std.round(4).tolist(),
            "smallest": self.sizes.min(axis=0).tolist(),
            "median": np.median(self.sizes, axis=0).tolist(),
            "largest": self.sizes.max(axis=0).tolist(),
        }


def gather(dataset: SegmentationDataset, progress: Callable[[int], None] = lambda _: None) -> Statistics:
    """Read every mask, and the colors of :data:`COLOR_SAMPLES` images.

    The counts by class stay in the cache, where training with class weights takes them from.

    Args:
        dataset: one split.
        progress: called with the number of images just done.
    """
    counts = dataset.class_counts()
    sampled = set(
        np.linspace(0, len(dataset) - 1, min(len(dataset), COLOR_SAMPLES)).round().astype(int).tolist()
    )

    def look(index: int) -> tuple[tuple[int, int], np.ndarray | None]:
        if index not in sampled:
            height, width = dataset.mask(index).shape
            return (height, width), None
        colors = dataset.read(index).image.reshape(-1, 3)
        wide = colors.astype(np.float64)
        progress(1)
        return dataset.mask(index).shape, np.stack(
            [wide.sum(axis=0), (wide**2).sum(axis=0), np.full(3, len(wide))]
        )

    with ThreadPoolExecutor(usable_cores()) as pool:
        rows = list(pool.map(look, range(len(dataset))))
    sizes = np.array([size for size, _ in rows])
    total, squares, pixels = np.sum([colors for _, colors in rows if colors is not None], axis=0) / [
        [255],
        [255**2],
        [1],
    ]
    mean = total / pixels
    labeled = counts.sum(axis=1)
    area = sizes.prod(axis=1)
    return Statistics(
        class_names=dataset.class_names
        if len(dataset.class_names) > 1
        else ("background", *dataset.class_names),
        pixels=counts.sum(axis=0),
        images=(counts > 0).sum(axis=0),
        labeled=((counts > 0) * labeled[:, None]).sum(axis=0),
        void=float(1 - labeled.sum() / max(1, area.sum())),
        count=len(dataset),
        sizes=sizes,
        mean=mean,
        std=np.sqrt(np.maximum(squares / pixels - mean**2, 0)),
    )
