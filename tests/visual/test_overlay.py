import numpy as np
import pytest

from segtrail.visual.overlay import boundaries, colorize, legend, overlay
from segtrail.visual.palette import VOID_COLOR, default_palette
from segtrail.visual.panel import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE, WRONG, error_layer, panel

PALETTE = default_palette(3)
IMAGE = np.full((4, 6, 3), 100, np.uint8)
LABELS = np.array([[0, 0, 0, 1, 1, 1]] * 3 + [[0, 0, 0, 1, 1, 255]], np.uint8)


def test_colorize_uses_the_palette_and_the_void_color() -> None:
    colors = colorize(LABELS, PALETTE)
    np.testing.assert_array_equal(colors[LABELS == 1], np.tile(PALETTE[1], (11, 1)))
    assert tuple(colors[3, 5]) == VOID_COLOR


@pytest.mark.parametrize("bad", [3, -1])
def test_id_without_color_is_named(bad: int) -> None:
    with pytest.raises(ValueError, match=f"id {bad}, but the palette has 3 colors"):
        colorize(np.array([[0, bad]]), PALETTE)


def test_boundaries_mark_both_sides() -> None:
    labels = np.zeros((3, 5), int)
    labels[:, 2:] = 7
    expected = np.zeros((3, 5), bool)
    expected[:, 1:3] = True
    np.testing.assert_array_equal(boundaries(labels), expected)
    assert boundaries(labels, 2)[:, :4].all()
    assert not boundaries(labels, 2)[:, 4].any()
    assert not boundaries(np.zeros((1, 1), int)).any()


def test_overlay_blends_hides_and_outlines() -> None:
    plain = overlay(IMAGE, LABELS, PALETTE, opacity=0.5, contour=0, hidden=[0])
    np.testing.assert_array_equal(plain[LABELS == 0], IMAGE[LABELS == 0])
    np.testing.assert_array_equal(plain[3, 5], IMAGE[3, 5])
    np.testing.assert_allclose(plain[0, 5], (100 + PALETTE[1].astype(int)) / 2, atol=1)
    outlined = overlay(IMAGE[..., 0], LABELS, PALETTE, opacity=0)
    np.testing.assert_array_equal(outlined[0, 2], PALETTE[0])
    np.testing.assert_array_equal(outlined[0, 3], PALETTE[1])
    np.testing.assert_array_equal(outlined[0, 0], IMAGE[0, 0])


def test_overlay_rejects_another_size() -> None:
    with pytest.raises(ValueError, match=r"image is \(4, 6\).*label map is \(4, 5\)"):
        overlay(IMAGE, LABELS[:, :5], PALETTE)


def test_error_layer_of_one_class_and_of_all() -> None:
    target = np.array([[1, 1, 0, 0, 2, 255]])
    prediction = np.array([[1, 0, 1, 0, 1, 1]])
    image = np.zeros((1, 6), np.uint8)

    def nearest(pixel: np.ndarray) -> str:
        colors = {"tp": TRUE_POSITIVE, "fp": FALSE_POSITIVE, "fn": FALSE_NEGATIVE, "none": (32, 32, 32)}
        return min(colors, key=lambda name: np.abs(np.subtract(colors[name], pixel.astype(int))).sum())

    layer = error_layer(image, target, prediction, positive=1)
    assert [nearest(pixel) for pixel in layer[0]] == ["tp", "fn", "fp", "none", "fp", "none"]
    layer = error_layer(image, target, prediction)
    wrong = np.abs(layer[0].astype(int) - np.array(WRONG) * 3 // 4).max(axis=1) <= 8
    assert wrong.tolist() == [False, True, True, False, True, False]


def test_legend_wraps_into_its_width() -> None:
    names = ["sky", "building", "a rather long class name"]
    wide, narrow = legend(names, PALETTE, 600), legend(names, PALETTE, 120)
    assert wide.shape[1] == 600
    assert narrow.shape[1] == 120
    assert narrow.shape[0] > wide.shape[0]
    for color in PALETTE:
        assert (wide == color).all(axis=2).any()
        assert (narrow == color).all(axis=2).any()


@pytest.mark.parametrize(("with_target", "tiles"), [(True, 4), (False, 2)])
def test_panel_has_a_tile_for_each_part(with_target: bool, tiles: int) -> None:
    target = LABELS if with_target else None
    picture = panel(IMAGE, target, np.zeros_like(LABELS), PALETTE, ["a", "b", "c"])
    assert picture.dtype == np.uint8
    assert picture.shape[1] == tiles * (IMAGE.shape[1] + 4)
    bare = panel(IMAGE, target, np.zeros_like(LABELS), PALETTE)
    np.testing.assert_array_equal(picture[: len(bare)], bare)
