"""The softmax statistics in float32 against float64 and autograd, whatever the size of the logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segtrail.losses import statistics


def by_definition(logits: Tensor, labels: Tensor, valid: Tensor) -> list[Tensor]:
    log_p = logits.double().log_softmax(1)
    own = torch.where(valid, log_p.gather(1, labels.unsqueeze(1)).squeeze(1), 0)
    others = log_p.exp() * valid.unsqueeze(1)
    others = others.scatter(1, labels.unsqueeze(1), 0)
    return [-own, own.exp(), others.sum((2, 3)), others.square().sum((2, 3))]


# around 0 and far off it; the wide ones leave float32's range without a shift, in some blocks or in all
@pytest.mark.parametrize("offset", [0.0, 60.0, -60.0, 1000.0])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0, 300.0])
@pytest.mark.parametrize("all_valid", [True, False])
# several blocks an image or several images a block, the last one not full
@pytest.mark.parametrize("block", [40, 700])
def test_float32_agrees_with_float64(
    scale: float, offset: float, all_valid: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "BLOCK", block)
    generator = torch.Generator().manual_seed(1)
    logits = offset + scale * torch.randn(3, 5, 7, 9, generator=generator)
    logits[0, :, 3:] /= max(1.0, scale)  # so that one image has blocks of either kind
    valid = torch.rand(3, 7, 9, generator=generator) > (-1 if all_valid else 0.3)
    labels = torch.where(valid, torch.randint(0, 5, (3, 7, 9), generator=generator), 0)
    weights = [torch.rand(size, generator=generator) for size in ((3, 7, 9), (3, 7, 9), (3, 5), (3, 5))]

    leaf = logits.clone().requires_grad_()
    found = statistics._by_softmax(leaf, labels, valid, True, True, True)
    sum((a * b).sum() for a, b in zip(found, weights, strict=True)).backward()
    exact = logits.double().requires_grad_()
    wanted = by_definition(exact, labels, valid)
    sum((a * b).sum() for a, b in zip(wanted, weights, strict=True)).backward()

    for ours, theirs in zip([*found, leaf.grad], [*wanted, exact.grad], strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=2e-6)
    assert (leaf.grad.movedim(1, -1)[~valid] == 0).all()


def test_a_forbidden_class_and_nan_are_as_in_pytorch() -> None:
    logits = torch.randn(1, 3, 2, 2)
    logits[:, 2] = -torch.inf
    labels = torch.tensor([[[0, 1], [1, 2]]])
    found = statistics._by_softmax(logits, labels, labels >= 0, True, False, False)[0]
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    logits[0, 0, 0, 0] = torch.nan
    found = statistics._by_softmax(logits, labels, labels >= 0, True, False, False)[0]
    assert found.isnan().flatten().tolist() == [True, False, False, False]
