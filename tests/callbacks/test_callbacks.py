"""What the default callbacks leave in the operation log of a toy run."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger as ScalarLogger

from segtrail.callbacks.checkpoint_links import CheckpointLinks
from segtrail.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from segtrail.callbacks.per_image_results import PerImageResults
from segtrail.callbacks.prediction_images import PredictionImages, photograph
from segtrail.callbacks.run_facts import RunFacts, flatten_config
from segtrail.callbacks.step_seed import StepSeed
from segtrail.callbacks.throughput import Throughput
from segtrail.callbacks.weight_histograms import WeightHistograms, compute_histograms
from segtrail.metrics.confusion import confusion_per_image
from segtrail.tracking import NeptuneLogger, NoTracker, names
from segtrail.tracking.histogram import decode_histograms
from segtrail.tracking.label_map import decode_label_map
from segtrail.tracking.per_image import PerImage, decode_per_image
from tests.callbacks import toy
from tests.tracking.operations import records, series, uploads, values

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def callbacks(folder):
    return [
        StepSeed(),
        BestCheckpoint(str(folder)),
        LastCheckpoint(str(folder)),
        CheckpointLinks(),
        RunFacts(str(folder)),
        PredictionImages(num_samples=3),
        WeightHistograms(gradients=True),
        PerImageResults(),
        Throughput(),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tracked fit and test of two epochs with every callback."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("NEPTUNE_API_TOKEN", raising=False)
        pl.seed_everything(0, verbose=False)
        logger, module = NeptuneLogger(), toy.Module()
        trainer = toy.trainer(callbacks(folder / "checkpoints"), logger, enable_checkpointing=True)
        trainer.fit(module, toy.loader(), toy.loader(5))
        predictions = dict(module.seen)
        trainer.test(module, toy.loader(4), verbose=False)
        location = Path(logger.location)
        run_id = logger.run_id
        assert logger.failures == 0
        logger.close()
    return {"log": location, "module": module, "predictions": predictions, "run_id": run_id, "folder": folder}


def test_predictions_decode_to_what_the_model_predicted(run):
    shown = [0, 2, 4]
    for index in shown:
        name = f"part/{index:02d}"
        points = series(run["log"], names.sample_prediction(name))
        assert [step for step, _ in points] == [2, 5]
        rows = 16 - index % 3
        assert np.array_equal(decode_label_map(points[-1][1]), run["predictions"][name][:rows])
        confidence = decode_label_map(series(run["log"], names.sample_confidence(name))[-1][1])
        assert confidence.shape == (rows, 12)
        assert confidence.min() >= 85  # of three classes, the winner has a third at least
    assert not series(run["log"], names.sample_prediction("part/01"))


def test_media_share_the_steps_of_the_metrics(run):
    assert [step for step, _ in series(run["log"], "val/mIoU")] == [2, 5]
    assert series(run["log"], "train/loss")[-1][0] == 5


def test_photograph_and_target_are_logged_once_and_exactly(run):
    sample = toy.Samples()[2]
    uploaded = [r["obj"]["path"] for r in records(run["log"]) if r["obj"]["type"] == "UploadFile"]
    assert uploaded.count(["samples", "part_02", "image"]) == 1
    files = uploads(run["log"])
    from PIL import Image

    (path,) = (run["log"] / "upload_path").glob("samples_part_02_image*")
    assert np.array_equal(np.array(Image.open(path)), sample["image"].transpose(1, 2, 0)[:14])
    assert np.array_equal(decode_label_map(files[names.sample_target("part/02")]), sample["mask"][:14])


def test_any_uint8_image_survives_normalization():
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    columns = [torch.tensor(v).view(3, 1, 1) for v in (mean, std)]
    assert torch.equal(photograph((image / 255 - columns[0]) / columns[1], mean, std), image)


def test_histograms_and_figures_of_weights_and_gradients(run):
    for namespace in (names.WEIGHTS, names.GRADIENTS):
        files = uploads(run["log"])
        found = decode_histograms(files[names.histograms(5, namespace)])
        expected = {n: p.numel() for n, p in run["module"].model.named_parameters()}
        assert {n: h.counts.sum() for n, h in found.items()} == expected
        assert [step for step, _ in series(run["log"], names.histogram_figure(namespace))] == [2, 5]
    last = dict(run["module"].model.named_parameters())["conv.weight"].detach().numpy()
    found = decode_histograms(uploads(run["log"])[names.histograms(5)])["conv.weight"]
    counts, edges = np.histogram(last, bins=64)
    assert np.allclose(found.edges, edges, atol=1e-6)
    assert np.abs(found.counts - counts).sum() <= 2  # float32 edges may move a value by one bin


@pytest.mark.parametrize("on_device", [False, True])
def test_histograms_of_awkward_tensors(on_device, monkeypatch):
    from segtrail.callbacks import weight_histograms

    if on_device:  # the path that never waits for a device, computed here
        source = weight_histograms._histogram_row
        code = source.__code__
        replaced = code.replace(co_consts=tuple("meta" if c == "cpu" else c for c in code.co_consts))
        monkeypatch.setattr(source, "__code__", replaced)
    rng = np.random.default_rng(0)
    normal = rng.normal(size=5000).astype(np.float32)
    holes = normal.copy()
    holes[:5] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    tensors = {
        "normal": normal,
        "holes": holes,
        "constant": np.full(7, 0.25, np.float32),
        "none": np.full(3, np.nan, np.float32),
        "half": normal.astype(np.float16),
    }
    found = compute_histograms((n, torch.tensor(v)) for n, v in tensors.items())
    for name, values_ in tensors.items():
        finite = values_[np.isfinite(values_)].astype(np.float32)
        histogram = found[name]
        assert histogram.counts.sum() == len(finite), name
        if len(finite):
            counts, edges = np.histogram(finite, bins=64)
            assert np.allclose(histogram.edges, edges, atol=1e-5), name
            assert np.abs(histogram.counts - counts).sum() <= 6, name
    assert compute_histograms([]) == {}


def test_per_image_counts_of_last_and_best(run):
    found = decode_per_image(uploads(run["log"])[names.per_image("val")])
    assert set(found) == {"last", "best"}
    last = found["last"]
    assert (last.step, last.epoch, last.class_names) == (5, 1, ("sea", "land", "ice"))
    assert last.ids == tuple(f"part/{i:02d}" for i in range(5))
    batch = toy.collate([toy.Samples()[i] for i in range(5)])
    prediction = torch.tensor(np.stack([run["predictions"][name] for name in last.ids]))
    assert np.array_equal(last.counts, confusion_per_image(prediction, batch["mask"], 3, 255).numpy())
    scores = dict(series(run["log"], "val/mIoU"))
    share = np.trace(found["best"].counts.sum(0)) / found["best"].counts.sum()
    assert share == pytest.approx(max(scores.values()), abs=1e-6)
    assert len(decode_per_image(uploads(run["log"])[names.per_image("test")])["last"].ids) == 4


def test_per_image_best_survives_a_resume():
    first, second = PerImageResults(), PerImageResults()
    second.load_state_dict(first.state_dict())
    assert second.best is None
    first.best_score = 0.5
    first.best = PerImage(("a",), np.ones((1, 2, 2), np.int64), ("x", "y"), step=4, epoch=2)
    second.load_state_dict(first.state_dict())
    assert second.best_score == 0.5
    assert np.array_equal(second.best.counts, first.best.counts)


def test_facts_of_the_run(run):
    found = values(run["log"])
    assert found["parameters/model/encoder/name"] == "none"
    assert found["parameters/seed"] == 3
    assert found[names.COMMAND_LINE] == shlex.join(sys.orig_argv)
    assert found["environment/hardware/cores"] >= 1
    files = uploads(run["log"])
    assert files[names.CONFIG].decode() == toy.Module.config_yaml
    assert b"\ntorch==" in files[names.PACKAGES]
    assert (run["folder"] / "checkpoints/run_id").read_text() == run["run_id"]
    assert any(r["obj"].get("values") == ["toy"] for r in records(run["log"]))


def test_git_commit_and_changes(tmp_path):
    import subprocess

    from segtrail.callbacks.run_facts import environment

    facts, diff = environment()
    assert names.GIT_COMMIT not in facts
    assert diff == ""
    (tmp_path / "a.txt").write_text("one\n")
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "a.txt"], [*identity, "commit", "-qm", "m"]):
        subprocess.run(["git", *command], check=True)
    assert environment()[0][names.GIT_DIRTY] is False
    (tmp_path / "a.txt").write_text("two\n")
    facts, diff = environment()
    assert len(facts[names.GIT_COMMIT]) == 40
    assert facts[names.GIT_DIRTY] is True
    assert "+two" in diff


def test_flattened_config():
    assert flatten_config({"a": {"b": {"c": [1, 2]}, "d": None}, "e": 1.5, "f": [1]}) == {
        "a": {"b.c": "[1, 2]", "d": None}, "e": 1.5, "f": "[1]",
    }  # fmt: skip


def test_links_to_checkpoints(run):
    found = values(run["log"])
    for which in ("best", "last"):
        assert Path(found[names.checkpoint(which, "path")]).is_file()
    assert found[names.checkpoint("last", "step")] == 6
    scores = dict(series(run["log"], "val/mIoU"))
    assert found[names.checkpoint("best", "score")] == pytest.approx(max(scores.values()))


def test_throughput_counts_all_images_but_the_first_batch(run):
    rates = series(run["log"], names.TRAIN_IMAGES_PER_SECOND)
    assert all(rate > 0 for _, rate in rates)
    assert [step for step, _ in rates] == [1, 2, 4, 5]  # a clock that validation stops


@pytest.mark.parametrize("kind", ["none", "scalar", "no logger"])
def test_callbacks_do_without_media(tmp_path, kind):
    logger = {"none": NoTracker(), "scalar": ScalarLogger(tmp_path), "no logger": False}[kind]
    trainer = toy.trainer(callbacks(tmp_path / "c"), logger, enable_checkpointing=True, max_epochs=1)
    trainer.fit(toy.Module(), toy.loader(), toy.loader(3))
    trainer.test(trainer.lightning_module, toy.loader(3), verbose=False)
    assert trainer.global_step == 3
