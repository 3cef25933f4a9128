"""Is the difference between two runs more than noise? Paired resampling tests over images.

Both runs are evaluated on the same images, so the image is the unit that is resampled. IoU is a ratio of
sums over images: every resample pools intersections and unions first and divides last, as the metric does.

Sources: Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 14 (BCa) and 15
(permutation); Holm, *A simple sequentially rejective multiple test procedure* (1979); Phipson and Smyth,
*Permutation P-values should never be zero* (2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_CHUNK_VALUES = 8_000_000  # weights held at a time: 64 MB


@dataclass(frozen=True, slots=True)
class Overlap:
    """Intersections and unions of each image and class, in pixels.

    Attributes:
        intersection: (N, C) float64.
        union: (N, C) float64; zero where an image has the class neither in the target nor in the prediction.
    """

    intersection: np.ndarray
    union: np.ndarray

    @classmethod
    def from_counts(cls, counts: np.ndarray) -> Overlap:
        """From (N, C, C) confusion counts; rows are the target's classes, columns the prediction's."""
        counts = np.asarray(counts)
        intersection = np.einsum("ncc->nc", counts).astype(np.float64)
        union = counts.sum(axis=2) + counts.sum(axis=1) - intersection
        return cls(intersection, union.astype(np.float64))

    def select(self, images: list[int], classes: list[int]) -> Overlap:
        """The same for some images and classes, in the order given."""
        rows, columns = np.array(images, np.intp), np.array(classes, np.intp)
        return Overlap(self.intersection[rows][:, columns], self.union[rows][:, columns])

    def scores(self) -> np.ndarray:
        """(C + 1,) IoU of each class over all images, then their mean; NaN for an absent class."""
        return _scores(self.intersection.sum(axis=0), self.union.sum(axis=0))

    def image_scores(self) -> np.ndarray:
        """(N, C + 1) IoU of each class in each image, then the mean over the classes the image has."""
        return _scores(self.intersection, self.union)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Run minus reference for each class and, last, for the mean; arrays are (C + 1,) float64.

    Attributes:
        difference: of the IoU; NaN where a class is absent from both.
        low, high: ends of the confidence interval (BCa bootstrap).
        p_value: two-sided, paired permutation test.
        p_holm: of the classes, corrected for testing all of them; of the mean, uncorrected (one test).
        images: how many images were paired.
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    p_holm: np.ndarray
    images: int


def compare(
    run: Overlap, reference: Overlap, resamples: int = 4999, confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """Tests whether two runs differ on the images that they share.

    Args:
        run, reference: overlaps with the same images and classes in the same order.
        resamples: of the bootstrap and of the permutation test, each.
        confidence: of the interval.
        seed: of the resampling; the same seed gives the same numbers.

    Raises:
        ValueError: if the two do not have the same images and classes, or there is no image.
    """
    if run.union.shape != reference.union.shape:
        raise ValueError(
            f"paired tests need the same images and classes, got {run.union.shape} and "
            f"{reference.union.shape} (images, classes)"
        )
    if not len(run.union):
        raise ValueError("paired tests need at least one image that both runs evaluated")
    low, high = paired_bootstrap(run, reference, resamples, confidence, seed)
    p_value = paired_permutation(run, reference, resamples, seed)
    p_holm = np.append(holm(p_value[:-1]), p_value[-1])
    difference = run.scores() - reference.scores()
    return Comparison(difference, low, high, p_value, p_holm, len(run.union))


def paired_bootstrap(
    run: Overlap, reference: Overlap, resamples: int = 4999, confidence: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated interval of the differences.

    Returns:
        (low, high), each (C + 1,) float64; NaN where the interval is not defined (one image, or a
        difference that no resample changes has low = high instead).
    """
    images = len(run.union)
    table = _table(run, reference)
    rng = np.random.default_rng(seed)
    observed = _differences(table.sum(axis=0)[None])[0]
    replicates = np.empty((resamples, len(observed)))
    for start, stop in _chunks(resamples, images):
        drawn = rng.integers(0, images, (stop - start, images))
        drawn += images * np.arange(stop - start)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=(stop - start) * images).reshape(-1, images)
        replicates[start:stop] = _differences(weights.astype(np.float64) @ table)
    jackknife = _differences(table.sum(axis=0) - table)

    low, high = np.full(len(observed), np.nan), np.full(len(observed), np.nan)
    normal = NormalDist()
    tails = [normal.inv_cdf((1 - confidence) / 2), normal.inv_cdf((1 + confidence) / 2)]
    for column, value in enumerate(observed):
        values = replicates[np.isfinite(replicates[:, column]), column]
        if not np.isfinite(value) or not len(values) or images < 2:
            continue
        if np.ptp(values) == 0:
            low[column] = high[column] = value
            continue
        below = np.mean(values < value) / 2 + np.mean(values <= value) / 2
        bias = normal.inv_cdf(float(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
        influence = np.nanmean(jackknife[:, column]) - jackknife[:, column]
        spread = np.nansum(influence**2)
        acceleration = np.nansum(influence**3) / (6 * spread**1.5) if spread > 0 else 0.0
        levels = [normal.cdf(bias + (bias + tail) / (1 - acceleration * (bias + tail))) for tail in tails]
        low[column], high[column] = np.quantile(values, levels)
    return low, high


def paired_permutation(run: Overlap, reference: Overlap, resamples: int = 4999, seed: int = 0) -> np.ndarray:
    """Two-sided p-values under the hypothesis that the two runs are interchangeable on every image.

    All 2^N assignments are counted where they are no more than ``resamples``; otherwise that many are
    drawn and the observed one is counted among them, so that no p-value is zero.

    Returns:
        (C + 1,) float64; NaN where the difference is not defined.
    """
    images = len(run.union)
    table = _table(run, reference)
    half = table.shape[1] // 2
    swapped = np.concatenate([table[:, half:], table[:, :half]], axis=1)
    total, change = table.sum(axis=0), swapped - table
    observed = np.abs(_differences(total[None])[0])
    tolerance = 1e-12 * np.maximum(observed, 1)
    exact = images <= 40 and 2**images <= resamples
    count = 2**images if exact else resamples
    rng = np.random.default_rng(seed)
    extreme = np.zeros(len(observed))
    valid = np.zeros(len(observed))
    for start, stop in _chunks(count, images):
        if exact:
            flips = (np.arange(start, stop)[:, None] >> np.arange(images)) & 1
        else:
            flips = rng.integers(0, 2, (stop - start, images), dtype=np.int8)
        null = np.abs(_differences(total + flips.astype(np.float64) @ change))
        valid += np.isfinite(null).sum(axis=0)
        extreme += (null >= observed - tolerance).sum(axis=0)
    drawn = 0 if exact else 1
    with np.errstate(invalid="ignore", divide="ignore"):
        p_value = (extreme + drawn) / (valid + drawn)
    return np.where(np.isfinite(observed), p_value, np.nan)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction; NaN entries stay and do not count as tests.

    >>> holm(np.array([0.01, 0.04, 0.03, np.nan])).round(2).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    p_values = np.asarray(p_values, np.float64)
    corrected = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    scaled = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1) if len(order) else scaled
    return corrected


def _scores(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """(..., C) sums -> (..., C + 1) IoU with the mean over present classes last."""
    present = union > 0
    scores = np.full(union.shape, np.nan)
    np.divide(intersection, union, out=scores, where=present)
    count = present.sum(axis=-1)
    mean = np.full(count.shape, np.nan)
    np.divide(np.where(present, scores, 0).sum(axis=-1), count, out=mean, where=count > 0)
    return np.concatenate([scores, mean[..., None]], axis=-1)


def _table(run: Overlap, reference: Overlap) -> np.ndarray:
    """(N, 4C): intersections and unions of the run, then of the reference; sums of rows are poolings."""
    return np.concatenate([run.intersection, run.union, reference.intersection, reference.union], axis=1)


def _differences(pooled: np.ndarray) -> np.ndarray:
    """(R, 4C) pooled tables -> (R, C + 1) run minus reference."""
    run_i, run_u, reference_i, reference_u = np.split(pooled, 4, axis=1)
    return _scores(run_i, run_u) - _scores(reference_i, reference_u)


def _chunks(count: int, images: int) -> list[tuple[int, int]]:
    size = max(1, _CHUNK_VALUES // max(images, 1))
    return [(start, min(start + size, count)) for start in range(0, count, size)]
