"""Decoding of pictures and masks, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segtrail.data.files import image_size, read_image, read_labels
from segtrail.data.types import DataError
from tests.data.makers import color_mask, ids, index_mask, palette_mask, picture


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
def test_image_formats_decode_as_pillow_does(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture(path, (21, 34))
    expected = np.array(Image.open(path).convert("RGB"))
    image = read_image(path)
    assert image.shape == (21, 34, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= (1 if suffix == ".webp" else 0)
    assert image_size(path) == (21, 34)


def test_palette_png_gives_indices_not_colors(tmp_path: Path) -> None:
    mask = palette_mask(tmp_path / "m.png", ids(classes=21))
    assert (read_labels(tmp_path / "m.png") == mask).all()
    # The trap: OpenCV alone returns colors.
    assert cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED).ndim == 3


def test_grey_masks_of_every_depth(tmp_path: Path) -> None:
    small = index_mask(tmp_path / "8.png", ids())
    wide = index_mask(tmp_path / "16.png", ids().astype(np.uint16) * 300)
    array = index_mask(tmp_path / "a.npy", ids().astype(np.int64))
    bits = ids(classes=2, void=False)
    Image.fromarray(bits.astype(bool)).save(tmp_path / "1.png")
    assert read_labels(tmp_path / "8.png").dtype == np.uint8
    assert read_labels(tmp_path / "16.png").dtype == np.int32
    for name, expected in (("8.png", small), ("16.png", wide), ("a.npy", array), ("1.png", bits)):
        assert (read_labels(tmp_path / name) == expected).all()


def test_color_mask_keeps_channel_order(tmp_path: Path) -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    mask = color_mask(tmp_path / "c.png", ids(void=False), colors)
    assert (read_labels(tmp_path / "c.png") == colors[mask]).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_pictures_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    picture(path, (64, 64))
    path.write_bytes(path.read_bytes()[:-120])
    with pytest.raises(DataError, match=rf"cut{suffix}.*truncated"):
        read_image(path)


def test_bytes_behind_the_end_are_no_fault(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    expected = read_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"\0" * 500)
    assert (read_image(tmp_path / "a.jpg") == expected).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jpg", b"", "empty"),
        ("a.jpg", b"not a picture", "not recognized"),
        ("missing.jpg", None, "No such file"),
    ],
)
def test_unreadable_pictures_are_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        read_image(tmp_path / name)


def test_npy_mask_must_be_2d_integers(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match="float64"):
        read_labels(tmp_path / "f.npy")


def test_exif_orientation_is_ignored_or_applied(tmp_path: Path) -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, :10] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(image).save(tmp_path / "e.jpg", exif=exif)
    assert read_image(tmp_path / "e.jpg").shape == (10, 20, 3)
    turned = read_image(tmp_path / "e.jpg", exif="apply")
    assert turned.shape == (20, 10, 3)
    assert turned[:9].mean() > 250  # left has become top
    assert image_size(tmp_path / "e.jpg", exif="apply") == (20, 10)


def test_reduced_decoding_keeps_the_short_side(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (160, 203))
    assert read_image(tmp_path / "a.jpg", min_side=200).shape[:2] == (160, 203)
    assert read_image(tmp_path / "a.jpg", min_side=80).shape[:2] == (80, 102)
    assert read_image(tmp_path / "a.jpg", min_side=20).shape[:2] == (20, 26)
