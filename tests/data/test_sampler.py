import numpy as np
import pytest

from segtrail.data.sampler import EpochSampler, EvaluationSampler
from segtrail.data.types import DataError


def test_order_is_a_function_of_seed_and_epoch() -> None:
    one, other = EpochSampler(20, 4, seed=7), EpochSampler(20, 4, seed=7)
    other.set_epoch(3)
    list(other)
    other.set_epoch(0)
    assert list(one) == list(other)
    one.set_epoch(1)
    assert [index for _, index in one] != [index for _, index in other]
    assert {epoch for epoch, _ in one} == {1}
    assert list(EpochSampler(20, 4, seed=8)) != list(EpochSampler(20, 4, seed=7))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_global_batches_of_one_process(world_size: int) -> None:
    single = [index for _, index in EpochSampler(26, 2 * world_size, seed=1)]
    ranks = [list(EpochSampler(26, 2, seed=1, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    joined = []
    for batch in range(len(ranks[0]) // 2):
        joined += [index for rank in ranks for _, index in rank[2 * batch : 2 * batch + 2]]
    assert joined == single


def test_resuming_continues_the_same_order() -> None:
    whole = EpochSampler(23, 4, seed=2)
    whole.set_epoch(5)
    expected = list(whole)
    resumed = EpochSampler(23, 4, seed=2)
    resumed.resume(5, 3)
    resumed.set_epoch(5)  # Lightning announces the epoch again
    assert list(resumed) == expected[12:]
    assert len(resumed) == 20
    resumed.set_epoch(6)
    assert len(list(resumed)) == 20


def test_repeat_factors_set_how_often_a_sample_appears() -> None:
    factors = np.array([1.0, 1.0, 2.5, 1.0])
    sampler = EpochSampler(4, 1, seed=0, repeat_factors=factors)
    counts = np.zeros(4)
    for epoch in range(200):
        for index in sampler.order(epoch):
            counts[index] += 1
    np.testing.assert_allclose(counts / 200, factors, atol=0.12)
    assert len(list(sampler)) == len(sampler) == 5


def test_too_few_samples_are_told() -> None:
    with pytest.raises(DataError, match=r"5 samples, fewer than one batch of 8: set loader.batch_size=5"):
        EpochSampler(5, 8, seed=0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_each_sample_once(world_size: int) -> None:
    seen = [index for rank in range(world_size) for _, index in EvaluationSampler(10, rank, world_size)]
    assert sorted(seen) == list(range(10))
