"""What every architecture keeps, on two encoders, from its own YAML file."""

import copy
from pathlib import Path

import pytest
import torch

from segtrail.models.base import ImageSizeError, SegmentationModel
from tests.models.compact import (
    NUM_CLASSES,
    blobs,
    compact,
    configured,
    configured_loss,
    derived_of,
    losses,
    semantic_models,
    total,
)

MODELS = semantic_models()
# A balanced Hausdorff term descends another function than its value, which small steps may not lower.
RATES = {("manet", 0): 2e-3}
STRIDES = {  # the smallest image; 32 for the others
    "deeplab": 16,
    "deeplab_v1": 8,
    "deeplab_v2": 8,
    "deeplabv3": 8,
    "gscnn": 8,
    "pan": 16,
    "pspnet": 8,
    "unet_original": 16,
}
on_two_encoders = pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name in MODELS for variant in (0, 1)]
)


def test_finds_the_models_and_losses() -> None:
    assert len(MODELS) >= 17
    assert len(losses()) >= 25


@on_two_encoders
def test_learns_with_every_loss(name: str, variant: int) -> None:
    model = without_dropout(compact(name, variant))  # so that the loss falls
    target = blobs(2, 64, 64)
    derived = derived_of(model, target)
    image = colored(target)
    start = copy.deepcopy(model.state_dict())
    for loss_name in losses():
        model.load_state_dict(start)
        loss = configured_loss(loss_name, target)
        first, last = _two_steps(model, image, target, loss, derived, RATES.get((name, variant), 5e-4))
        assert last < first, f"{loss_name}: {first} -> {last}"


def _two_steps(model: SegmentationModel, image, target, loss, derived, rate: float) -> tuple[float, float]:
    """The training loss before and after."""
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    values = []
    for _ in range(2):
        optimizer.zero_grad()
        value = total(model, model(image, **derived), target, loss, derived)
        value.backward()
        assert_gradients(model)
        optimizer.step()
        values.append(value.item())
    with torch.no_grad():
        values.append(total(model, model(image, **derived), target, loss, derived).item())
    return values[0], values[-1]


@on_two_encoders
def test_evaluates_at_odd_sizes_and_reloads(name: str, variant: int, tmp_path: Path) -> None:
    model = compact(name, variant).eval()
    odd = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        logits = model(odd).logits
        assert logits.shape == (2, NUM_CLASSES, 97, 131)
        assert logits.isfinite().all()
        # each image for itself, whatever the batch
        torch.testing.assert_close(model(odd[:1]).logits, logits[:1], rtol=1e-3, atol=1e-3)

    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"segtrail": {}, "state_dict": weights}, tmp_path / "w")
    again = compact(name, variant, checkpoint=str(tmp_path / "w")).eval()
    with torch.no_grad():
        assert torch.equal(again(odd).logits, logits)


@on_two_encoders
def test_smallest_image_is_the_stride(name: str, variant: int) -> None:
    model = compact(name, variant).eval()
    stride = STRIDES.get(name, 32)
    with torch.no_grad():
        assert model(torch.randn(1, 3, stride, stride)).logits.shape == (1, NUM_CLASSES, stride, stride)
        for height, width in ((stride - 1, stride), (stride, stride - 1)):
            with pytest.raises(ImageSizeError, match=f"{height}x{width} pixels .* stride of {stride}:"):
                model(torch.randn(1, 3, height, width))


@on_two_encoders
def test_trains_and_evaluates_in_bfloat16(name: str, variant: int) -> None:
    model = compact(name, variant).train()
    target = blobs(2, 64, 64)
    derived = derived_of(model, target)
    image = colored(target)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(image, **derived)
        value = total(model, output, target, configured_loss("cross_entropy", target), derived)
    assert value.isfinite()
    value.backward()
    assert_gradients(model)
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(image).logits.isfinite().all()


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


@on_two_encoders
def test_exports_to_the_same_logits(name: str, variant: int) -> None:
    model = compact(name, variant).eval()
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


def colored(target: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) noisy images whose brightness tells the class."""
    noise = torch.randn(len(target), 3, *target.shape[1:], generator=torch.Generator().manual_seed(1)) / 4
    return noise + target.where(target < NUM_CLASSES, torch.tensor(0))[:, None] - 1.5


def without_dropout(model: SegmentationModel) -> SegmentationModel:
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model


def assert_gradients(model: SegmentationModel) -> None:
    """Every trainable parameter has a finite gradient."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), f"{name}: {parameter.grad}"
