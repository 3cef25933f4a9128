"""Objects of two runs, matched by hand-made masks."""

from __future__ import annotations

import numpy as np

from segtrail.compare.objects import Match, match_objects
from segtrail.data.detections import encode


def item(left: int, width: int, label: int) -> dict[str, object]:
    mask = np.zeros((10, 100), bool)
    mask[:, left : left + width] = True
    return {"segmentation": encode(mask), "category_id": label}


def test_kept_relabelled_lost_and_gained() -> None:
    before = [item(0, 10, 1), item(20, 10, 1), item(40, 10, 2)]
    after = [item(60, 10, 1), item(20, 10, 3), item(2, 10, 1)]
    assert match_objects(before, after) == [
        Match(0, 2, 8 / 12, "kept"),
        Match(1, 1, 1.0, "relabelled"),
        Match(2, None, 0.0, "lost"),
        Match(None, 0, 0.0, "gained"),
    ]


def test_the_assignment_is_the_best_one_over_all() -> None:
    # Greedy would give 0 to 0 (IoU 9/11) and leave 1 alone; together 0-1 and 1-0 keep both.
    before = [item(10, 10, 1), item(12, 10, 1)]
    after = [item(11, 10, 1), item(8, 10, 1)]
    changes = [match.change for match in match_objects(before, after)]
    assert changes == ["kept", "kept"]


def test_equal_masks_go_to_the_equal_class() -> None:
    before = [item(10, 10, 1), item(10, 10, 2)]
    after = [item(10, 10, 2), item(10, 10, 1)]
    found = [(match.before, match.after, match.change) for match in match_objects(before, after)]
    assert found == [(0, 1, "kept"), (1, 0, "kept")]


def test_nothing_on_one_side() -> None:
    assert match_objects([], []) == []
    assert [match.change for match in match_objects([item(0, 5, 1)], [])] == ["lost"]
    assert [match.change for match in match_objects([], [item(0, 5, 1)])] == ["gained"]
    assert [m.change for m in match_objects([item(0, 10, 1)], [item(8, 10, 1)])] == ["lost", "gained"]
