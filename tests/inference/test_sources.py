"""Sources and the writer: what goes in by any format, what comes out decodes to the same ids."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrail.data.types import DataError
from segtrail.inference.predictor import Prediction
from segtrail.inference.sources import find_sources
from segtrail.inference.writer import PredictionWriter
from segtrail.tracking.label_map import decode_label_map
from segtrail.visual.palette import default_palette


def names(source: str | list[str]) -> list[str]:
    return [found.name for found in find_sources(source)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a.png, sub/b.jpg, sub/a.png and a text file."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    image = Image.fromarray(np.full((6, 8, 3), 90, np.uint8))
    for name in ("a.png", "sub/b.jpg", "sub/a.png"):
        image.save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_files_folders_globs_and_lists(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(str(photos)) == ["a", "sub/a", "sub/b"]
    assert names(str(photos / "sub" / "b.jpg")) == ["b"]
    assert names(f"{photos}/*.png") == ["a"]
    assert names(f"{photos}/**/a.*") == ["a", "sub/a"]
    monkeypatch.chdir(photos)
    assert names("sub/*.jpg") == ["b"]
    assert names("*/a.png") == ["sub/a"]
    assert names(["a.png", "sub"]) == ["000000-a.png", "000001-a.png", "b"]


def test_names_stay_unique(photos: Path) -> None:
    Image.open(photos / "a.png").save(photos / "a.bmp")
    assert names(str(photos)) == ["a.bmp", "a.png", "sub/a", "sub/b"]
    both = names([str(photos / "a.png"), str(photos / "sub" / "a.png"), str(photos / "a.png")])
    assert len(both) == 2
    assert len(set(both)) == 2


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.jpg", "."])
def test_nothing_found_is_one_line(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"give source=FILE, FOLDER or 'FOLDER/\*.jpg'") as caught:
        find_sources(source)
    assert "\n" not in str(caught.value)


def gradient(kind: type = np.uint8) -> np.ndarray:
    top = np.iinfo(kind).max
    return np.linspace(0, top, 12 * 16).reshape(12, 16).astype(kind)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("L", "LA", "RGBA", "P", "I;16", "1")),
        *(("jpg", mode) for mode in ("L", "RGB", "CMYK")),
        *(("tif", mode) for mode in ("RGB", "I;16")),
        ("webp", "RGBA"),
        ("bmp", "RGB"),
    ],
)
def test_every_kind_of_picture_becomes_rgb(suffix: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    gray = Image.fromarray(gradient())
    if mode == "I;16":
        Image.fromarray(gradient(np.uint16)).save(path)
    elif mode == "1":
        gray.point(lambda value: 255 * (value > 127)).convert("1").save(path)
    else:
        rgb = gray.convert("RGB")
        (rgb if mode in ("RGBA", "CMYK", "RGB") else gray).convert(mode).save(path)
    image = find_sources(str(path))[0].read()
    assert image.shape == (12, 16, 3)
    assert image.dtype == np.uint8
    expected = 255 * (gradient() > 127) if mode == "1" else gradient()
    assert np.abs(image.astype(int) - expected[..., None]).max() <= (24 if suffix in ("jpg", "webp") else 1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_upright_unless_told_otherwise(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    upright = find_sources(str(path))[0].read()
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    expected = np.rot90(pixels, turns)
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).mean() < 8
    stored = find_sources(str(path), exif="ignore")[0].read()
    assert np.abs(stored.astype(int) - pixels).mean() < 8


@pytest.mark.parametrize("content", [b"", b"not a picture", "truncated"])
def test_broken_file_is_one_line(content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    if content == "truncated":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
        content = path.read_bytes()[:800]
    path.write_bytes(content)
    (source,) = find_sources(str(path))
    with pytest.raises(DataError, match=r"broken\.jpg") as caught:
        source.read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [2, 19, 256, 300])
def test_label_maps_decode_to_the_ids(classes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(classes)
    label_map = rng.integers(0, classes, (21, 34)).astype(np.uint8 if classes <= 256 else np.int32)
    label_map[0, :2] = 0, classes - 1
    prediction = Prediction(label_map, rng.random((21, 34), np.float32))
    image = rng.integers(0, 256, (21, 34, 3)).astype(np.uint8)
    class_names = [f"class {k}" for k in range(classes)]
    writer = PredictionWriter(tmp_path / "out", class_names, default_palette(classes), confidence=True)
    writer.write("sub/photo.v2", image, prediction)
    data = (tmp_path / "out/label_maps/sub/photo.v2.png").read_bytes()
    if classes <= 256:
        np.testing.assert_array_equal(decode_label_map(data), label_map)
    with Image.open(tmp_path / "out/label_maps/sub/photo.v2.png") as stored:
        np.testing.assert_array_equal(np.array(stored), label_map)
    confidence = np.array(Image.open(tmp_path / "out/confidence/sub/photo.v2.png"))
    np.testing.assert_allclose(confidence / 255, prediction.confidence, atol=0.5 / 255 + 1e-6)
    assert np.array(Image.open(tmp_path / "out/overlays/sub/photo.v2.png")).shape == (21, 34, 3)
    assert (tmp_path / "out/classes.txt").read_text().splitlines() == class_names


def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, ["a", "b"], default_palette(2), overlays=False)
    writer.write("x", np.zeros((2, 2, 3), np.uint8), Prediction(np.zeros((2, 2), np.uint8), np.ones((2, 2))))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.txt", "label_maps"]
