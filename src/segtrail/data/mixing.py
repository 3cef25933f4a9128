"""Four images as one: mosaics of samples with their masks and objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segtrail.data.objects import boxes_of
from segtrail.data.types import Instances, Sample


def mosaic(
    samples: Sequence[Sample],
    size: tuple[int, int],
    ignore_index: int,
    generator: np.random.Generator,
    smallest: int = 4,
) -> Sample:
    """Lay four samples around a random center, each cut or padded to its quarter.

    Mosaic augmentation as of Bochkovskiy et al. (YOLOv4, arXiv:2004.10934), without rescaling: what
    scales the samples is the pipeline before or after.

    Args:
        samples: four samples; the result has the first one's id.
        size: height and width of the result.
        ignore_index: fills the mask where a sample is smaller than its quarter.
        generator: where the center lies, and which part of a larger sample is seen.
        smallest: objects with fewer pixels left are dropped; their pixels stay in the mask.

    Returns:
        The mosaic, with objects if all four samples have them.
    """
    if len(samples) != 4:
        raise ValueError(f"a mosaic is made of 4 samples, not {len(samples)}")
    height, width = size
    row = int(generator.integers(height // 4, height - height // 4 + 1))
    column = int(generator.integers(width // 4, width - width // 4 + 1))
    image = np.zeros((height, width, 3), np.uint8)
    wide = any(sample.mask.dtype != np.uint8 for sample in samples)
    mask = np.full(size, ignore_index, np.int32 if wide or not 0 <= ignore_index < 256 else np.uint8)
    quarters = [
        (0, row, 0, column),
        (0, row, column, width),
        (row, height, 0, column),
        (row, height, column, width),
    ]
    parts: list[tuple[np.ndarray, Instances]] = []
    for sample, (top, bottom, left, right) in zip(samples, quarters, strict=True):
        rows, columns = sample.mask.shape
        y = int(generator.integers(0, max(0, rows - (bottom - top)) + 1))
        x = int(generator.integers(0, max(0, columns - (right - left)) + 1))
        source = np.s_[y : y + bottom - top, x : x + right - left]
        seen = sample.mask[source]
        target = np.s_[top : top + seen.shape[0], left : left + seen.shape[1]]
        image[target], mask[target] = sample.image[source], seen
        if sample.instances is not None:
            masks = np.zeros((len(sample.instances.masks), height, width), bool)
            masks[(slice(None), *target)] = sample.instances.masks[(slice(None), *source)]
            parts.append((masks, sample.instances))
    objects = _joined(parts, smallest) if len(parts) == 4 else None
    return Sample(image, mask, samples[0].id, objects)


def _joined(parts: Sequence[tuple[np.ndarray, Instances]], smallest: int) -> Instances:
    masks = np.concatenate([masks for masks, _ in parts])
    keep = masks.sum(axis=(1, 2)) >= smallest
    masks = masks[keep]
    return Instances(
        masks,
        np.concatenate([objects.labels for _, objects in parts])[keep],
        boxes_of(masks),
        np.concatenate([objects.iscrowd for _, objects in parts])[keep],
    )
