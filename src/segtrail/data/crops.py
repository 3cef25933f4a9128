"""Random crops that know about classes, for albumentations pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np


class ClassAwareCrop(A.DualTransform):
    """A crop of fixed size that is not all of one class, and that finds rare classes.

    With probability ``rare_share`` the crop is laid around a random pixel of one of the
    ``rare_classes`` that the mask has; otherwise it lies anywhere. A crop in which one class has more
    than ``max_share`` of the labeled pixels is drawn again, up to ``tries`` times, as mmsegmentation
    does with its ``cat_max_ratio``.

    Args:
        size: height and width; smaller pictures are padded at the right and the bottom.
        max_share: cap on the share of one class; 1 is off.
        rare_classes: class ids to look for.
        rare_share: how often to look for them.
        tries: crops that are drawn before the last one is taken as it is.
        ignore_index: what void is; fills the padding of the mask.
        fill: fills the padding of the picture.
        p: probability of cropping at all.
    """

    def __init__(
        self,
        size: Sequence[int],
        max_share: float = 0.75,
        rare_classes: Sequence[int] = (),
        rare_share: float = 0.5,
        tries: int = 10,
        ignore_index: int = 255,
        fill: int = 0,
        p: float = 1.0,
    ) -> None:
        if not 0 < max_share <= 1 or not 0 <= rare_share <= 1 or tries < 1 or min(size) < 1:
            raise ValueError(
                f"ClassAwareCrop: max_share {max_share} lies above 0 and up to 1, rare_share {rare_share} in "
                f"0..1, tries {tries} and size {list(size)} are positive"
            )
        super().__init__(p=p)
        self.size = (int(size[0]), int(size[1]))
        self.max_share, self.rare_share, self.tries = max_share, rare_share, tries
        self.rare_classes = tuple(rare_classes)
        self.ignore_index, self.fill = ignore_index, fill

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Place of the crop: ``top`` and ``left``."""
        height, width = params["shape"][:2]
        rows, columns = max(0, height - self.size[0]), max(0, width - self.size[1])
        mask = data.get("mask")
        center = None if mask is None else self._rare_pixel(mask)
        for _ in range(self.tries):
            if center is None:
                top, left = self.py_random.randint(0, rows), self.py_random.randint(0, columns)
            else:  # any crop that has the pixel in it
                top = self._around(center[0], self.size[0], rows)
                left = self._around(center[1], self.size[1], columns)
            if mask is None or self.max_share >= 1 or self._mixed(mask, top, left):
                break
        return {"top": top, "left": left}

    def _rare_pixel(self, mask: np.ndarray) -> tuple[int, int] | None:
        if not self.rare_classes or self.py_random.random() >= self.rare_share:
            return None
        present = [class_id for class_id in self.rare_classes if (mask == class_id).any()]
        if not present:
            return None
        found = np.flatnonzero(mask == self.py_random.choice(present))
        row, column = divmod(int(found[self.py_random.randrange(len(found))]), mask.shape[1])
        return row, column

    def _around(self, place: int, size: int, last: int) -> int:
        return self.py_random.randint(min(last, max(0, place - size + 1)), min(last, place))

    def _mixed(self, mask: np.ndarray, top: int, left: int) -> bool:
        crop = mask[top : top + self.size[0], left : left + self.size[1]]
        counts = np.bincount(crop[crop != self.ignore_index])
        return bool(counts.sum() and counts.max() <= self.max_share * counts.sum())

    def apply(self, img: np.ndarray, top: int = 0, left: int = 0, **params: Any) -> np.ndarray:
        """The crop of a picture."""
        return self._cut(img, top, left, self.fill)

    def apply_to_mask(self, mask: np.ndarray, top: int = 0, left: int = 0, **params: Any) -> np.ndarray:
        """The crop of a mask."""
        return self._cut(mask, top, left, self.ignore_index)

    def apply_to_masks(self, masks: np.ndarray, top: int = 0, left: int = 0, **params: Any) -> np.ndarray:
        """The crops of object masks, (N, H, W)."""
        cut = masks[:, top : top + self.size[0], left : left + self.size[1]]
        missing = [(0, 0), (0, self.size[0] - cut.shape[1]), (0, self.size[1] - cut.shape[2])]
        return np.pad(cut, missing)

    def _cut(self, array: np.ndarray, top: int, left: int, fill: int) -> np.ndarray:
        cut = array[top : top + self.size[0], left : left + self.size[1]]
        bottom, right = self.size[0] - cut.shape[0], self.size[1] - cut.shape[1]
        if bottom or right:
            value = [fill] * (array.shape[2] if array.ndim == 3 else 1)
            return cv2.copyMakeBorder(cut, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=value)
        return np.ascontiguousarray(cut)
