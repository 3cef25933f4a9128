"""Gated-SCNN's inputs and losses."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segtrail.data.derived import canny, edges
from segtrail.models import gscnn
from segtrail.models.gscnn import GatedSCNN
from segtrail.models.gscnn_losses import boundary_strength, dual_task_loss, edge_attention_loss, edge_loss
from segtrail.models.wide_resnet import WideResNet38
from tests.models.compact import compact

VOID = 255


def halves(size: int = 32, column: int = 16) -> torch.Tensor:
    target = torch.zeros(1, size, size, dtype=torch.int64)
    target[..., column:] = 1
    return target


def certain(target: torch.Tensor, classes: int = 2) -> torch.Tensor:
    return F.one_hot(target, classes).movedim(-1, 1).float() * 40


def test_edge_loss_balances_edges_against_the_rest() -> None:
    logits = torch.zeros(1, 1, 4, 4)
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    target[0, 0] = 1  # 4 of 16: weights 3/4 and 1/4
    expected = np.log(2) * (4 * 0.75 + 12 * 0.25) / 16
    assert edge_loss(logits, target).item() == pytest.approx(expected)
    target[0, 3] = VOID  # 4 of 12
    expected = np.log(2) * (4 * 2 / 3 + 8 / 3) / 12
    assert edge_loss(logits, target).item() == pytest.approx(expected)
    assert edge_loss(logits, torch.full_like(target, VOID)).item() == 0


def test_edges_are_supervised_by_their_logit() -> None:
    """A certain and right edge map costs nothing: no sigmoid of a sigmoid."""
    target = torch.randint(0, 2, (2, 8, 8), dtype=torch.uint8)
    logits = (target.float() * 2 - 1)[:, None] * 30
    assert edge_loss(logits, target).item() < 1e-6


def test_attention_loss_counts_only_predicted_edges() -> None:
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    edge_logits = torch.full((1, 1, 4, 4), -9.0)
    assert edge_attention_loss(logits, target, edge_logits, VOID, 0.8).item() == 0
    edge_logits[0, 0, 1] = np.log(0.81 / 0.19)
    edge_logits[0, 0, 2] = np.log(0.79 / 0.21)
    target[0, 1, 0] = VOID
    expected = F.cross_entropy(logits[..., 1, 1:], target[:, 1, 1:])
    assert edge_attention_loss(logits, target, edge_logits, VOID, 0.8).item() == pytest.approx(
        expected.item()
    )


def test_boundary_strength_of_a_step() -> None:
    """Central differences of a smoothed step: the Gaussian's height at the step, once for two classes."""
    strength = boundary_strength(certain(halves()) / 40, sigma=1.0)[0]
    kernel = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    expected = (kernel / kernel.sum())[3:5].sum() / 2  # at the two pixels beside the step
    assert strength[16, 15].item() == pytest.approx(expected, rel=1e-5)
    assert strength[16, 16].item() == pytest.approx(expected, rel=1e-5)
    assert strength[:, :10].max() < 1e-5


def test_dual_task_loss_grows_with_the_shift_and_has_a_gradient() -> None:
    torch.manual_seed(0)
    target = halves()
    shifts = [dual_task_loss(certain(halves(column=16 + s)), target, VOID).item() for s in (0, 1, 2, 4)]
    assert shifts[0] < 1e-5
    assert shifts == sorted(shifts)
    assert shifts[1] > 0.02
    logits = torch.randn(1, 2, 32, 32, requires_grad=True)
    dual_task_loss(logits, target, VOID).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_dual_task_loss_ignores_void() -> None:
    torch.manual_seed(0)
    target = halves()
    target[:, :, 10:22] = VOID  # the whole boundary, and more than the filter sees
    assert dual_task_loss(certain(halves(column=14)), target, VOID).item() < 1e-5


def test_computes_the_loaders_edges_itself() -> None:
    model = compact("gscnn").eval()
    rng = np.random.default_rng(0)
    pixels = (rng.random((2, 8, 8, 3)).repeat(8, 1).repeat(8, 2) * 255).astype(np.uint8)
    loaded = torch.from_numpy(np.stack([canny(image, image[..., 0], 4, VOID) for image in pixels]))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
    image = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    assert loaded.sum() > 50
    assert torch.equal(model.image_edges(image), loaded.float())
    with torch.no_grad():
        assert torch.equal(model(image).logits, model(image, canny=loaded).logits)


def test_weights_switch_terms_off() -> None:
    model = compact("gscnn", attention_weight=0.0, dual_weight=0.0, edge_weight=2.0)
    target = torch.randint(0, 4, (1, 32, 32))
    output = model(torch.randn(1, 3, 32, 32))
    derived = {"edges": torch.from_numpy(edges(np.zeros(0), target[0].numpy(), 4, VOID))[None]}
    terms = model.auxiliary_losses(output, target, F.cross_entropy, **derived)
    assert terms.keys() == {"edge"}
    assert terms["edge"].item() == pytest.approx(
        2 * edge_loss(output.auxiliary["edges"], derived["edges"]).item()
    )


def test_says_which_derived_arrays_it_wants() -> None:
    model = compact("gscnn", edge_radius=1)
    assert model.derived.keys() == {"canny", "edges"}
    mask = halves()[0].numpy().astype(np.uint8)
    assert model.derived["edges"](mask, mask, 2, VOID).sum() == 32 * 2
    with pytest.raises(ValueError, match="need an RGB image"):
        GatedSCNN(4, in_channels=1)


def test_loads_the_published_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gscnn, "WideResNet38", partial(WideResNet38, width=2))
    trunk = WideResNet38(width=2).state_dict()
    small = {"decoder_channels": 8, "shape_width": 8}
    theirs = {}
    for name, tensor in trunk.items():
        name = re.sub(r"^mod1\.", "mod1.conv1.", name)
        name = re.sub(r"^(mod\d)\.(\d)\.", lambda m: f"{m[1]}.block{int(m[2]) + 1}.", name)
        name = name.replace("layers.norm", "convs.bn").replace("layers.conv", "convs.conv")
        theirs["module." + name.replace("norm1", "bn1").replace("shortcut", "proj_conv")] = tensor
    torch.save({"state_dict": theirs | {"module.classifier.fc.weight": torch.zeros(2)}}, tmp_path / "w.pth")
    model = GatedSCNN(3, encoder_weights=f"file:{tmp_path}/w.pth", **small)
    assert all(torch.equal(tensor, trunk[name]) for name, tensor in model.encoder.state_dict().items())
    torch.save({"cw.weight": torch.ones(1, 2, 1, 1)}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="is not of this GatedSCNN"):
        GatedSCNN(3, **small, checkpoint=str(tmp_path / "part.pth"))
    with pytest.raises(ValueError, match="wide_resnet38 takes none or file:PATH"):
        GatedSCNN(3, encoder_weights="imagenet", **small)
