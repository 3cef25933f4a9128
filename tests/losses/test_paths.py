"""The vectorized device paths give what the CPU paths give, and processes what one process gives."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segtrail.losses import hausdorff_er, lovasz, statistics, topk
from segtrail.losses.base import split_void
from tests.losses import cases
from tests.losses.test_properties import NAMES, make, value_and_gradient

SIZES = ["random-4", "wrong-4", "single-4", "random-1", "random-3m"]


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lovasz(case: str, dtype: torch.dtype) -> None:
    logits, target = cases.batch(case)
    labels, valid = split_void(logits, target, cases.VOID)
    scores = (logits.sigmoid() if labels.ndim == 4 else logits.softmax(1)).to(dtype)
    slopes = torch.empty_like(scores), torch.empty_like(scores)
    values = lovasz._rows_numpy(scores, labels, valid, slopes[0])
    others = lovasz._rows_batched(scores, labels, valid, slopes[1])
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(values[0], others[0], **tolerance)
    torch.testing.assert_close(values[1], others[1])
    torch.testing.assert_close(slopes[0] * (valid if labels.ndim == 4 else valid[:, None]), slopes[0])
    if dtype == torch.float64 or not case.startswith("wrong"):  # equal errors may come in any order
        torch.testing.assert_close(slopes[0], slopes[1], **tolerance)


def test_lovasz_sort_is_exact() -> None:
    errors = torch.rand(5000, generator=torch.Generator().manual_seed(0)).numpy() ** 8
    errors[::7] = 0
    order = lovasz._descending(errors)
    assert (np.diff(errors[order]) <= 0).all()
    assert len(set(order.tolist())) == len(errors)


def test_erosions() -> None:
    error = torch.rand(2, 3, 12, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 0.3
    error[0, 0] = 0
    weights = [1.0, 4.0, 9.0]
    results = []
    for erode in (hausdorff_er._erode_opencv, hausdorff_er._erode_batched):
        leaf = error.clone().requires_grad_()
        value = erode(leaf, weights)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


@pytest.mark.parametrize("k", [1, 7, 50, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kth_largest(k: int, dtype: torch.dtype) -> None:
    values = torch.rand(100, generator=torch.Generator().manual_seed(k)).to(dtype)
    values[::3] = values[0]
    assert topk.kth_largest(values, torch.tensor(k), at_most=k) == values.sort(descending=True).values[k - 1]


def test_underflowing_probabilities_have_their_cross_entropy() -> None:
    logits = torch.tensor([[[[300.0]], [[-300.0]], [[0.0]]]])
    for label, wanted in ((0, 0.0), (1, 600.0), (2, 300.0)):
        labels = torch.full((1, 1, 1), label)
        found = statistics.statistics(
            logits, labels, torch.ones_like(labels, dtype=torch.bool), frozenset({"cross_entropy"})
        )
        assert statistics.required(found.cross_entropy).item() == wanted


def _train(rank: int, address: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        logits, target = cases.batch("random-4")
        torch.manual_seed(0)
        model = nn.parallel.DistributedDataParallel(nn.Conv2d(4, 4, 1))
        for name in ("ce_dice", "lovasz", "boundary", "hausdorff_er"):
            loss = make(name, 4)
            model.zero_grad()
            loss(model(logits[rank : rank + 1].float()), target[rank : rank + 1]).backward()
            if rank == 0:
                torch.save(model.module.weight.grad, f"{folder}/{name}.pt")
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    torch.multiprocessing.spawn(_train, (address, str(tmp_path)), nprocs=2)
    logits, target = cases.batch("random-4")
    for name in ("ce_dice", "lovasz", "boundary", "hausdorff_er"):
        torch.manual_seed(0)
        model, loss = nn.Conv2d(4, 4, 1), make(name, 4)
        for rank in range(2):
            (loss(model(logits[rank : rank + 1].float()), target[rank : rank + 1]) / 2).backward()
        torch.testing.assert_close(torch.load(tmp_path / f"{name}.pt", weights_only=True), model.weight.grad)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "shape"), [(4, (6, 8)), (1, (6, 8)), (3, (3, 6, 8))])
def test_nothing_is_read_back_from_a_device(
    name: str, channels: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, which has no numbers, whatever would wait for a GPU raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # not for meta
    logits = torch.empty(2, channels, 6, 8, device="meta", requires_grad=True)
    target = torch.empty(2, *shape, dtype=torch.long, device="meta")
    value = make(name, channels).to("meta")(logits, target)
    value.backward()
    assert value.shape == ()
    assert logits.grad is not None


def test_the_meta_device_has_no_numbers() -> None:
    """So the test above can fail."""
    with pytest.raises(RuntimeError):
        torch.empty(2, device="meta").sum().item()
    with pytest.raises(RuntimeError):
        bool(torch.empty(2, device="meta").any())


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_agrees_and_does_not_synchronize(name: str) -> None:
    logits, target = cases.batch("random-4")
    loss = make(name, 4)
    wanted, gradient = value_and_gradient(loss, logits.float(), target)
    there = loss.cuda()
    leaf, labels = logits.float().cuda().requires_grad_(), target.cuda()
    there(leaf, labels).backward()  # warms up
    leaf.grad = None
    torch.cuda.set_sync_debug_mode("error")
    try:
        value: Tensor = there(leaf, labels)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert leaf.grad is not None
    torch.testing.assert_close(value.detach().cpu(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(leaf.grad.cpu(), gradient, rtol=1e-4, atol=1e-6)
