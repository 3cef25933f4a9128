"""The launchers of this machine run the trials of a sweep, each with its own values."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.training.command import SMALL

REPOSITORY = Path(__file__).parents[2]

SWEEP = ["-m", *SMALL, "tracker=none", "callbacks.weight_histograms=null", "trainer.max_epochs=1"]


def widths(folder):
    configs = [OmegaConf.load(file) for file in folder.glob("outputs/*/*/*/config.yaml")]
    return sorted(config.model.width for config in configs)


def train(folder, *arguments):
    """The command line as a process of its own: launchers start processes in ways of theirs."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "train.py"), *SWEEP, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_slurm_configuration_in_submitits_local_mode(tmp_path):
    train(tmp_path, "launcher=slurm_local", "model.width=4,8")
    assert widths(tmp_path) == [4, 8]


def test_ray_configuration_on_a_local_cluster(tmp_path):
    cluster = ["hydra.launcher.init.num_cpus=2", "hydra.launcher.remote.num_cpus=1"]
    sweep = ["sweep=grid", "hydra.sweeper.parallel=2", "model.width=choice(4,7)"]  # its norm has two groups
    train(tmp_path, "launcher=ray", *cluster, *sweep)
    (file,) = tmp_path.glob("outputs/*/*/trials.json")
    states = {trial["values"]["model.width"]: trial["state"] for trial in json.loads(file.read_text())}
    assert states == {"4": "complete", "7": "fail"}
    assert len(list(tmp_path.glob("outputs/*/*/*/checkpoints/last.ckpt"))) == 1


def test_joblib_runs_optuna_trials_side_by_side(tmp_path):
    sweep = ["sweep=random", "launcher=joblib", "hydra.sweeper.parallel=2", "hydra.sweeper.trials=2"]
    train(tmp_path, *sweep, "model.width=choice(4,8)")
    (file,) = tmp_path.glob("outputs/*/*/trials.json")
    assert [trial["state"] for trial in json.loads(file.read_text())] == ["complete"] * 2
    assert len(widths(tmp_path)) == 2


@pytest.mark.parametrize(
    ("launcher", "class_name"),
    [("slurm", "SlurmLauncher"), ("joblib", "JoblibLauncher"), ("ray", "RayLauncher")],
)
def test_launcher_configs_compose(launcher, class_name):
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from segtrail.config.compose import config_folder, register

    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = hydra.compose("train", [f"launcher={launcher}"], return_hydra_config=True)
    assert config.hydra.launcher._target_.endswith(class_name)
