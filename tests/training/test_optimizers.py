import functools

import numpy as np
import pytest
import torch
from torch import nn

from segtrail.training import schedulers
from segtrail.training.optimizers import GroupedOptimizer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def groups(**options) -> dict[str, dict]:
    net = Net()
    optimizer = GroupedOptimizer(torch.optim.AdamW, lr=0.1, weight_decay=0.01, **options)(
        net, net.encoder.parameters()
    )
    return {group["name"]: group for group in optimizer.param_groups}


def test_norms_and_biases_do_not_decay() -> None:
    found = groups(encoder_lr_factor=0.1)
    assert {name: (g["lr"], g["weight_decay"]) for name, g in found.items()} == {
        "decoder": (0.1, 0.01),
        "decoder norm and bias": (0.1, 0.0),
        "encoder": (pytest.approx(0.01), 0.01),
        "encoder norm and bias": (pytest.approx(0.01), 0.0),
    }
    assert len(found["encoder norm and bias"]["params"]) == 3
    assert sum(len(g["params"]) for g in found.values()) == len(list(Net().parameters()))


def test_everything_decays_by_option() -> None:
    assert {g["weight_decay"] for g in groups(decay_norm_and_bias=True).values()} == {0.01}


def test_factor_zero_freezes_the_encoder() -> None:
    net = Net()
    optimizer = GroupedOptimizer(torch.optim.SGD, lr=0.1, encoder_lr_factor=0)(net, net.encoder.parameters())
    assert all(not p.requires_grad for p in net.encoder.parameters())
    assert {g["name"] for g in optimizer.param_groups} == {"decoder", "decoder norm and bias"}


def rates(schedule, steps: int = 100, **options) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    config = functools.partial(schedule, **options)(optimizer, steps)
    assert config["interval"] == "step"
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        config["scheduler"].step()
    return found


def test_poly_is_the_published_formula() -> None:
    assert rates(schedulers.poly) == pytest.approx([(1 - step / 100) ** 0.9 for step in range(100)])


def test_warm_up_rises_to_the_rate() -> None:
    found = rates(schedulers.cosine, warmup=10)
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert max(found) == found[10] == 1.0
    assert found[-1] < 0.01
    assert rates(schedulers.cosine, warmup=0.1) == found


def test_one_cycle_peaks_at_the_rate() -> None:
    found = rates(schedulers.one_cycle)
    assert found[0] == pytest.approx(0.04)
    assert max(found) == pytest.approx(1.0, abs=1e-3)
    assert found[-1] == pytest.approx(1e-4)
    assert np.argmax(found) == 30
    for steps in (1, 2, 3):
        assert len(rates(schedulers.one_cycle, steps)) == steps


def test_constant_and_torch_schedulers() -> None:
    assert set(rates(schedulers.constant)) == {1.0}
    halving = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=50, gamma=0.5)
    assert rates(schedulers.torch_scheduler, scheduler=halving)[-1] == 0.5
