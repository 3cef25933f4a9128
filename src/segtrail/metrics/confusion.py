"""One streaming confusion matrix, and every overlap metric that derives from it.

Counts are integers and summed over the whole data set, so the result does not depend on batch size,
order, or the number of processes. IoU, Dice and accuracy follow the PASCAL VOC and Cityscapes
definitions: ignored target pixels do not count, and a class that neither the target nor the
prediction contains is left out of the mean.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric


def confusion_per_image(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Counts pixels by (target, prediction) class for each image in one pass.

    Args:
        prediction: (B, H, W) integer class ids in 0..num_classes-1.
        target: (B, H, W) integer class ids or ``ignore_index``.
        num_classes: K.
        ignore_index: target id that does not count.

    Returns:
        (B, K, K) int64; rows are the target, columns the prediction.
    """
    batch = target.shape[0]
    bins = num_classes * num_classes + 1  # the last bin takes the ignored pixels
    cell = torch.where(target == ignore_index, bins - 1, target.long() * num_classes + prediction.long())
    cell = cell.flatten(1) + torch.arange(0, batch * bins, bins, device=cell.device)[:, None]
    if cell.device.type == "cpu":
        counts = torch.bincount(cell.flatten(), minlength=batch * bins)
    else:  # bincount would wait for the device to learn the largest id
        counts = cell.new_zeros(batch * bins).scatter_add_(0, cell.flatten(), torch.ones_like(cell.flatten()))
    return counts.view(batch, bins)[:, :-1].view(batch, num_classes, num_classes)


def iou(confusion: Tensor) -> Tensor:
    """Intersection over union by class, (..., K) float64; NaN for classes with an empty union."""
    confusion = confusion.double()
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    return hits / (confusion.sum(-1) + confusion.sum(-2) - hits)


def dice(confusion: Tensor) -> Tensor:
    """Dice (F1) by class, (..., K) float64; NaN for classes with an empty union."""
    confusion = confusion.double()
    return 2 * confusion.diagonal(dim1=-2, dim2=-1) / (confusion.sum(-1) + confusion.sum(-2))


def pixel_accuracy(confusion: Tensor) -> Tensor:
    """Share of the counted pixels whose class is right, (...) float64; NaN if nothing was counted."""
    confusion = confusion.double()
    return confusion.diagonal(dim1=-2, dim2=-1).sum(-1) / confusion.sum((-2, -1))


class SegmentationConfusion(Metric):
    """Confusion counts of a split, in total and per image, exact over any number of processes.

    Args:
        num_classes: K; the counts are K x K.
        ignore_index: target id that does not count.
    """

    indices: list[Tensor] | Tensor  # a tensor once gathered over processes
    counts: list[Tensor] | Tensor
    full_state_update = False
    higher_is_better = True

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_state("indices", default=[], dist_reduce_fx="cat")
        self.add_state("counts", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor, indices: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: (B, H, W) integer class ids.
            target: (B, H, W) integer class ids or ``ignore_index``.
            indices: (B,) int64 positions of the images in the data set.
        """
        counts = confusion_per_image(prediction, target, self.num_classes, self.ignore_index)
        assert isinstance(self.indices, list)
        assert isinstance(self.counts, list)
        self.indices.append(indices.to(counts.device))
        self.counts.append(counts.int())  # an image has fewer than 2^31 pixels

    def compute(self) -> Tensor:
        """Returns the (K, K) int64 total; rows are the target, columns the prediction."""
        return self._images()[1].sum(0, dtype=torch.int64)

    def _images(self) -> tuple[Tensor, Tensor]:
        """Positions and counts of every image once, in the data set's order."""
        indices, counts = self.indices, self.counts
        if isinstance(indices, list) and isinstance(counts, list):  # not yet gathered over processes
            if not indices:
                empty = torch.zeros(
                    0, self.num_classes, self.num_classes, dtype=torch.int32, device=self.device
                )
                return torch.zeros(0, dtype=torch.int64, device=self.device), empty
            indices, counts = torch.cat(indices), torch.cat(counts)
        assert isinstance(indices, Tensor)
        assert isinstance(counts, Tensor)
        order = torch.argsort(indices, stable=True)
        indices, counts = indices[order], counts[order]
        first = torch.ones_like(indices, dtype=torch.bool)
        first[1:] = indices[1:] != indices[:-1]
        return indices[first], counts[first]

    def per_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions (N,) int64 and counts (N, K, K) int32 of the images, over all processes."""
        with self.sync_context(should_sync=self._to_sync, should_unsync=True):
            indices, counts = self._images()
        return indices.cpu().numpy(), counts.cpu().numpy()
