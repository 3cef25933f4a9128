from pathlib import Path

import numpy as np
import pytest
import torch

import segtrail
from segtrail.metrics import confusion as metrics
from segtrail.training.checkpoint import CheckpointError, find_checkpoint, load_run

TINY = [
    "dataset=shapes",
    "dataset.num_samples=8",
    "dataset.size=32",
    "loader.batch_size=4",
    "loader.num_workers=0",
    "trainer=debug",
    "trainer.accelerator=cpu",
    "trainer.limit_val_batches=null",
    "trainer.enable_progress_bar=false",
    "tracker=none",
]


def experiment(tmp_path: Path, *overrides: str) -> segtrail.Experiment:
    config = segtrail.compose([*TINY, f"run_dir={tmp_path}", *overrides])
    torch.manual_seed(0)
    return segtrail.build(config)


def fit(tmp_path: Path, *overrides: str) -> segtrail.Experiment:
    found = experiment(tmp_path, *overrides)
    found.trainer.fit(found.module, datamodule=found.datamodule)
    return found


def test_validation_equals_a_plain_loop(tmp_path: Path) -> None:
    found = fit(tmp_path)
    module, dataset = found.module.eval(), found.datamodule.dataset("val")
    total = torch.zeros(4, 4, dtype=torch.int64)
    for index in range(len(dataset)):
        sample = dataset[index]
        image = module.normalize(torch.from_numpy(sample.image).permute(2, 0, 1)[None])
        with torch.no_grad():
            prediction = module.model(image).logits.argmax(1)
        total += metrics.confusion_per_image(prediction, torch.from_numpy(sample.mask)[None], 4, 255)[0]
    logged = found.trainer.callback_metrics
    assert logged["val/mIoU"].item() == pytest.approx(metrics.iou(total).nanmean().item(), abs=1e-12)
    assert logged["val/pixel_accuracy"].item() == pytest.approx(
        metrics.pixel_accuracy(total).item(), abs=1e-12
    )
    indices, counts = module.evaluation("val").per_image()
    assert indices.tolist() == list(range(8))
    np.testing.assert_array_equal(counts.sum(0), total)


def test_a_checkpoint_rebuilds_the_run(tmp_path: Path) -> None:
    found = fit(tmp_path / "run", "loss=focal", "loss.gamma=3")
    (tmp_path / "run" / "config.yaml").write_text(found.module.config_yaml)
    loaded = load_run(tmp_path / "run")
    assert loaded.path.name == "best.ckpt"
    assert loaded.config.loss.gamma == 3
    image = torch.rand(1, 3, 37, 45)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module.model(image).logits, found.module.eval().model(image).logits)
    assert find_checkpoint("last", tmp_path) == loaded.path


def test_a_checkpoint_that_does_not_fit_is_told_in_one_line(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    with pytest.raises(CheckpointError, match="does not fit the model") as error:
        load_run(tmp_path / "run", **{"model.num_classes": 6})
    assert "\n" not in str(error.value)
    (tmp_path / "other.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_run(tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="neither a checkpoint file"):
        find_checkpoint("RUN-77", tmp_path)


def test_binary_runs_have_one_logit_and_two_classes(tmp_path: Path) -> None:
    found = experiment(tmp_path, "dataset.num_classes=2", "dataset.class_names=null")
    config = found.config
    assert config.num_classes == 2
    module = found.module
    assert not module.binary
    binary = type(module)(
        found.model, found.loss, module.make_optimizer, None, ["thing"], np.zeros((1, 3), np.uint8), 255
    )
    logits = torch.tensor([[[[-1.0, 2.0]]]])
    assert binary.predict_classes(logits).tolist() == [[[0, 1]]]
    assert binary.class_names == ("background", "thing")
    torch.testing.assert_close(binary.probabilities(logits).sum(1), torch.ones(1, 1, 2))


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        import pytorch_lightning as pl

        pl.seed_everything(3, workers=True, verbose=False)
        workers = 0 if name == "one" else 2
        found = experiment(tmp_path / name, "augmentation=basic", f"loader.num_workers={workers}")
        pl.seed_everything(3, workers=True, verbose=False)
        found = segtrail.build(found.config)
        found.trainer.fit(found.module, datamodule=found.datamodule)
        weights.append(torch.cat([p.detach().ravel() for p in found.module.parameters()]))
    assert torch.equal(*weights)
