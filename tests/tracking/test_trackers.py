"""The other trackers take the same calls, and their own tools find what was logged."""

import csv
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning.loggers import Logger

from segtrail import tracking
from segtrail.tracking import names
from segtrail.tracking.base import Tracker
from segtrail.tracking.histogram import Histogram, decode_histograms
from segtrail.tracking.label_map import decode_label_map

PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
IDS = np.array([[0, 1, 2, 255]] * 4, np.uint8)
PHOTOGRAPH = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
HISTOGRAM = Histogram(np.arange(64), -1.0, 1.0)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def use(logger):
    assert isinstance(logger, Tracker)
    assert isinstance(logger, Logger)
    logger.log_config("seed: 1\n", {"model": {"encoder.name": "resnet18"}, "seed": 1})
    logger.log_values({names.GIT_COMMIT: "abc", names.checkpoint("best", "score"): 0.5})
    logger.log_tags(["sweep/1"])
    logger.log_image(names.sample_image("a"), PHOTOGRAPH)
    logger.log_label_map(names.sample_target("a"), IDS, PALETTE, 255, class_names=("sea", "land", "ice"))
    for step in (3, 6):
        logger.log_metrics({"train/loss": 1 / step, "epoch": step // 3}, step=step)
        logger.log_label_map(names.sample_prediction("a"), IDS, PALETTE, 255, step=step)
        logger.log_image(names.sample_confidence("a"), PHOTOGRAPH[..., 0], step=step)
        logger.log_histograms({"conv.weight": HISTOGRAM}, step=step)
    logger.log_file(names.per_image("val"), b"counts", "npz")
    logger.flush()
    assert isinstance(logger.location, str)
    logger.finalize("success")
    assert logger.failures == 0
    return logger


def test_csv():
    logger = use(tracking.CSVLogger("runs", run_id="r"))
    logger.close()
    rows = list(csv.DictReader(Path("runs/r/metrics.csv").read_text().splitlines()))
    assert [(r["name"], int(r["step"])) for r in rows] == [
        ("train/loss", 3), ("train/epoch", 3), ("train/loss", 6), ("train/epoch", 6),
    ]  # fmt: skip
    assert np.array_equal(decode_label_map(Path("runs/r/samples/a/prediction/6.png").read_bytes()), IDS)
    assert "conv.weight" in decode_histograms(Path("runs/r/weights/histograms/3.npz").read_bytes())
    found = json.loads(Path("runs/r/values.json").read_text())
    assert found["parameters/model/encoder/name"] == "resnet18"
    assert Path("runs/r/config/yaml.yaml").read_text() == "seed: 1\n"
    again = tracking.CSVLogger("runs", run_id="r")
    for step in (6, 9):
        again.log_metrics({"train/loss": 1.0}, step=step)
    rows = list(csv.DictReader(Path("runs/r/metrics.csv").read_text().splitlines()))
    assert [int(r["step"]) for r in rows if r["name"] == "train/loss"] == [3, 6, 9]


def test_tensorboard():
    logger = use(tracking.TensorBoardLogger("runs", run_id="r"))
    logger.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(logger.location, size_guidance={"images": 0, "histograms": 0})
    events.Reload()
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("train/loss")] == [
        (3, 0.333333),
        (6, 0.166667),
    ]
    assert [e.step for e in events.Images("samples/a/prediction")] == [3, 6]
    assert [e.step for e in events.Histograms("weights/conv/weight")] == [3, 6]
    assert sum(events.Histograms("weights/conv/weight")[0].histogram_value.bucket) == HISTOGRAM.counts.sum()
    assert "config/yaml/text_summary" in events.Tags()["tensors"]


@pytest.mark.filterwarnings("ignore")
def test_mlflow():
    logger = use(tracking.MLFlowLogger("sqlite:///m.db"))
    client, run_id = logger.experiment, logger.run_id
    points = [(m.step, m.value) for m in client.get_metric_history(run_id, "train/loss")]
    assert points == [(3, 1 / 3), (6, 1 / 6)]
    run = client.get_run(run_id)
    assert run.data.params["model/encoder/name"] == "resnet18"
    assert run.data.tags[names.GIT_COMMIT] == "abc"
    artifacts = Path(client.download_artifacts(run_id, ""))
    assert "conv.weight" in decode_histograms((artifacts / "weights/histograms/6.npz").read_bytes())
    assert np.array_equal(decode_label_map((artifacts / "samples/a/target.png").read_bytes()), IDS)
    pictures = list(artifacts.glob("images/*prediction*.png"))
    assert len(pictures) == 2
    assert np.array_equal(np.array(Image.open(pictures[0])), IDS)
    logger.close()
    assert sqlite3.connect("m.db").execute("select status from runs").fetchall() == [("FINISHED",)]


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    logger = use(tracking.WandbLogger())
    media = Path(logger.experiment.dir)
    files = media.glob("media/images/mask/samples/a/*prediction*.png")
    masks = [np.array(Image.open(file)) for file in files]
    assert len(masks) == 2
    assert np.array_equal(masks[0], IDS)
    assert (media / "weights").exists() is False  # native histograms, not files
    logger.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_none_keeps_nothing(tmp_path):
    logger = use(tracking.NoTracker())
    logger.log_hyperparams({"a": 1})
    logger.close()
    assert logger.run_id is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tracker", "package"),
    [("mlflow", "mlflow"), ("tensorboard", "tensorboard"), ("wandb", "wandb")],
)
def test_a_missing_package_is_named_with_its_extra(tracker, package, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    name = {"mlflow": "MLFlowLogger", "tensorboard": "TensorBoardLogger", "wandb": "WandbLogger"}[tracker]
    with pytest.raises(ModuleNotFoundError, match=rf"'{package}'.*segtrail\[{tracker}\]"):
        getattr(tracking, name)()


def test_the_package_imports_no_client():
    code = (
        "import sys, segtrail.tracking as t; a = dir(t); "
        "print([m for m in ('torch', 'neptune', 'mlflow', 'wandb', 'tensorboard') if m in sys.modules], "
        "'NeptuneLogger' in a)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[] True\n", done.stderr
    with pytest.raises(AttributeError, match="Nope"):
        _ = tracking.Nope


CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "tracker").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configs_write_out_every_argument(file):
    import inspect

    config = OmegaConf.to_container(OmegaConf.load(file))
    name = config.pop("_target_").rpartition(".")[2]
    signature = inspect.signature(getattr(tracking, name).__init__)
    own = [p for p in signature.parameters if p not in ("self", "args", "kwargs", "api_token")]
    assert list(config) == own
    for key, value in config.items():
        if str(value).startswith("${"):  # follows from the run's own keys
            continue
        default = signature.parameters[key].default
        assert value == (list(default) if isinstance(default, tuple) else default), key


def test_there_is_a_config_for_every_tracker():
    assert len(CONFIGS) == 6
