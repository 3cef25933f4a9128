"""Labels of drawn objects keep apart, and every kind of picture can be drawn on."""

from __future__ import annotations

import numpy as np
import pytest

from segtrail.visual.instances import draw_instances, place_labels
from segtrail.visual.palette import default_palette

NAMES = ("background", "person", "motorcycle")


def rectangles(places: list[tuple[int, int] | None], extents: list[tuple[int, int]]) -> np.ndarray:
    return np.array(
        [
            (x, y, x + w, y + h)
            for place, (w, h) in zip(places, extents, strict=True)
            if place is not None
            for x, y in [place]
        ]
    )


def overlaps(boxes: np.ndarray) -> int:
    lows = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    highs = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    return int(((highs > lows).all(-1).sum() - len(boxes)) // 2)


@pytest.mark.parametrize("count", [1, 30, 1000])
def test_labels_neither_collide_nor_leave_the_picture(count: int) -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(-20, 500, (count, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(1, 60, (count, 2))], axis=1)
    extents = [(int(width), 16) for width in generator.integers(40, 110, count)]
    places = place_labels(boxes, extents, (480, 640))
    drawn = rectangles(places, extents)
    assert overlaps(drawn) == 0
    assert drawn.min() >= 0
    assert (drawn.max(0)[2:] <= (640, 480)).all()
    if count <= 30:
        assert len(drawn) == count
    else:  # full, and the best ones are there
        assert 50 < len(drawn) < count
        assert places[0] is not None


def test_a_lone_label_stands_on_its_box() -> None:
    assert place_labels(np.array([[50, 60, 90, 100.0]]), [(40, 16)], (200, 200)) == [(50, 44)]
    assert place_labels(np.array([[50, 5, 90, 100.0]]), [(40, 16)], (200, 200)) == [(50, 5)]
    assert place_labels(np.array([[50, 60, 90, 100.0]]), [(400, 16)], (200, 200)) == [None]


def test_drawing_marks_the_object_and_leaves_the_rest() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[100:150, 100:200] = True
    boxes = np.array([[100, 100, 200, 150.0]])
    picture = draw_instances(image, boxes, [mask], [2], [0.9], NAMES, default_palette(3), min_side=200)
    assert picture.shape == image.shape
    assert (picture[160:, :] == 90).all()
    expected = np.rint(90 * 0.55 + default_palette(3)[2] * 0.45)
    np.testing.assert_array_equal(picture[125, 120], expected)
    assert (image == 90).all()  # the input is left alone


def test_odd_pictures() -> None:
    gray = np.zeros((30, 20), np.uint8)
    nothing = draw_instances(gray, np.zeros((0, 4)), [], [], [], NAMES)
    assert nothing.shape == (960, 640, 3)
    pixel = np.zeros((30, 20), bool)
    pixel[29, 19] = True
    picture = draw_instances(gray, np.array([[19, 29, 20, 30.0]]), [pixel], [1], None, NAMES)
    assert picture[-10, -10].any()
    tiny = draw_instances(
        np.zeros((1, 1, 3), np.uint8), np.array([[0, 0, 1, 1.0]]), [np.ones((1, 1))], [1], [1], NAMES
    )
    assert tiny.shape == (640, 640, 3)
    hidden = draw_instances(gray, np.array([[2, 2, 9, 9.0]]), [np.zeros((30, 20), bool)], [1], [0.5], NAMES)
    assert hidden.any()  # the box of an object without a mask
    with pytest.raises(ValueError, match="uint8"):
        draw_instances(np.zeros((3, 3, 4), np.uint8), np.zeros((0, 4)), [], [], [], NAMES)


def test_thousand_objects() -> None:
    generator = np.random.default_rng(0)
    corner = generator.integers(0, 90, (1000, 2))
    masks = (np.eye(96, dtype=bool)[[y]].T @ np.eye(96, dtype=bool)[[x]] for x, y in corner)
    boxes = np.concatenate([corner, corner + 1], axis=1)
    picture = draw_instances(
        np.zeros((96, 96, 3), np.uint8), boxes, masks, [1] * 1000, np.linspace(1, 0, 1000), NAMES
    )
    assert picture.shape == (672, 672, 3)
