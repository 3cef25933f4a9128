"""What crosses from training to the server and the UI comes back exactly."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtrail.tracking import names
from segtrail.tracking.histogram import Histogram, decode_histograms, encode_histograms
from segtrail.tracking.label_map import (
    VOID_COLOR,
    decode_label_map,
    decode_palette,
    encode_image,
    encode_label_map,
)
from segtrail.tracking.per_image import PerImage, decode_per_image, encode_per_image


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(1, 256),
    ignore=st.sampled_from([None, 0, 254, 255]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 9),
    dtype=st.sampled_from([np.uint8, np.int32, np.int64]),
)
def test_label_map_returns_the_same_ids(classes, ignore, size, seed, dtype):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, classes, size)
    if ignore is not None:
        ids[rng.random(size) < 0.2] = ignore
    palette = rng.integers(0, 256, (classes, 3), dtype=np.uint8)
    data = encode_label_map(ids.astype(dtype), palette, ignore)
    assert np.array_equal(decode_label_map(data), ids)
    expected = palette.copy()
    if ignore is not None and ignore < classes:
        expected[ignore] = VOID_COLOR
    assert np.array_equal(decode_palette(data)[:classes], expected)


@pytest.mark.parametrize("bad", [np.array([[256]]), np.array([[-1]])])
def test_label_map_refuses_ids_that_do_not_fit(bad):
    with pytest.raises(ValueError, match=r"0\.\.255"):
        encode_label_map(bad, np.zeros((2, 3), np.uint8))


def test_label_map_refuses_floats_and_color_images():
    with pytest.raises(ValueError, match="integers"):
        encode_label_map(np.zeros((2, 2)), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="mode RGB"):
        decode_label_map(encode_image(np.zeros((2, 2, 3), np.uint8)))


def test_bool_masks_and_grey_maps():
    mask = np.eye(5, dtype=bool)
    assert np.array_equal(decode_label_map(encode_label_map(mask, np.zeros((2, 3), np.uint8))), mask)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(decode_label_map(encode_image(grey)), grey)


def test_histograms_round_trip():
    histograms = {
        "encoder.conv.weight": Histogram(np.arange(64), -0.25, 3.5),
        "head.bias": Histogram(np.zeros(64, np.int64), 0.0, 1.0),
    }
    back = decode_histograms(encode_histograms(histograms))
    assert list(back) == list(histograms)
    for name, histogram in histograms.items():
        assert np.array_equal(back[name].counts, histogram.counts)
        assert np.array_equal(back[name].edges, histogram.edges)
    assert decode_histograms(encode_histograms({})) == {}


def test_per_image_round_trip():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (5, 4, 4)) * rng.integers(0, 2**40, (5, 4, 4))
    classes = ("sea", "land", "ice", "été")
    last = PerImage(tuple(f"tile/{i}" for i in range(5)), counts, classes, step=120, epoch=3)
    best = PerImage(("a",), counts[:1], classes, step=80, epoch=2)
    back = decode_per_image(encode_per_image({"last": last, "best": best}))
    for which, expected in (("last", last), ("best", best)):
        assert (back[which].ids, back[which].class_names) == (expected.ids, expected.class_names)
        assert (back[which].step, back[which].epoch) == (expected.step, expected.epoch)
        assert np.array_equal(back[which].counts, expected.counts)


def test_per_image_checks_its_shape():
    with pytest.raises(ValueError, match=r"\(1, 2, 2\)"):
        PerImage(("a",), np.zeros((2, 2)), ("x", "y"), 0, 0)


def test_names():
    assert names.sample_prediction("val/0001") == "samples/val_0001/prediction"
    assert names.parameter("model", "encoder.name") == "parameters/model/encoder/name"
    assert names.class_metric("val", "IoU", "car/bus") == "val/IoU/car_bus"
    assert names.histograms(40, names.GRADIENTS) == "gradients/histograms/40"


def test_the_shared_files_stay_light():
    code = (
        "import sys, segtrail.tracking.names, segtrail.tracking.label_map, segtrail.tracking.histogram, "
        "segtrail.tracking.per_image; "
        "print([m for m in ('torch', 'pytorch_lightning', 'neptune', 'hydra') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
