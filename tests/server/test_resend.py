"""A batch that is sent again, because its answer was lost, is applied once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from segtrail.server.operations import Operation
from segtrail.server.resend import Resend
from segtrail.server.store import Store
from tests.server.operations import PNG, assign, do, floats, images, strings


def send(store: Store, run: str, session: str, operations: Sequence[Operation], digest: str = "") -> None:
    errors = store.apply_with(run, operations, guard=Resend(session, digest))
    assert errors == []


def values(store: Store, run: str, path: str = "m") -> list[object]:
    return list(store.series(run, path)[1])


def test_the_same_bytes_again_from_the_same_client(store: Store, run: str) -> None:
    for _ in range(3):
        send(store, run, "client", [floats("m", [1, 1]), strings("log", ["\n", "\n"])], "digest")
    assert values(store, run) == [1, 1]
    assert values(store, run, "log") == ["\n", "\n"]


def test_a_new_session_that_begins_with_the_last_batch_of_another(store: Store, run: str) -> None:
    """The client was killed before it noted the answer; `neptune sync` sends all since the last noted one."""
    send(store, run, "client", [floats("m", [0])], "1")
    send(store, run, "client", [floats("m", [1, 2], at=10), strings("log", ["a"], at=10)], "2")
    send(store, run, "sync", [floats("m", [1, 2, 3], at=10), strings("log", ["a", "b"], at=10)], "3")
    assert values(store, run) == [0, 1, 2, 3]
    assert values(store, run, "log") == ["a", "b"]


def test_the_second_session_is_killed_too(store: Store, run: str) -> None:
    send(store, run, "client", [floats("m", [1, 2], at=10)], "1")
    send(store, run, "sync", [floats("m", [1, 2, 3, 4], at=10)], "2")
    send(store, run, "sync again", [floats("m", [1, 2, 3, 4, 5], at=10)], "3")
    assert values(store, run) == [1, 2, 3, 4, 5]


def test_equal_values_at_another_time_are_new(store: Store, run: str) -> None:
    send(store, run, "client", [floats("m", [1, 1], at=10)], "1")
    send(store, run, "client", [floats("m", [1, 1], at=20)], "2")
    send(store, run, "other", [floats("m", [1, 1], at=30)], "3")
    assert values(store, run) == [1] * 6


def test_only_a_whole_batch_is_a_repeat(store: Store, run: str) -> None:
    """One series alone may begin alike by chance; a batch that is sent again has all of them."""
    send(store, run, "rank 0", [floats("m", [1], at=10), floats("lr", [5], at=10)], "1")
    send(store, run, "rank 1", [floats("m", [1], at=10)], "2")
    assert values(store, run) == [1, 1]


def test_concurrent_writers_do_not_disturb_each_other(store: Store, run: str) -> None:
    for i in range(5):
        for rank in range(3):
            batch = [floats(f"rank/{rank}", [i], at=100 * i + rank), floats("m", [i], at=100 * i + rank)]
            send(store, run, f"rank {rank}", batch, f"{rank}/{i}")
            if i == 3:
                send(store, run, f"rank {rank}", batch, f"{rank}/{i}")
    assert len(values(store, run)) == 15
    assert values(store, run, "rank/1") == [0, 1, 2, 3, 4]


def test_a_batch_that_clears_may_be_applied_twice(store: Store, run: str) -> None:
    batch = [do("clearFloatSeries", "m"), floats("m", [1, 2], at=10)]
    send(store, run, "client", batch, "1")
    send(store, run, "sync", [*batch, floats("m", [3], at=20)], "2")
    assert values(store, run) == [1, 2, 3]


def test_images_and_what_comes_with_a_repeat(store: Store, run: str) -> None:
    send(store, run, "client", [images("i", [PNG])], "1")
    send(store, run, "sync", [images("i", [PNG, b"next"]), assign("Int", "a", 3)], "2")
    assert len(store.image_series(run, "i")) == 2
    assert store.attributes(run)["a"].value == 3


@pytest.mark.parametrize("steps", [[1, 2], [5, 5.5]])
def test_points_with_steps_protect_themselves(store: Store, run: str, steps: list[float]) -> None:
    for session in ("a", "b", "c"):
        send(store, run, session, [floats("m", [1, 2], steps, at=10)])
        send(store, run, session, [floats("m", [3], [9], at=20)])
    assert values(store, run) == [1, 2, 3]
