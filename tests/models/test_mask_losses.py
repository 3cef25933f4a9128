"""Every loss of the configuration teaches the mask head."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from segtrail.config.compose import config_folder
from segtrail.models.mask_rcnn_heads import _mask_losses

LOSSES = sorted(path.stem for path in (config_folder() / "loss").glob("*.yaml"))


def test_the_losses_are_found() -> None:
    assert len(LOSSES) > 20


@pytest.mark.parametrize("name", LOSSES)
def test_loss_on_the_mask_head(name: str) -> None:
    node = OmegaConf.load(config_folder() / "loss" / f"{name}.yaml")
    run_wide = {"ignore_index": 255, "num_classes": 1, "class_names": ["object"]}
    loss = instantiate(OmegaConf.create({**run_wide, "loss": node}).loss, _convert_="all")
    if loss.class_counts_wanted:
        loss.set_class_counts(torch.tensor([300.0, 500.0], dtype=torch.float64))
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 14, 14, requires_grad=True)
    masks = torch.zeros(2, 40, 40, dtype=torch.uint8)
    masks[0, 5:20, 5:20] = 1
    masks[1, 10:40, 12:30] = 1
    target = {"masks": masks, "labels": torch.tensor([1, 3])}
    boxes = torch.tensor([[4.0, 4.0, 22.0, 22.0], [10.0, 8.0, 32.0, 40.0], [5.0, 5.0, 20.0, 20.0]])
    terms = _mask_losses(logits, [boxes], [target], [torch.tensor([0, 1, 0])], loss)
    assert all(key.startswith("mask") for key in terms)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    learns = logits.grad.abs().sum((2, 3)) > 0
    assert learns.nonzero().tolist() == [[0, 1], [1, 3], [2, 1]]  # of the object's own class alone
