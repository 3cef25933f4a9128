"""Every architecture under DistributedDataParallel: two processes, no unused parameters."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.models.compact import blobs, compact, configured, derived_of, semantic_models, total


def _train(rank: int, store: str, names: tuple[str, ...]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    loss = configured("loss", "cross_entropy")
    for name, variant in ((name, variant) for name in names for variant in (0, 1)):
        model = compact(name, variant).train()
        ddp = torch.nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        target = blobs(2, 32, 32)
        derived = derived_of(model, target)
        torch.manual_seed(rank)
        for _ in range(2):  # the second step fails if the first left a parameter without a gradient
            optimizer.zero_grad()
            total(model, ddp(torch.randn(2, 3, 32, 32), **derived), target, loss, derived).backward()
            optimizer.step()
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        other = weights.clone()
        dist.broadcast(other, src=0)
        assert torch.equal(weights, other), f"{name} {variant}: the processes' weights differ"
    dist.destroy_process_group()


def test_two_processes_agree(tmp_path: Path) -> None:
    # one test for all: starting processes costs more than the steps
    mp.spawn(_train, (str(tmp_path / "store"), semantic_models()), nprocs=2)
