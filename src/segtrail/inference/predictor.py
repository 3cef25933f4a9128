"""From a trained model to class probabilities of images of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrail.inference.windows import Blend, blend_weights, window_starts
from segtrail.models.base import SegmentationModel
from segtrail.training.normalize import Normalize

Postprocess = Callable[[Tensor, Tensor], Tensor]
"""``f(image (B, 3, H, W) uint8, probabilities (B, K, H, W)) -> (B, K, H, W)``."""

_AXES = {"horizontal": 1, "vertical": 0}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is predicted of one image.

    Attributes:
        label_map: (H, W) class ids; uint8 for up to 256 classes, else int32.
        confidence: (H, W) float32, the probability of the winning class.
    """

    label_map: np.ndarray
    confidence: np.ndarray


class SemanticPredictor:
    """Segments images of any size.

    All views of an image (windows, flips, scales) are averaged as probabilities. Without options the
    result is what the model says of the whole image.

    Args:
        model: takes normalized images; moved to ``device`` and set to evaluate.
        num_classes: as the dataset counts them; the model's derived inputs ask for it.
        window: side of a square window in pixels, at least the model's stride; images that do not fit
            are segmented in windows. None takes every image whole.
        overlap: least share of a window that the next one covers again.
        blend: weights of overlapping windows, see :func:`segtrail.inference.windows.blend_weights`.
        flips: ``horizontal``, ``vertical`` or both: also average over the mirrored images.
        scales: sizes, relative to the image's own, to average over; a side that would fall below the
            model's stride is resized to the stride.
        batch_size: windows that the model takes at once.
        postprocess: applied to the averaged probabilities, such as
            :class:`segtrail.inference.crf.DenseCRF`.
        device: where the model runs; ``auto`` is the GPU if there is one.

    Raises:
        ValueError: one line that names the argument that makes no sense.
    """

    def __init__(
        self,
        model: SegmentationModel,
        num_classes: int,
        *,
        window: int | None = None,
        overlap: float = 0.5,
        blend: Blend = "gaussian",
        flips: Sequence[str] = (),
        scales: Sequence[float] = (1.0,),
        batch_size: int = 4,
        postprocess: Postprocess | None = None,
        device: str = "auto",
    ) -> None:
        _check(window, overlap, blend, flips, scales, batch_size)
        if window is not None and window < model.stride:
            raise ValueError(f"window: at least the model's stride of {model.stride} pixels, got {window}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.normalize = Normalize(model.mean, model.std).to(self.device)
        self.num_classes = num_classes
        self.window = window
        self.overlap = overlap
        self.blend = blend
        axes = [_AXES[name] for name in flips]
        self.flips = [  # axes that each view is mirrored along, none for the first
            chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)
        ]
        self.scales = tuple(scales)
        self.batch_size = batch_size
        self.postprocess = postprocess

    def __call__(self, image: np.ndarray) -> Prediction:
        """Predicts the class of every pixel of an (H, W, 3) uint8 RGB image.

        Raises:
            ImageSizeError: the image is smaller than the model's stride.
        """
        confidence, label_map = self.probabilities(image).max(0)
        kind = torch.uint8 if self.num_classes <= 256 else torch.int32
        return Prediction(label_map.to(kind).cpu().numpy(), confidence.cpu().numpy())

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> Tensor:
        """(K, H, W) float32 class probabilities of an (H, W, 3) uint8 RGB image, on the device.

        A model with one logit gives two: of the background and of the class.
        """
        size = image.shape[:2]
        views = len(self.scales) * len(self.flips)
        total: Tensor | None = None
        for view, axes in self._views(image):
            found = self._segment(view)
            if axes:
                found = found.flip([axis + 1 for axis in axes])
            if found.shape[1:] != size:
                found = F.interpolate(found[None], size, mode="bilinear", antialias=True)[0]
            total = found if total is None else total.add_(found)
        assert total is not None  # scales are checked not to be empty
        mean = total / views if views > 1 else total
        if self.postprocess is not None:
            mean = self.postprocess(_tensor(image)[None].to(self.device), mean[None])[0]
        return mean

    def _views(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
        """Resized and mirrored images, with the axes that are mirrored."""
        for scale in self.scales:
            height, width = (max(self.model.stride, round(side * scale)) for side in image.shape[:2])
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            resized = image if scale == 1 else cv2.resize(image, (width, height), interpolation=how)
            for axes in self.flips:
                yield np.ascontiguousarray(np.flip(resized, axes)) if axes else resized, axes

    def _segment(self, image: np.ndarray) -> Tensor:
        """(K, H, W) probabilities of one view, whole or in blended windows."""
        mask = np.zeros(image.shape[:2], np.uint8)
        derived = {
            name: torch.from_numpy(np.ascontiguousarray(derive(image, mask, self.num_classes, 255)))
            for name, derive in self.model.derived.items()
        }
        arrays = {"image": _tensor(image), **derived}
        height, width = (min(self.window or side, side) for side in image.shape[:2])
        corners = [
            (top, left)
            for top in window_starts(image.shape[0], height, self.overlap)
            for left in window_starts(image.shape[1], width, self.overlap)
        ]
        if len(corners) == 1:
            return self._run({name: array[None] for name, array in arrays.items()})[0]
        weights = blend_weights(height, width, self.blend, self.device)
        total: Tensor | None = None
        covered = torch.zeros(image.shape[:2], device=self.device)
        for start in range(0, len(corners), self.batch_size):
            chosen = corners[start : start + self.batch_size]
            cut = {
                name: torch.stack([array[..., y : y + height, x : x + width] for y, x in chosen])
                for name, array in arrays.items()
            }
            found = self._run(cut)
            if total is None:
                total = found.new_zeros(found.shape[1], *image.shape[:2])
            for (y, x), probabilities in zip(chosen, found, strict=True):
                total[:, y : y + height, x : x + width] += probabilities * weights
                covered[y : y + height, x : x + width] += weights
        assert total is not None
        return total.div_(covered)

    def _run(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, K, H, W) float32 probabilities of a batch with a uint8 image and derived arrays."""
        batch = {name: array.to(self.device) for name, array in batch.items()}
        logits = self.model(self.normalize(batch.pop("image")), **batch).logits
        return class_probabilities(logits)


def class_probabilities(logits: Tensor) -> Tensor:
    """(B, C, H, W) logits to (B, K, H, W) float32 probabilities; one logit becomes two classes."""
    logits = logits.float()
    if logits.shape[1] > 1:
        return logits.softmax(1)
    foreground = logits.sigmoid()
    return torch.cat([1 - foreground, foreground], dim=1)


def _tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) array to a (3, H, W) tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _check(
    window: int | None,
    overlap: float,
    blend: str,
    flips: Sequence[str],
    scales: Sequence[float],
    batch_size: int,
) -> None:
    if window is not None and (not isinstance(window, int) or window < 1):
        raise ValueError(f"window: a number of pixels or null, got {window!r}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: a share of the window, 0 <= overlap < 1, got {overlap}")
    if blend not in get_args(Blend):
        raise ValueError(f"blend: one of {', '.join(get_args(Blend))}, got {blend!r}")
    if isinstance(flips, str) or not set(flips) <= set(_AXES) or len(set(flips)) < len(flips):
        raise ValueError(f"flips: a list of horizontal, vertical, got {flips!r}")
    if not scales or not all(scale > 0 for scale in scales):
        raise ValueError(f"scales: a list of positive numbers, got {list(scales)}")
    if batch_size < 1:
        raise ValueError(f"batch_size: at least 1, got {batch_size}")
