"""The average of the weights: its values, where it is used, and an exact resume."""

import pytest
import pytorch_lightning as pl
import torch

from segtrail.callbacks.ema import EMA
from tests.callbacks import toy

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*"),
]


class Recorder(pl.Callback):
    """Weights after each optimizer step, and those that validation sees."""

    def __init__(self):
        self.trained, self.evaluated = [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.trained.append(pl_module.model.conv.weight.detach().clone())

    def on_validation_batch_start(self, trainer, pl_module, *args):
        if not trainer.sanity_checking:
            self.evaluated.append(pl_module.model.conv.weight.detach().clone())


def fit(epochs, decay=0.6, checkpoint=None, **options):
    pl.seed_everything(0, verbose=False)
    module, ema, recorder = toy.Module(), EMA(decay), Recorder()
    trainer = toy.trainer([ema, recorder], max_epochs=epochs, **options)
    start = module.model.conv.weight.detach().clone()
    trainer.fit(module, toy.loader(), toy.loader(2), ckpt_path=checkpoint)
    return trainer, module, ema, recorder, start


def test_average_follows_the_formula_and_validation_sees_it():
    _, module, ema, recorder, average = fit(2)
    for n, weight in enumerate(recorder.trained, start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(ema.average["model.conv.weight"], average, atol=1e-6)
    assert torch.allclose(recorder.evaluated[-1], average, atol=1e-6)
    assert torch.equal(module.model.conv.weight, recorder.trained[-1])  # training goes on from its own


def test_batch_norm_is_averaged_and_counters_are_copied():
    _, module, ema, _, _ = fit(1)
    assert ema.average["model.norm.num_batches_tracked"] == 3
    assert not torch.equal(ema.average["model.norm.running_mean"], module.model.norm.running_mean)


def test_checkpoints_hold_the_average_and_resume_exactly(tmp_path):
    _, whole, whole_ema, _, _ = fit(3)
    trainer, module, ema, _, _ = fit(2)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    assert torch.equal(saved["state_dict"]["model.conv.weight"], ema.average["model.conv.weight"])
    assert torch.equal(saved["ema"]["online"]["model.conv.weight"], module.model.conv.weight)
    _, resumed, resumed_ema, _, _ = fit(3, checkpoint=path)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert resumed_ema.updates == whole_ema.updates == 9
    for name, tensor in whole_ema.average.items():
        assert torch.equal(tensor, resumed_ema.average[name]), name


def test_accumulated_gradients_count_as_one_step():
    _, _, ema, _, _ = fit(1, accumulate_grad_batches=3)
    assert ema.updates == 1


def test_testing_uses_the_average_once(tmp_path):
    trainer, module, ema, recorder, _ = fit(1)
    seen = []
    original = module.test_step
    module.test_step = lambda *a: (seen.append(module.model.conv.weight.detach().clone()), original(*a))[1]
    trainer.test(module, toy.loader(2), verbose=False)
    assert torch.equal(seen[-1], ema.average["model.conv.weight"])
    assert torch.equal(module.model.conv.weight, recorder.trained[-1])
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    trainer.test(module, toy.loader(2), ckpt_path=tmp_path / "x.ckpt", weights_only=True, verbose=False)
    assert torch.equal(seen[-1], ema.average["model.conv.weight"])


def test_bad_decay():
    with pytest.raises(ValueError, match=r"got 1\.5"):
        EMA(1.5)
