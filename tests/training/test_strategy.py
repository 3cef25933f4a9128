"""Training over two processes on this machine, with gloo."""

import time
from pathlib import Path

import torch
from omegaconf import OmegaConf

from tests.training.command import SMALL, checkpoint, output, run, tracked

# no dropout, no void pixels: the mean over a global batch is the mean of the ranks' means
EXACT = [
    *SMALL, "model.dropout=0", "dataset.num_samples=19", "optimizer=sgd", "trainer.max_epochs=2",
]  # fmt: skip
TWO = ["trainer=ddp_cpu", "loader.batch_size=2"]


def test_two_processes_train_and_evaluate_as_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(one, *EXACT) == 0, output(one)
    assert run(two, *EXACT, *TWO) == 0, output(two)
    a, b = checkpoint(one), checkpoint(two)
    assert a["global_step"] == b["global_step"] == 8
    for name, tensor in a["state_dict"].items():
        assert torch.allclose(tensor, b["state_dict"][name], atol=1e-6), name
    first, second = tracked(one), tracked(two)
    assert first.keys() == second.keys()
    for name in ("val/mIoU", "val/pixel_accuracy", "test/mIoU", "train/epoch"):
        assert first[name] == second[name]  # 19 images over two processes, each counted once
    for (step, loss), (other_step, other) in zip(first["train/loss"], second["train/loss"], strict=True):
        assert step == other_step
        assert abs(float(loss) - float(other)) < 1e-5
    assert len(list(two.glob(".neptune/offline/*"))) == 1
    assert len(list(two.glob("outputs/*/*"))) == 1
    assert len(list(two.glob("outputs/*/*/config.yaml"))) == 1


MASK_RCNN = [
    *(s for s in SMALL if not s.startswith(("model=", "callbacks.", "dataset.", "trainer.enable"))),
    "model=mask_rcnn_light", "model.min_size=32", "model.max_size=48", "model.box_features=16",
    "model.backbone.out_channels=8", "model.mask_channels=8", "dataset.num_samples=4", "dataset.size=32",
    "callbacks=none", "tracker=none", "trainer.enable_progress_bar=false", "trainer.max_epochs=1",
    "test_after_fit=false", "augmentation=none", "optimizer=sgd", "loader.aspect_ratio_groups=1",
    "model.backbone.norm=group",  # statistics of a batch would be those of a rank
    # every image fills its quota of samples, so that the means of the ranks are those of the whole batch
    "model.rpn_batch_size_per_image=16", "model.box_batch_size_per_image=8",
    "model.box_positive_fraction=0.125",
]  # fmt: skip


def test_two_processes_train_mask_rcnn_as_one(tmp_path):
    keep = "+callbacks.keep={_target_: tests.training.tiny.KeepGradients}"  # and draws no samples by chance
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(one, *MASK_RCNN, keep, "loader.batch_size=2") == 0, output(one)
    assert run(two, *MASK_RCNN, keep, "trainer=ddp_cpu", "loader.batch_size=1") == 0, output(two)
    first, second = (torch.load(folder / "gradients.pt", weights_only=True) for folder in (one, two))
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        assert torch.allclose(gradient, second[name], rtol=1e-5, atol=1e-6), name


def test_a_multirun_gives_all_ranks_of_a_trial_the_same_values(tmp_path):
    space = ["optimizer.lr=0.1,0.01", "model.width=4,8", "trainer.max_epochs=1", "test_after_fit=false"]
    assert run(tmp_path, "-m", *EXACT, *TWO, *space) == 0, output(tmp_path)
    trials = sorted(file.parent for file in tmp_path.glob("outputs/*/*/*/config.yaml"))
    assert len(trials) == 4
    seen = set()
    for trial in trials:
        config = OmegaConf.load(trial / "config.yaml")
        saved = torch.load(trial / "checkpoints/last.ckpt", weights_only=True)
        assert saved["state_dict"]["model.net.0.weight"].shape[0] == config.model.width
        assert saved["global_step"] == 4
        seen.add((config.optimizer.lr, config.model.width))
    assert seen == {(0.1, 4), (0.1, 8), (0.01, 4), (0.01, 8)}
    assert len(list(tmp_path.glob(".neptune/offline/*"))) == 4
    assert len(list(tmp_path.glob("outputs/*/*"))) == 1


def test_a_dead_rank_ends_the_job_with_its_error(tmp_path):
    fault = "+callbacks.fault={_target_: tests.training.tiny.Fail, rank: 1, step: 3, how: %s}"
    begin = time.monotonic()
    assert run(tmp_path, *EXACT, *TWO, fault % "raise") == 2, output(tmp_path)
    said = output(tmp_path)
    assert "injected fault" in said
    assert "rank 1 ended with status 1" in said
    assert time.monotonic() - begin < 300  # of which nearly all is the start
    assert [step for step, _ in tracked(tmp_path)["train/loss"]] == [0, 1, 2]
    assert not _children_of_segtrail(tmp_path)


def _children_of_segtrail(folder):
    """Worker processes that are still running and were started in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if "segtrail.training.worker" in (process / "cmdline").read_text():
                found += [process] * ((process / "cwd").readlink() == folder)
        except OSError:  # gone meanwhile
            continue
    return found
