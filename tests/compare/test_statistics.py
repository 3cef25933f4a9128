"""The tests between runs against scipy, by hand, and on simulated runs that do not differ."""

import numpy as np
import pytest
from scipy import stats

from segtrail.compare.statistics import (
    Overlap,
    compare,
    holm,
    paired_bootstrap,
    paired_permutation,
)


def make_counts(rng, images=30, classes=3, skill=2.0):
    """Confusion counts of images of 1,000 pixels; more skill, more on the diagonal."""
    difficulty = rng.uniform(0.2, 1, (images, 1, 1))
    weights = rng.gamma(0.5, size=(images, classes, classes)) * difficulty
    weights += skill * np.eye(classes) * rng.gamma(1.0, size=(images, classes, 1))
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    return np.round(1000 * weights).astype(np.int64)


def difference_of_means(run_i, run_u, reference_i, reference_u, axis=-1):
    return run_i.sum(axis) / run_u.sum(axis) - reference_i.sum(axis) / reference_u.sum(axis)


def columns(run, reference, class_index=0):
    return tuple(
        values[:, class_index]
        for values in (run.intersection, run.union, reference.intersection, reference.union)
    )


def test_overlap_by_hand():
    counts = np.array([[[3, 1, 0], [2, 4, 0], [0, 0, 0]], [[5, 0, 0], [0, 0, 0], [0, 0, 0]]])
    overlap = Overlap.from_counts(counts)
    assert overlap.intersection.tolist() == [[3, 4, 0], [5, 0, 0]]
    assert overlap.union.tolist() == [[6, 7, 0], [5, 0, 0]]
    scores = overlap.scores()
    assert scores[:2] == pytest.approx([8 / 11, 4 / 7])
    assert np.isnan(scores[2]), "an absent class has no IoU"
    assert scores[3] == pytest.approx((8 / 11 + 4 / 7) / 2)
    assert overlap.image_scores()[1, 3] == 1


@pytest.mark.parametrize("class_index", [0, 2])
def test_bootstrap_agrees_with_scipy(class_index):
    rng = np.random.default_rng(1)
    run = Overlap.from_counts(make_counts(rng, skill=2.5))
    reference = Overlap.from_counts(make_counts(rng, skill=1.5))
    low, high = paired_bootstrap(run, reference, resamples=20_000, seed=3)
    expected = stats.bootstrap(
        columns(run, reference, class_index),
        difference_of_means,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="BCa",
        rng=np.random.default_rng(4),
    ).confidence_interval
    width = expected.high - expected.low
    assert low[class_index] == pytest.approx(expected.low, abs=0.03 * width)
    assert high[class_index] == pytest.approx(expected.high, abs=0.03 * width)


def scipy_permutation(run, reference, resamples):
    run_i, run_u, reference_i, reference_u = columns(run, reference)
    index = np.arange(len(run_i))

    def statistic(first, second, axis=-1):
        both_i, both_u = np.concatenate([run_i, reference_i]), np.concatenate([run_u, reference_u])
        first, second = first.astype(int), second.astype(int)
        return difference_of_means(both_i[first], both_u[first], both_i[second], both_u[second], axis)

    return stats.permutation_test(
        (index, index + len(index)),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(5),
    ).pvalue


def test_exact_permutation_equals_scipy():
    rng = np.random.default_rng(2)
    run = Overlap.from_counts(make_counts(rng, images=9, skill=2.2))
    reference = Overlap.from_counts(make_counts(rng, images=9, skill=1.6))
    p_value = paired_permutation(run, reference, resamples=1000)[0]
    assert p_value == pytest.approx(scipy_permutation(run, reference, 10_000), abs=1e-12)


def test_sampled_permutation_agrees_with_scipy():
    rng = np.random.default_rng(7)
    run = Overlap.from_counts(make_counts(rng, images=40, skill=2.2))
    reference = Overlap.from_counts(make_counts(rng, images=40, skill=1.8))
    ours = paired_permutation(run, reference, resamples=20_000, seed=1)[0]
    theirs = scipy_permutation(run, reference, 20_000)
    assert 0.001 < theirs < 0.999
    assert ours == pytest.approx(theirs, abs=4 * np.sqrt(theirs * (1 - theirs) / 20_000) * np.sqrt(2))


def test_holm_by_hand_and_by_order():
    assert holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).size == 0


def test_equal_runs_are_rejected_as_often_as_the_level_says():
    rng = np.random.default_rng(11)
    rejected = 0
    for simulation in range(2000):
        counts = make_counts(rng, images=40, classes=2)
        other = counts.copy()
        noise = rng.integers(-60, 61, (2, 40))  # exchangeable: both runs move each image alike
        for block, shift in ((counts, noise[0]), (other, noise[1])):
            moved = np.clip(shift, -block[:, 0, 0], block[:, 0, 1])
            block[:, 0, 0] += moved
            block[:, 0, 1] -= moved
        p_value = paired_permutation(
            Overlap.from_counts(counts), Overlap.from_counts(other), resamples=399, seed=simulation
        )
        rejected += p_value[-1] <= 0.05
    assert 0.04 <= rejected / 2000 <= 0.06


def test_a_clear_difference_is_found_and_an_absent_class_is_not_tested():
    rng = np.random.default_rng(3)
    reference = make_counts(rng, images=50, classes=3, skill=1.0)
    reference[:, 2, :] = reference[:, :, 2] = 0
    run = reference.copy()
    run[:, 0, 0] += run[:, 0, 1]
    run[:, 0, 1] = 0
    result = compare(Overlap.from_counts(run), Overlap.from_counts(reference), resamples=999)
    assert result.low[0] > 0
    assert result.p_holm[0] <= 0.01
    assert np.isnan([result.difference[2], result.low[2], result.p_holm[2]]).all()
    assert result.images == 50


def test_identical_runs_differ_by_nothing():
    counts = make_counts(np.random.default_rng(0))
    result = compare(Overlap.from_counts(counts), Overlap.from_counts(counts), resamples=199)
    assert (result.low == 0).all()
    assert (result.high == 0).all()
    assert (result.p_value == 1).all()


def test_one_image_has_no_interval():
    counts = make_counts(np.random.default_rng(0), images=1)
    result = compare(Overlap.from_counts(counts), Overlap.from_counts(counts[:, ::-1]), resamples=99)
    assert np.isnan(result.low).all()
    assert (result.p_value == 1).all()


def test_unpaired_input_is_refused():
    counts = make_counts(np.random.default_rng(0))
    with pytest.raises(ValueError, match="same images and classes"):
        compare(Overlap.from_counts(counts), Overlap.from_counts(counts[:-1]))
    with pytest.raises(ValueError, match="at least one image"):
        compare(Overlap.from_counts(counts[:0]), Overlap.from_counts(counts[:0]))
