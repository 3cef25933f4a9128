"""Runs that are killed anywhere go on as if nothing had happened."""

import random
import signal

import pytest
import torch

from segtrail.training.resume import ResumeError, find_run
from tests.training.command import SMALL, checkpoint, output, run, same_weights, seconds_of, tracked

OFTEN = [*SMALL, "callbacks.last_checkpoint.every_n_steps=2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that nobody disturbs, and the seconds that it took once it was tracked."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, seconds_of(folder, *OFTEN)


@pytest.fixture(scope="module")
def whole(undisturbed):
    return undisturbed[0]


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_a_random_instant(undisturbed, tmp_path, seed):
    whole, seconds = undisturbed
    rng = random.Random(seed)
    instant = rng.uniform(0, seconds)
    folder = tmp_path / "0"
    while run(folder, *OFTEN, kill=(signal.SIGKILL, instant)) == 0:  # it was faster than the other run
        instant *= 0.8
        folder = folder.with_name(str(int(folder.name) + 1))
    if seed % 4 == 0:  # and once more
        run(folder, "resume=last", kill=(signal.SIGKILL, rng.uniform(0, seconds / 2)))
    went_on_as_if_nothing_had_happened(whole, folder)


@pytest.mark.parametrize(
    ("phase", "count"),
    [("training", 9), ("step", 9), ("validation", 2), ("checkpoint", 2), ("checkpoint", 4), ("tracking", 60)],
)
def test_killed_in_the_middle_of(whole, tmp_path, phase, count):
    fault = f"+callbacks.fault={{_target_: tests.training.tiny.KillOnce, phase: {phase}, count: {count}}}"
    assert run(tmp_path, *OFTEN, fault) == -signal.SIGKILL, output(tmp_path)
    went_on_as_if_nothing_had_happened(whole, tmp_path)


def went_on_as_if_nothing_had_happened(whole, folder):
    assert run(folder, "resume=last") == 0, output(folder)
    assert same_weights(checkpoint(whole), checkpoint(folder))
    assert same_weights(checkpoint(whole, "best"), checkpoint(folder, "best"))
    assert tracked(folder) == tracked(whole)
    assert len(list(folder.glob("outputs/*/*"))) == 1
    logs = list(folder.glob(".neptune/offline/*"))
    assert len({log.name.split("__")[1] for log in logs}) == 1


def test_terminated_run_saves_the_step_and_says_that_it_did_not_finish(whole, tmp_path):
    saved_once = "outputs/*/*/checkpoints/last.ckpt"
    code = run(tmp_path, *SMALL, "trainer.max_epochs=400", kill=(signal.SIGTERM, 0.1), after=saved_once)
    assert code == 128 + signal.SIGTERM, output(tmp_path)
    saved = checkpoint(tmp_path)
    assert saved["global_step"] > 0
    assert run(tmp_path, "resume=last", f"trainer.max_epochs={saved['epoch'] + 2}") == 0, output(tmp_path)
    assert checkpoint(tmp_path)["global_step"] == 6 * (saved["epoch"] + 2)


def test_resume_takes_the_config_of_the_run(whole, tmp_path):
    (folder,) = whole.glob("outputs/*/*")
    assert run(tmp_path, f"resume={folder}", "loss=dice") == 2
    assert "leave out loss=dice" in output(tmp_path)


def test_runs_are_found_by_folder_checkpoint_id_and_age(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("a", "b")):
        run_folder = tmp_path / "outputs" / "day" / name
        (run_folder / "checkpoints").mkdir(parents=True)
        (run_folder / "config.yaml").write_text("")
        (run_folder / "run_id").write_text(f"id-{name}\n")
        (run_folder / "checkpoints/last.ckpt").write_text("")
        import os

        for file in (run_folder, *run_folder.rglob("*")):
            os.utime(file, (age + 1, age + 1))
    a, b = (tmp_path / "outputs/day" / name for name in "ab")
    assert find_run("last") == b
    assert find_run("id-a") == a
    assert find_run(str(a)) == a
    assert find_run("outputs/day/a/checkpoints/last.ckpt") == a
    with pytest.raises(ResumeError, match="neither a run folder"):
        find_run("id-c")


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (3, ()),
        (6, ()),  # the first batch of an epoch
        (3, ("trainer.val_check_interval=3",)),  # the first batch after a validation
        (4, ("callbacks.last_checkpoint.every_n_steps=2",)),  # a checkpoint of that step is there already
    ],
)
def test_out_of_memory_goes_on_in_the_middle_of_an_epoch(tmp_path, step, options):
    exact = [*SMALL, "model.dropout=0", "optimizer=sgd", "trainer.max_epochs=2", *options]
    fault = f"+callbacks.fault={{_target_: tests.training.tiny.LittleMemory, samples: 2, step: {step}}}"
    assert run(tmp_path / "a", *exact) == 0, output(tmp_path / "a")
    assert run(tmp_path / "b", *exact, fault) == 0, output(tmp_path / "b")
    assert output(tmp_path / "b").count("going on with loader.batch_size=2") == 1
    first, second = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    assert first["global_step"] == second["global_step"] == 12
    for name, tensor in first["state_dict"].items():
        assert torch.allclose(tensor, second["state_dict"][name], atol=1e-6), name
    whole, broken = tracked(tmp_path / "a"), tracked(tmp_path / "b")
    assert whole.keys() == broken.keys()
    for name, points in whole.items():
        assert [step for step, _ in points] == [step for step, _ in broken[name]], name
    assert len({log.name.split("__")[1] for log in (tmp_path / "b").glob(".neptune/offline/*")}) == 1
