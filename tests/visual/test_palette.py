import itertools

import cv2
import numpy as np
import pytest

from segtrail.visual.palette import VOID_COLOR, default_palette, voc_palette


def test_voc_palette_has_the_published_colors() -> None:
    palette = voc_palette(256)
    # VOC devkit: background, aeroplane, bicycle, ..., tvmonitor, void
    assert palette[[0, 1, 2, 3, 4, 8, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [64, 0, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
    assert len(np.unique(palette, axis=0)) == 256


def test_longer_palette_starts_with_the_shorter_one() -> None:
    longest = default_palette(1000)
    for count in (1, 2, 7, 21, 33, 256):
        np.testing.assert_array_equal(default_palette(count), longest[:count])
    assert len(np.unique(longest, axis=0)) == 1000
    assert not (longest == VOID_COLOR).all(axis=1).any()


def test_the_first_colors_stay_apart_when_red_and_green_look_alike() -> None:
    colors = default_palette(12).astype(np.float32)[None] / 255
    # deuteranope, Viénot et al. 1999; gamma approximated by 2.2 here
    matrix = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    seen = (colors**2.2 @ matrix.T).clip(0, 1).astype(np.float32)
    lab = cv2.cvtColor(seen, cv2.COLOR_LRGB2LAB)[0]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 15  # 2.3 is a just noticeable difference


@pytest.mark.parametrize("count", [0, 1001])
def test_count_out_of_range_is_one_line(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 1000 colors, got num_classes={count}"):
        default_palette(count)
