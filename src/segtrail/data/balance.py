"""Showing images with rare classes more often."""

from __future__ import annotations

import numpy as np


def repeat_factors(class_counts: np.ndarray, threshold: float) -> np.ndarray:
    """How often each image should be seen in an epoch: repeat-factor sampling.

    A class that a share f of the images has gets r = max(1, sqrt(threshold / f)); an image gets the
    largest r of its classes (Gupta, Dollar and Girshick: LVIS, CVPR 2019, appendix B.2).

    Args:
        class_counts: (N, K) pixels (or objects) of each class in each image.
        threshold: classes in a smaller share of the images are repeated; in (0, 1].

    Returns:
        (N,) float64, at least 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"repeat_threshold is {threshold}; it lies above 0 and up to 1")
    present = class_counts > 0
    share = present.mean(axis=0)
    class_factor = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
    return np.where(present, class_factor, 1.0).max(axis=1)


def rare_class_factors(class_counts: np.ndarray, temperature: float = 0.1) -> np.ndarray:
    """Repeat factors by pixels: rare-class sampling as in DAFormer, but no image is left out.

    A class with a share f of the pixels is drawn with probability proportional to
    exp((1 - f) / temperature), then one of the images that have it (Hoyer, Dai and Van Gool:
    DAFormer, CVPR 2022, section 3.3).

    Args:
        class_counts: (N, K) pixels of each class in each image.
        temperature: small values favor rare classes more.

    Returns:
        (N,) float64: the probabilities relative to the mean, at least 1.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it is above 0")
    present = class_counts > 0
    exists = present.any(axis=0)
    share = class_counts.sum(axis=0) / max(1, class_counts.sum())
    logits = np.where(exists, (1 - share) / temperature, -np.inf)
    chance = np.exp(logits - logits.max())
    chance /= chance.sum()
    weights = (present * (chance / np.maximum(present.sum(axis=0), 1))).sum(axis=1)
    return np.maximum(1.0, weights * len(weights) / weights.sum())
