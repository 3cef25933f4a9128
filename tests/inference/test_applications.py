"""Predict and evaluate as functions, on a run of three steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segtrail
from segtrail.config.check import ConfigError
from segtrail.config.compose import compose
from segtrail.data.types import DataError
from segtrail.inference import evaluate, predict
from segtrail.tracking.label_map import decode_label_map
from segtrail.tracking.per_image import decode_per_image
from segtrail.training.checkpoint import CheckpointError, load_run

SMALL = [
    "model=unet",
    "model.decoder_channels=[16,8,8,8,8]",
    "dataset=shapes",
    "dataset.num_samples=6",
    "dataset.size=48",
    "loader.num_workers=0",
    "loader.batch_size=2",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "tracker=none",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run whose metrics are those of its test set."""
    folder = tmp_path_factory.mktemp("run")
    config = segtrail.compose([*SMALL, f"run_dir={folder}"])
    from segtrail.training.run import train

    train(config)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "deep" / "photo.png"
    path.parent.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def predict_with(run_folder: Path, tmp_path: Path, *overrides: str) -> int:
    settings = [f"checkpoint={run_folder}", f"source={tmp_path}/photos", f"output={tmp_path}/out"]
    return predict.run(compose([*settings, *overrides], "predict"))


def test_label_maps_hold_the_ids_that_the_model_predicts(
    run_folder: Path, photo: Path, tmp_path: Path
) -> None:
    assert predict_with(run_folder, tmp_path, "confidence=true") == 1
    found = decode_label_map((tmp_path / "out/label_maps/deep/photo.png").read_bytes())
    module = load_run(run_folder).module
    image = torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)[None]
    with torch.no_grad():
        batch = {"image": image, "mask": torch.zeros(1, 61, 83, dtype=torch.uint8)}
        expected = module.predict_classes(module(module.on_after_batch_transfer(batch, 0)).logits)
    np.testing.assert_array_equal(found, expected[0].numpy())
    for kind in ("overlays", "confidence"):
        assert (tmp_path / "out" / kind / "deep/photo.png").is_file()
    assert (tmp_path / "out/classes.txt").read_text().split() == list(module.class_names)


def test_a_run_loads_where_its_data_is_not(run_folder: Path) -> None:
    expected = load_run(run_folder).module
    elsewhere = {"dataset._target_": "segtrail.data.datasets.folder.FolderDataset", "dataset.root": "/nope"}
    module = load_run(run_folder, **elsewhere).module
    assert module.class_names == expected.class_names
    np.testing.assert_array_equal(module.palette, expected.palette)


def test_every_option_together(run_folder: Path, photo: Path, tmp_path: Path) -> None:
    options = [
        "window=32",
        "flips=[horizontal,vertical]",
        "scales=[0.75,1.0]",
        "postprocess=crf",
        "blend=linear",
    ]
    assert predict_with(run_folder, tmp_path, *options, "postprocess.iterations=2") == 1
    with Image.open(tmp_path / "out/label_maps/deep/photo.png") as label_map:
        assert label_map.size == (83, 61)
        assert label_map.mode == "P"


def test_broken_file_stops_or_is_skipped(
    run_folder: Path, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photo.parent / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        predict_with(run_folder, tmp_path)
    caplog.set_level("INFO")
    assert predict_with(run_folder, tmp_path, "on_error=skip") == 1
    assert "broken.jpg" in caplog.text
    assert "1 images predicted, 1 skipped" in caplog.text


def test_photo_smaller_than_the_stride_stops_or_is_skipped(
    run_folder: Path, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (20, 20)).save(photo.parent / "icon.png")
    with pytest.raises(DataError, match="^deep/icon: the image of 20x20 pixels .* stride of 32: "):
        predict_with(run_folder, tmp_path)
    caplog.set_level("INFO")
    assert predict_with(run_folder, tmp_path, "on_error=skip") == 1
    assert "skipped deep/icon: the image of 20x20 pixels" in caplog.text


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("checkpoint=null", ConfigError, "checkpoint: has no value; give it as checkpoint=VALUE"),
        ("checkpoint=/nope", CheckpointError, "neither a checkpoint file, a run folder, nor the id"),
        ("source=/nope", DataError, "no such file or folder"),
        ("window=wide", ConfigError, "window: a number of pixels or null, got 'wide'"),
        ("window=16", ConfigError, "window: at least the model's stride of 32 pixels, got 16"),
        ("on_error=ignore", ConfigError, "on_error: raise or skip, got 'ignore'"),
        ("device=gpus", ConfigError, "gpus"),
    ],
)
def test_bad_settings_are_one_line(
    run_folder: Path, photo: Path, tmp_path: Path, override: str, error: type, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        predict_with(run_folder, tmp_path, override)
    assert "\n" not in str(caught.value)


def evaluate_with(run_folder: Path, tmp_path: Path, *overrides: str) -> dict[str, float]:
    settings = [f"checkpoint={run_folder}", f"output={tmp_path}/evaluation", "device=cpu"]
    config = compose([*settings, *overrides], "evaluate")
    return evaluate.run(config)


def test_evaluation_has_the_figures_and_names_of_training(run_folder: Path, tmp_path: Path) -> None:
    loaded = load_run(run_folder)
    states = loaded.checkpoint["callbacks"].items()
    (score,) = (state["best_model_score"] for name, state in states if "'val/mIoU'" in name)
    metrics = evaluate_with(run_folder, tmp_path, "split=val", "tracker=csv", f"tracker.save_dir={tmp_path}")
    assert metrics["val/mIoU"] == pytest.approx(float(score))
    assert {"val/loss", "val/mDice", "val/pixel_accuracy"} <= metrics.keys()
    (per_image,) = tmp_path.glob("*/evaluation/val/per_image*")
    (results,) = decode_per_image(per_image.read_bytes()).values()
    assert len(results.ids) == 6
    assert results.step == loaded.checkpoint["global_step"] - 1 == 2  # counted from 0
    (points,) = tmp_path.glob("*/metrics.csv")
    assert {line.split(",")[1] for line in points.read_text().splitlines()[1:]} == {"2"}


def test_test_time_options_that_change_nothing_give_the_same_figures(
    run_folder: Path, tmp_path: Path
) -> None:
    plain = evaluate_with(run_folder, tmp_path, "tracker=none")
    covered = evaluate_with(run_folder, tmp_path, "tracker=none", "window=1000")
    assert plain == pytest.approx(covered, rel=1e-4)
    flipped = evaluate_with(run_folder, tmp_path, "tracker=none", "flips=[horizontal]", "postprocess=crf")
    assert flipped.keys() == plain.keys()
    assert flipped["test/loss"] != plain["test/loss"]


def test_missing_split_is_one_line(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'holdout'; it has: train, val, test"):
        evaluate_with(run_folder, tmp_path, "split=holdout", "tracker=none")
