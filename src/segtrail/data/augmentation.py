"""Albumentations pipelines whose randomness is a function of (seed, epoch, index) alone."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask a server for news


class Augmentation:
    """A sequence of albumentations transforms over image and mask.

    Args:
        transforms: albumentations transforms in order of application. Geometric ones that pad must
            fill the mask with the dataset's ``ignore_index`` (``fill_mask``).
    """

    def __init__(self, transforms: Sequence[Any] = ()) -> None:
        import albumentations as A

        self.compose = A.Compose(list(transforms)) if transforms else None

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, key: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transforms one sample.

        Args:
            image: (H, W, 3) uint8.
            mask: (H, W) integer ids.
            key: what the randomness depends on: (seed, epoch, index).

        Returns:
            The new image, (h, w, 3) uint8, and mask, (h, w).
        """
        if self.compose is None:
            return image, mask
        # One generator for the whole sequence: seeding each transform alike would correlate them.
        generator = np.random.default_rng(list(key))
        self.compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        result = self.compose(image=image, mask=mask)
        return result["image"], result["mask"]
