"""The launchers of this machine run the trials of a sweep, each with its own values."""

import json

import pytest
from omegaconf import OmegaConf

from tests.training.command import SMALL, output, run

SWEEP = ["-m", *SMALL, "tracker=none", "callbacks.weight_histograms=null", "trainer.max_epochs=1"]


def widths(folder):
    configs = [OmegaConf.load(file) for file in folder.glob("outputs/*/*/*/config.yaml")]
    return sorted(config.model.width for config in configs)


def test_slurm_configuration_in_submitits_local_mode(tmp_path):
    assert run(tmp_path, *SWEEP, "launcher=slurm_local", "model.width=4,8") == 0, output(tmp_path)
    assert widths(tmp_path) == [4, 8]


def test_joblib_runs_optuna_trials_side_by_side(tmp_path):
    sweep = ["sweep=random", "launcher=joblib", "hydra.sweeper.parallel=2", "hydra.sweeper.trials=2"]
    assert run(tmp_path, *SWEEP, *sweep, "model.width=choice(4,8)") == 0, output(tmp_path)
    (file,) = tmp_path.glob("outputs/*/*/trials.json")
    assert [trial["state"] for trial in json.loads(file.read_text())] == ["complete"] * 2
    assert len(widths(tmp_path)) == 2


@pytest.mark.parametrize(
    ("launcher", "class_name"), [("slurm", "SlurmLauncher"), ("joblib", "JoblibLauncher")]
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
