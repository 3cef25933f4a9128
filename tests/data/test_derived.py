"""Derived maps against brute force and against SciPy's exact transform."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segtrail.data import derived
from segtrail.losses import distance_maps

VOID = 255
IMAGE = np.zeros((1, 1, 3), np.uint8)


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    values = st.sampled_from([0, 0, 0, 1, 1, 2, VOID])
    flat = draw(st.lists(values, min_size=height * width, max_size=height * width))
    return np.array(flat, np.uint8).reshape(height, width)


def signed_by_scipy(mask: np.ndarray, classes: int) -> np.ndarray:
    result = np.zeros((classes, *mask.shape))
    known = mask != VOID
    for c in range(classes):
        inside, outside = mask == c, (mask != c) & known
        if inside.any() and outside.any():
            result[c] = np.where(
                inside,
                1 - ndimage.distance_transform_edt(~outside),
                ndimage.distance_transform_edt(~inside),
            )
        result[c][~known] = 0
    return result


@settings(max_examples=80, deadline=None)
@given(masks())
def test_distances(mask: np.ndarray) -> None:
    signed = derived.signed_distance(IMAGE, mask, 4, VOID)
    wanted = signed_by_scipy(mask, 4)
    np.testing.assert_allclose(signed, wanted, atol=1e-5)
    two_sided = (wanted != 0).any((1, 2))[:, None, None]
    inside = mask == np.arange(4)[:, None, None]
    contour = np.where(inside & two_sided, 1 - wanted, np.abs(wanted))
    alone = len(np.unique(mask[mask != VOID])) < 2
    if not alone:
        contour = np.where(inside, 1 - wanted, wanted)
        np.testing.assert_allclose(derived.contour_distance(IMAGE, mask, 4, VOID), contour, atol=1e-5)
        label = np.where(mask == VOID, 0, (contour * inside).sum(0))
        np.testing.assert_allclose(derived.label_distance(IMAGE, mask, 4, VOID), label, atol=1e-5)
    else:
        assert not derived.contour_distance(IMAGE, mask, 4, VOID).any()
        assert not derived.label_distance(IMAGE, mask, 4, VOID).any()


@settings(max_examples=40, deadline=None)
@given(masks())
def test_tensors_get_the_same_maps_on_both_paths(mask: np.ndarray) -> None:
    labels = torch.from_numpy(mask.astype(np.int32))[None]
    masked = torch.where(labels == VOID, -1, labels).long()
    one, other = distance_maps._to_classes_opencv(masked, 3), distance_maps._to_classes_batched(masked, 3)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_binary_is_the_foreground() -> None:
    mask = np.zeros((5, 7), np.uint8)
    mask[2:4, 3:5] = 1
    both = derived.signed_distance(IMAGE, mask, 2, VOID)
    (foreground,) = derived.signed_distance(IMAGE, mask, 1, VOID)
    np.testing.assert_array_equal(foreground, both[1])
    assert foreground[2, 3] == 0
    assert foreground[2, 0] == 3


def test_one_transform_for_each_class_present(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    transform = derived.cv2.distanceTransform
    monkeypatch.setattr(
        derived.cv2, "distanceTransform", lambda *a, **k: calls.append(1) or transform(*a, **k)
    )
    mask = np.zeros((8, 8), np.uint8)
    mask[:4], mask[6:] = 3, 7
    derived.signed_distance(IMAGE, mask, 21, VOID)
    assert len(calls) == 3


def edges_by_disk(mask: np.ndarray, radius: int) -> np.ndarray:
    result = np.zeros(mask.shape, np.uint8)
    height, width = mask.shape
    for y, x in itertools.product(range(height), range(width)):
        around = {
            int(mask[v, u])
            for v, u in itertools.product(range(height), range(width))
            if (y - v) ** 2 + (x - u) ** 2 <= radius**2 and mask[v, u] != VOID
        }
        result[y, x] = len(around) > 1
    result[mask == VOID] = derived.VOID_EDGE
    return result


@settings(max_examples=40, deadline=None)
@given(masks(), st.integers(1, 3), st.sampled_from([np.uint8, np.int32]))
def test_edges(mask: np.ndarray, radius: int, dtype: type) -> None:
    wanted = edges_by_disk(mask, radius)
    np.testing.assert_array_equal(derived.edges(IMAGE, mask.astype(dtype), 3, VOID, radius), wanted)


def test_edges_of_many_classes() -> None:
    mask = np.zeros((4, 6), np.int32)
    mask[:, 3:] = 1000
    mask[0, 0] = -1
    wanted = np.zeros((4, 6), np.uint8)
    wanted[:, 1:5] = 1
    wanted[0, 0] = derived.VOID_EDGE
    np.testing.assert_array_equal(derived.edges(IMAGE, mask, 1001, -1), wanted)
