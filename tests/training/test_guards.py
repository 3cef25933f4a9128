"""Faults that are injected: bad losses, no memory, a full disk, a dead loader worker."""

import math
import os
import signal
import time
from multiprocessing import reduction
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from segtrail.callbacks.checkpoints import LastCheckpoint
from segtrail.data.loader import Loader
from segtrail.tracking import NeptuneLogger, names
from segtrail.training.guards import DivergenceError, LossGuard, rescale, with_smaller_batches
from tests.callbacks import toy
from tests.tracking.operations import series, values

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Faulty(toy.Module):
    """Gives a bad loss at the chosen batches, counted over epochs."""

    def __init__(self, bad, value=math.nan):
        super().__init__()
        self.bad, self.value, self.count = bad, value, 0

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.count += 1
        return loss * self.value if self.count - 1 in self.bad else loss


def fit(module, *callbacks, logger=False, epochs=3, **options):
    pl.seed_everything(0, verbose=False)
    trainer = toy.trainer(callbacks, logger, max_epochs=epochs, enable_checkpointing=True, **options)
    trainer.fit(module, toy.loader(), toy.loader(2))
    return trainer


def test_stop_names_step_value_and_samples_and_keeps_the_good_checkpoint(tmp_path):
    logger = NeptuneLogger()
    with pytest.raises(DivergenceError, match=r"nan at step 4 on the samples part/02, part/03"):
        fit(Faulty({4}), LossGuard(str(tmp_path)), LastCheckpoint(str(tmp_path)), logger=logger)
    log = Path(logger.location)
    assert values(log)[names.bad_batch(4)] == "nan: part/02, part/03"
    assert [step for step, _ in series(log, "train/loss")] == [0, 1, 2, 3, 4]
    logger.close()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(bool(tensor.isfinite().all()) for tensor in saved["state_dict"].values())


def test_a_bound_on_the_loss(tmp_path):
    with pytest.raises(DivergenceError, match="at step 2"):
        fit(Faulty({2}, value=1000.0), LossGuard(str(tmp_path), largest=100.0))


def test_skip_drops_the_batch_and_nothing_else(tmp_path, caplog):
    module = Faulty({1, 5})
    fit(module, LossGuard(str(tmp_path), "skip"), LastCheckpoint(str(tmp_path)))
    assert module.count == 9
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    assert caplog.text.count("the loss is nan") == 2


def test_many_bad_batches_go_back_to_the_last_checkpoint(tmp_path, caplog):
    module = Faulty({3, 4, 5})
    fit(module, LossGuard(str(tmp_path), "skip", patience=3), LastCheckpoint(str(tmp_path)))
    assert "back to the weights of step 3" in caplog.text
    with pytest.raises(DivergenceError, match="2 times did not help"):
        fit(
            Faulty(set(range(3, 99))),
            LossGuard(str(tmp_path), "skip", patience=2, most_returns=2),
            LastCheckpoint(str(tmp_path)),
            epochs=9,
        )


def test_accumulated_bad_batches_drop_one_step(tmp_path):
    module = Faulty({0})
    trainer = fit(module, LossGuard(str(tmp_path), "skip"), epochs=1, accumulate_grad_batches=3)
    assert trainer.global_step == 1
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_out_of_memory_halves_the_batch_and_doubles_the_accumulation(tmp_path, caplog):
    config = OmegaConf.create(
        {
            "loader": {"batch_size": 6},
            "trainer": {"accumulate_grad_batches": 2},
            "run_dir": str(tmp_path),
            "resume": None,
        }
    )
    tried = []

    def run(config):
        tried.append((config.loader.batch_size, config.trainer.accumulate_grad_batches))
        if config.loader.batch_size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0.5

    assert with_smaller_batches(config, run) == 0.5
    assert tried == [(6, 2), (3, 4), (1, 12)]
    assert caplog.text.count("the optimizer still sees 12 samples") == 2
    config.loader.batch_size = 1
    with pytest.raises(torch.OutOfMemoryError):
        with_smaller_batches(config, lambda c: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    assert "use smaller crops" in caplog.text


def test_a_checkpoint_is_restated_for_smaller_batches(tmp_path):
    class Full(toy.Module):
        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().training_step(batch, batch_idx)

    with pytest.raises(torch.OutOfMemoryError):
        fit(Full(), LastCheckpoint(str(tmp_path)))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    saved["SegmentationDataModule"] = {"epoch": 0, "batches_done": 2}
    rescale(saved, 2)
    assert saved["SegmentationDataModule"]["batches_done"] == 4
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    assert progress["processed"] == 4
    assert saved["global_step"] == 2


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(tmp_path, caplog, monkeypatch):
    trainer = toy.trainer([LastCheckpoint(str(tmp_path))], max_epochs=2, enable_checkpointing=True)
    save, calls = trainer.save_checkpoint, []

    def full(path, *args):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        save(path, *args)

    monkeypatch.setattr(trainer, "save_checkpoint", full)
    trainer.fit(toy.Module(), toy.loader(), toy.loader(2))
    assert len(calls) == 2
    assert "was not written ([Errno 28] No space left on device)" in caplog.text
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


class Killed(toy.Samples):
    """Its worker dies before the third batch, as when the kernel needs memory."""

    def __getitem__(self, index):
        if index == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class KilledWhileHandingOver(toy.Samples):
    """Its worker dies when the first batch is in the queue and its memory is asked for."""

    def __getitem__(self, index):
        reduction.send_handle = self.fail
        return super().__getitem__(index)

    @staticmethod
    def fail(connection, *_):
        connection.close()
        time.sleep(0.3)  # the other side has read the end of file by then, from a worker that still lives
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("samples", "logged"), [(Killed, 1), (KilledWhileHandingOver, 0)])
def test_a_dead_loader_worker_ends_the_run_with_one_clear_error(samples, logged):
    loader = Loader(samples(), 2, collate_fn=toy.collate, num_workers=1)
    logger = NeptuneLogger()
    with pytest.raises(RuntimeError, match="DataLoader worker .*(killed by signal|exited unexpectedly)"):
        toy.trainer([], logger, num_sanity_val_steps=0).fit(toy.Module(), loader, toy.loader(2))
    log = Path(logger.location)
    assert values(log)[names.FAILED] is True
    assert len(series(log, "train/loss")) >= logged
    logger.close()


def test_an_error_of_the_data_is_not_taken_for_a_dead_worker():
    class Missing(toy.Samples):
        def __getitem__(self, index):
            raise FileNotFoundError("no such image")

    with pytest.raises(FileNotFoundError, match="no such image"):
        list(Loader(Missing(), 2, collate_fn=toy.collate, num_workers=1))


def test_bad_arguments():
    with pytest.raises(ValueError, match="got 'ignore'"):
        LossGuard(".", "ignore")
