"""Every architecture with every loss: two optimizer steps and a validation, through the run's own path."""

from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

import segtrail
from tests.models.compact import losses, semantic_models, sizes

LOSSES = losses()
SEMANTIC = semantic_models()


def test_the_walk_finds_the_configs() -> None:
    assert len(SEMANTIC) >= 12
    assert len(LOSSES) >= 8


def composed(*choices: str) -> DictConfig:
    return segtrail.compose(
        [
            *choices,
            "dataset=shapes",
            "dataset.num_samples={train: 4, val: 1, test: 1}",
            "dataset.size=64",
            "augmentation=none",
            "loader.batch_size=2",
            "loader.num_workers=0",
            "trainer=debug",
            "trainer.accelerator=cpu",
            "trainer.enable_progress_bar=false",
            "trainer.enable_checkpointing=false",
            "tracker=none",
            "callbacks=none",
        ]
    )


@cache
def composed_loss(name: str) -> DictConfig:
    return composed(f"loss={name}").loss


@pytest.mark.parametrize("model", SEMANTIC)
def test_every_loss_trains_the_model(model: str, tmp_path: Path) -> None:
    small = (f"model.{key}={value}" for key, value in sizes(model).items())
    config = composed(f"model={model}", *small, f"run_dir={tmp_path}")
    shared = None
    for loss in LOSSES:
        config.loss = composed_loss(loss)  # composing takes longer than training
        torch.manual_seed(0)
        experiment = segtrail.build(config)
        if shared is None:
            shared = experiment.model
        else:  # built once: the losses are what differs
            experiment.__dict__["model"] = shared
        before = [p.detach().clone() for p in shared.parameters()]
        experiment.trainer.fit(experiment.module, datamodule=experiment.datamodule)
        assert experiment.trainer.global_step == 2, f"{model} x {loss}"
        metrics = experiment.trainer.callback_metrics
        assert torch.isfinite(metrics["train/loss"]), f"{model} x {loss}"
        assert torch.isfinite(metrics["val/loss"]), f"{model} x {loss}"
        assert 0 <= metrics["val/mIoU"] <= 1, f"{model} x {loss}"
        changed = [not torch.equal(a, b) for a, b in zip(before, shared.parameters(), strict=True)]
        assert any(changed), f"{model} x {loss} moved no weight"
