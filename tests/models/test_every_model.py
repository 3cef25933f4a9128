"""What every architecture keeps, on two encoders, from its own YAML file."""

import copy
from pathlib import Path

import pytest
import torch

from segtrail.models.base import SegmentationModel
from tests.models.compact import (
    NUM_CLASSES,
    blobs,
    compact,
    configured,
    derived_of,
    semantic_models,
    total,
)

LOSSES = ("cross_entropy", "dice", "lovasz", "focal")
MODELS = semantic_models()


def test_finds_the_models() -> None:
    assert len(MODELS) >= 17


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_learns_evaluates_and_reloads(name: str, variant: int, tmp_path: Path) -> None:
    model = compact(name, variant)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0  # so that the loss falls
    target = blobs(2, 64, 64)
    derived = derived_of(model, target)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) / 4
    image += target.where(target < NUM_CLASSES, torch.tensor(0))[:, None] - 1.5
    start = copy.deepcopy(model.state_dict())
    for loss_name in LOSSES:
        model.load_state_dict(start)
        first, last = _two_steps(model, image, target, configured("loss", loss_name), derived)
        assert last < first, f"{loss_name}: {first} -> {last}"

    model.eval()
    odd = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        logits = model(odd).logits
        assert logits.shape == (2, NUM_CLASSES, 97, 131)
        assert logits.isfinite().all()
        # each image for itself, whatever the batch
        torch.testing.assert_close(model(odd[:1]).logits, logits[:1], rtol=1e-3, atol=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(odd).logits.isfinite().all()

    torch.save(
        {"segtrail": {}, "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}},
        tmp_path / "w",
    )
    again = compact(name, variant, checkpoint=str(tmp_path / "w")).eval()
    with torch.no_grad():
        assert torch.equal(again(odd).logits, logits)


def _two_steps(model: SegmentationModel, image, target, loss, derived) -> tuple[float, float]:
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
    values = []
    for step in range(3):
        value = total(model, model(image, **derived), target, loss, derived)
        values.append(value.item())
        if step < 2:
            optimizer.zero_grad()
            value.backward()
            for parameter_name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    assert parameter.grad is not None, f"{parameter_name} has no gradient"
                    assert parameter.grad.isfinite().all(), f"{parameter_name}: {parameter.grad}"
            optimizer.step()
    return values[0], values[-1]


@pytest.mark.parametrize("name", MODELS)
def test_one_image_and_one_class(name: str) -> None:
    """The last batch of an epoch may be one image, down to 1x1 maps after global pooling."""
    model = compact(name, 0, num_classes=1).train()
    target = blobs(1, 32, 32, num_classes=2)
    derived = derived_of(model, target)
    output = model(torch.randn(1, 3, 32, 32), **derived)
    assert output.logits.shape == (1, 1, 32, 32)
    value = total(model, output, target, configured("loss", "cross_entropy"), derived)
    value.backward()
    assert value.isfinite()


@pytest.mark.parametrize("name", MODELS)
def test_exports_to_the_same_logits(name: str) -> None:
    model = compact(name, 0).eval()
    image = torch.randn(1, 3, 64, 64)
    derived = {n: a for n, a in derived_of(model, blobs(1, 64, 64)).items() if n == "canny"}

    class LogitsOnly(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor, **derived: torch.Tensor) -> torch.Tensor:
            return self.model(image, **derived).logits

    with torch.no_grad():
        exported = torch.export.export(LogitsOnly(), (image,), derived, strict=False).module()
        torch.testing.assert_close(
            exported(image, **derived), model(image, **derived).logits, rtol=1e-4, atol=1e-4
        )
