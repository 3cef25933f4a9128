"""The instance module: trained, tracked, checkpointed and evaluated like any other run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segtrail
from segtrail.callbacks.instance_images import InstanceImages
from segtrail.data.detections import decode
from segtrail.data.instances import InstanceDataModule
from segtrail.losses.iou_balanced import IoUBalancedBoxLoss
from segtrail.metrics.mask_ap import MaskAP
from segtrail.models.mask_rcnn import MaskRCNN
from segtrail.tracking.none import NoTracker
from segtrail.training.checkpoint import load_run
from segtrail.training.instance import InstanceModule
from segtrail.training.semantic import SemanticModule

TINY = [
    "model=mask_rcnn_light",
    "model.min_size=32",
    "model.max_size=48",
    "model.box_features=16",
    "model.backbone.out_channels=8",
    "model.mask_channels=8",
    "model.box_score_thresh=0.0",
    "dataset=shapes",
    "dataset.num_samples=4",
    "dataset.size=32",
    "loader.batch_size=2",
    "loader.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "callbacks=none",
    "tracker=none",
]


def experiment(folder: Path, *overrides: str) -> segtrail.Experiment:
    config = segtrail.compose([*TINY, f"run_dir={folder}", *overrides])
    torch.manual_seed(0)
    return segtrail.build(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> segtrail.Experiment:
    folder = tmp_path_factory.mktemp("run")
    found = experiment(folder)
    found.trainer.fit(found.module, datamodule=found.datamodule)
    found.trainer.save_checkpoint(folder / "last.ckpt")
    return found


def test_the_model_chooses_its_task() -> None:
    instance = segtrail.compose(TINY)
    assert instance.monitor == "val/mask_mAP"
    assert isinstance(segtrail.build(instance).module, InstanceModule)
    assert isinstance(segtrail.build(instance).datamodule, InstanceDataModule)
    semantic = segtrail.compose(["model=unet", "dataset=shapes", "tracker=none"])
    assert semantic.monitor == "val/mIoU"
    assert semantic.module._target_.endswith(SemanticModule.__name__)


def test_fit_logs_losses_and_ap(trained: segtrail.Experiment) -> None:
    logged = trained.trainer.callback_metrics
    assert {"val/loss", "val/mask_mAP", "val/box_mAP", "val/mask_AR_100", "train/loss"} <= set(logged)
    assert all(np.isfinite(float(value)) for value in logged.values())


def test_validation_equals_detecting_one_by_one(trained: segtrail.Experiment) -> None:
    module, dataset = trained.module.eval(), trained.datamodule.dataset("val")
    metric = MaskAP(module.class_names)
    from segtrail.data.detections import to_coco
    from segtrail.data.instances import truth_entries
    from segtrail.inference.instance import InstancePredictor

    predictor = InstancePredictor(module.model, "cpu")
    for index in range(len(dataset)):
        sample = dataset[index]
        found = to_coco(predictor(sample.image), sample.id)
        metric.update(sample.id, sample.mask.shape, found, truth_entries(sample.instances))
    again = trained.trainer.validate(module, datamodule=trained.datamodule, verbose=False)[0]
    assert again["val/mask_mAP"] == pytest.approx(metric.compute()["mAP"], abs=1e-6)


def test_a_checkpoint_rebuilds_the_run(trained: segtrail.Experiment) -> None:
    loaded = load_run(Path(trained.config.run_dir) / "last.ckpt")
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = trained.module.eval().model([image])[0]
        torch.testing.assert_close(loaded.module.model([image])[0]["boxes"], expected["boxes"])
    assert loaded.module.predictor == "segtrail.inference.instance"


def test_losses_are_exchangeable(tmp_path: Path) -> None:
    found = experiment(
        tmp_path,
        "loss=dice",
        "model.box_loss={_target_: segtrail.losses.iou_balanced.IoUBalancedBoxLoss}",
        "trainer.limit_train_batches=1",
        "trainer.limit_val_batches=0",
    )
    assert isinstance(found.model.roi_heads.box_loss, IoUBalancedBoxLoss)
    found.trainer.fit(found.module, datamodule=found.datamodule)
    assert np.isfinite(float(found.trainer.callback_metrics["train/loss"]))


def test_the_plain_box_loss_is_the_balanced_one_with_eta_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, regression = torch.randn(9, 3, generator=generator), torch.randn(9, 12, generator=generator)
    labels, targets = torch.tensor([0, 1, 2, 0, 1, 0, 0, 2, 0]), torch.randn(9, 4, generator=generator)
    from torchvision.models.detection.roi_heads import fastrcnn_loss

    expected = fastrcnn_loss(logits, regression, [labels], [targets])
    got = IoUBalancedBoxLoss(0.0, 0.0)(logits, regression, labels, targets, (10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(got, expected)


def test_a_split_without_objects_still_has_a_best(trained: segtrail.Experiment) -> None:
    module = trained.module
    logged: dict[str, Any] = {}
    module._reset("val")
    module._loss("val").update(torch.tensor(1.0))
    original, module.log_dict = module.log_dict, logged.update
    try:
        module._log_evaluation("val")
    finally:
        module.log_dict = original
    assert logged["val/mask_mAP"] == 0


class Recorder(NoTracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[str, np.ndarray] = {}
        self.files: dict[str, bytes] = {}
        self.maps: dict[str, np.ndarray] = {}

    def log_image(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        self.images[name] = image

    def log_file(self, name: str, content: Any, extension: str | None = None) -> None:
        self.files[name] = content

    def log_label_map(self, name: str, label_map: np.ndarray, *_: Any, **__: Any) -> None:
        self.maps[name] = label_map


def test_what_is_tracked_of_a_sample(trained: segtrail.Experiment, tmp_path: Path) -> None:
    found = experiment(tmp_path, "trainer.limit_train_batches=1")
    recorder = Recorder()
    callbacks = [InstanceImages(num_samples=2, min_score=0.0)]
    trainer = segtrail.config.build.make(found.config.trainer, callbacks=callbacks)
    trainer.loggers = [recorder]
    trainer.fit(found.module, datamodule=found.datamodule)
    ids = ("val-00000", "val-00003")
    assert set(recorder.images) == {f"samples/{i}/{kind}" for i in ids for kind in ("image", "picture")}
    truth = json.loads(recorder.files["samples/val-00000/objects"])
    sample = found.datamodule.dataset("val")[0]
    assert len(truth["objects"]) == len(sample.instances.labels)
    np.testing.assert_array_equal(decode(truth["objects"][0]["segmentation"]), sample.instances.masks[0])
    np.testing.assert_array_equal(recorder.images["samples/val-00000/image"], sample.image)
    painted = recorder.maps["samples/val-00000/target"]
    np.testing.assert_array_equal(painted[painted != 255], sample.mask[painted != 255])
    detections = json.loads(recorder.files["samples/val-00003/detections/0"])
    assert detections["step"] == 0  # as the metrics of this validation
    scores = [entry["score"] for entry in detections["objects"]]
    assert scores == sorted(scores, reverse=True)
    assert recorder.maps["samples/val-00003/prediction"].shape == (32, 32)


@pytest.mark.gpu
def test_trains_in_mixed_precision_on_a_gpu(tmp_path: Path) -> None:
    found = experiment(tmp_path, "trainer=gpu", "trainer.max_epochs=1", "trainer.precision=bf16-mixed")
    found.trainer.fit(found.module, datamodule=found.datamodule)
    assert np.isfinite(float(found.trainer.callback_metrics["val/loss"]))
    assert isinstance(found.model, MaskRCNN)
