"""Objects in every kind of photograph, in folders, addresses and videos; files and the tracked run."""

from __future__ import annotations

import csv
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import segtrail
from segtrail.config.check import ConfigError
from segtrail.data.datasets.coco import CocoDataset
from segtrail.data.datasets.folder import FolderDataset
from segtrail.data.detections import Detections, decode, encode
from segtrail.data.types import DataError
from segtrail.inference.instance import InstancePredictor, chosen_parameters
from segtrail.inference.instance_sources import Video, fetch, find_media
from segtrail.inference.instance_writer import InstanceWriter
from segtrail.inference.predict import run
from segtrail.models.mask_rcnn import MaskRCNN
from segtrail.models.mask_rcnn_backbones import ResNetFPN
from segtrail.models.mask_rcnn_matterport import matterport_parameters
from segtrail.visual.palette import default_palette

NAMES = ("disk", "box")
SMALL = [
    "model=mask_rcnn_light",
    "model.backbone.out_channels=8",
    "model.box_features=16",
    "model.mask_channels=8",
    "model.min_size=48",
    "model.max_size=64",
    "model.box_score_thresh=0.0",
    "model.box_detections_per_img=4",
    f"class_names=[{','.join(NAMES)}]",
    "device=cpu",
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = MaskRCNN(
        NAMES,
        ResNetFPN("resnet18", norm="batch", out_channels=8),
        anchor_sizes=(8, 16, 32, 64, 128),
        box_features=16,
        mask_convs=2,
        mask_channels=8,
    )
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def predict(folder: Path, weights: Path, source: Any, *overrides: str) -> int:
    overrides = (
        *SMALL,
        f"model.weights={weights}",
        f"output={folder}",
        "tracker=none",
        f"source={source}",
        *overrides,
    )
    return run(segtrail.compose(list(overrides), "predict"))


def save_every_kind(folder: Path, image: np.ndarray) -> list[str]:
    """Writes one photograph per kind of file that a person may have."""
    folder.mkdir(parents=True, exist_ok=True)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    Image.fromarray(image).save(folder / "plain.jpg")
    Image.fromarray(gray).save(folder / "gray.png")
    cv2.imwrite(str(folder / "sixteen.png"), gray.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "sixteen_color.tif"), image.astype(np.uint16) * 257)
    Image.fromarray(image).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.dstack([image, gray])).save(folder / "transparent.png")
    Image.fromarray(image).convert("P").save(folder / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned
    Image.fromarray(image).save(folder / "turned.jpg", exif=exif)
    return sorted(path.stem for path in folder.iterdir())


def test_every_kind_of_photograph(tmp_path: Path, weights: Path, photograph: np.ndarray) -> None:
    names = save_every_kind(tmp_path / "photos", photograph)
    assert predict(tmp_path / "out", weights, tmp_path / "photos") == len(names) == 8
    data_set = json.loads((tmp_path / "out" / "annotations.json").read_text())
    sizes = {Path(item["file_name"]).stem: (item["height"], item["width"]) for item in data_set["images"]}
    assert sizes.pop("turned") == (60, 40)
    assert set(sizes.values()) == {(40, 60)}
    for name in names:
        with Image.open(tmp_path / "out" / "pictures" / f"{name}.jpg") as picture:
            assert min(picture.size) == 640
        with Image.open(tmp_path / "out" / "label_maps" / f"{name}.png") as painted:
            assert painted.mode == "P"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "detections.csv").read_text().splitlines()))
    assert len(rows) == len(results) > 0
    assert {row["class"] for row in rows} <= set(NAMES)
    by_image = {item["id"]: (item["height"], item["width"]) for item in data_set["images"]}
    for entry, row in zip(results, rows, strict=True):
        mask = decode(entry["segmentation"])
        assert mask.shape == by_image[entry["image_id"]]
        assert int(row["area"]) == mask.sum()


def test_broken_and_missing_files(tmp_path: Path, weights: Path, photograph: np.ndarray) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(photograph).save(folder / "a.png")
    (folder / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.jpg"):
        predict(tmp_path / "out", weights, folder)
    assert predict(tmp_path / "out", weights, folder, "on_error=skip") == 1
    with pytest.raises(DataError, match="no such file"):
        predict(tmp_path / "out", weights, tmp_path / "nowhere.jpg")
    with pytest.raises(ConfigError, match="nobody has published weights"):
        predict(tmp_path / "out", weights, folder, "model.weights=null")
    with pytest.raises(ConfigError, match="source: has no value"):
        predict(tmp_path / "out", weights, "null")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "site"
    folder.mkdir()
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses(tmp_path: Path, site: str, photograph: np.ndarray) -> None:
    Image.fromarray(photograph).save(tmp_path / "site" / "street view.png")
    (item,) = find_media(f"{site}/street%20view.png?size=large", tmp_path / "downloads")
    assert item.name == "street view"
    np.testing.assert_array_equal(item.read(), photograph)  # type: ignore[union-attr]
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch(f"{site}/missing.png", tmp_path)


def make_video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), index * 20, np.uint8))
    writer.release()


def test_videos(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    make_video(folder / "film.avi", 5)
    assert predict(tmp_path / "out", weights, folder, "instances.every_n_frames=2") == 3
    written = Video(tmp_path / "out" / "pictures" / "film.mp4", "film")
    assert [number for number, _ in written.frames()] == [0, 1, 2]
    assert written.rate == pytest.approx(5)
    rows = list(csv.DictReader((tmp_path / "out" / "detections.csv").read_text().splitlines()))
    assert {row["image"] for row in rows} <= {"film/000000", "film/000002", "film/000004"}
    (folder / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="no frame"):
        list(Video(folder / "broken.mp4", "broken").frames())


def test_folders_and_globs_mix_images_and_videos(tmp_path: Path, photograph: np.ndarray) -> None:
    Image.fromarray(photograph).save(tmp_path / "same.png")
    make_video(tmp_path / "same.avi", 1)
    found = find_media([str(tmp_path / "*"), str(tmp_path / "same.png")], tmp_path / "downloads")
    assert sorted(type(item).__name__ for item in found) == ["ImageFile", "ImageFile", "Video"]
    assert len({item.name for item in found}) == 3


def two_objects() -> tuple[np.ndarray, Detections]:
    image = np.zeros((40, 60, 3), np.uint8)
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 5:25, 10:30] = True
    masks[0, 12:18, 15:22] = False  # a hole
    masks[1, 30:35, 5:15] = masks[1, 30:35, 40:55] = True  # two parts
    image[masks[0]] = 200
    boxes = np.array([[10, 5, 30, 25], [5, 30, 55, 35]], np.float32)
    rles = tuple(encode(mask) for mask in masks)
    return image, Detections(boxes, np.array([0, 1]), np.array([0.9, 0.6], np.float32), rles, (40, 60))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_annotations_can_be_trained_on_again(tmp_path: Path) -> None:
    image, detections = two_objects()
    (tmp_path / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "photo.png")
    writer = InstanceWriter(
        tmp_path / "out", NAMES, default_palette(2), cutouts=True, labelme=True, color_by="class", tolerance=0
    )
    writer.write("photo", tmp_path / "images" / "photo.png", image, detections)
    writer.finish()

    drawn = FolderDataset(
        split="train",
        root=tmp_path,
        images="images",
        masks="out/labelme",
        class_names=list(NAMES),
        mask_kind="labelme",
        split_by="fraction",
        val_fraction=0.0,
        instances=True,
    )[0].instances
    read = CocoDataset(
        split="train",
        root=tmp_path,
        images="out",
        annotations="out/annotations.json",
        val_fraction=0.0,
        instances=True,
    )[0].instances
    for found, offset in ((drawn, 0), (read, 1)):  # COCO's table has a background
        assert found is not None
        assert (found.labels - offset).tolist() == [0, 1]
        for index in range(2):
            expected = detections.mask(index)
            union = (found.masks[index] | expected).sum()
            assert (found.masks[index] & expected).sum() / union > (0.95 if offset else 0.8)
    with Image.open(tmp_path / "out" / "cutouts" / "photo" / "000-disk.png") as picture:
        cutout = np.asarray(picture)
    assert cutout.shape == (20, 20, 4)
    assert cutout[0, 0].tolist() == [200, 200, 200, 255]
    assert cutout[10, 8, 3] == 0
    with pytest.raises(ValueError, match="color_by='score'"):
        InstanceWriter(tmp_path, NAMES, default_palette(2), color_by="score")


def test_the_run_is_tracked(tmp_path: Path, weights: Path, photograph: np.ndarray) -> None:
    Image.fromarray(photograph).save(tmp_path / "photo.png")
    predict(
        tmp_path / "out",
        weights,
        tmp_path / "photo.png",
        "tracker=csv",
        f"tracker.save_dir={tmp_path / 'runs'}",
        "instances.histogram_layers=2",
    )
    names = {path.relative_to(tmp_path / "runs").as_posix() for path in (tmp_path / "runs").rglob("*.*")}

    def one(fragment: str) -> bool:
        return any(fragment in name for name in names)

    assert one("samples/photo/image")
    assert one("samples/photo/picture")
    assert one("samples/photo/detections/0")
    assert one("detections/table")
    assert one("weights/histograms/0")
    assert one("config/yaml")
    text = "".join(path.read_text() for path in (tmp_path / "runs").rglob("*.json"))
    assert "matterport/DETECTION_MIN_CONFIDENCE" in text


def test_matterports_names() -> None:
    config: Any = segtrail.compose([*SMALL, "model.anchor_ratios=[0.5,1.0,4.0]"], "predict")
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(config.model, resolve=True)
    values = matterport_parameters(node, NAMES)  # type: ignore[arg-type]
    assert values["DETECTION_MIN_CONFIDENCE"] == 0.0
    assert values["RPN_ANCHOR_RATIOS"] == [2.0, 1.0, 0.25]
    assert values["BBOX_STD_DEV"] == [0.1, 0.1, 0.2, 0.2]
    assert values["NUM_CLASSES"] == 3
    assert values["BACKBONE"] == "resnet18"
    assert values["IMAGE_MIN_DIM"] == 48
    assert values["LOSS_WEIGHTS/mrcnn_mask_loss"] == 1.0
    documented = Path(__file__).parents[2] / "docs" / "mask_rcnn.md"
    for name in values:
        assert name.split("/")[-1] in documented.read_text(), name


def test_layers_for_histograms() -> None:
    model = MaskRCNN(NAMES, ResNetFPN("resnet18", out_channels=8), box_features=8, mask_channels=8)
    first = [name for name, _ in chosen_parameters(model, 5)]
    assert first[0] == "backbone.body.conv1.weight"
    assert len(first) == 5
    heads = [name for name, _ in chosen_parameters(model, ["*cls_score*", "*.bias"])]
    assert "roi_heads.box_predictor.cls_score.bias" in heads
    assert len(heads) == len(set(heads))
    with pytest.raises(ConfigError, match="no parameter matches 'conv9"):
        chosen_parameters(model, ["conv9*"])


def test_images_of_any_size() -> None:
    torch.manual_seed(0)
    model = MaskRCNN(
        NAMES,
        ResNetFPN("resnet18", out_channels=8),
        box_features=8,
        mask_channels=8,
        min_size=32,
        max_size=64,
        box_score_thresh=0.0,
        box_detections_per_img=3,
    )
    predictor = InstancePredictor(model)
    for size in ((1, 1), (3, 200), (33, 47)):
        found = predictor(np.zeros((*size, 3), np.uint8))
        assert found.size == size
        assert all(tuple(mask["size"]) == size for mask in found.masks)
