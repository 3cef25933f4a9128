from pathlib import Path

import pytest

from segtrail.config.check import ConfigError
from segtrail.config.compose import compose, config_folder
from segtrail.data.types import DataError

TINY = ["dataset=shapes", "dataset.num_samples=4", "dataset.size=32"]


def test_data_dependent_values_flow_by_interpolation() -> None:
    config = compose([*TINY, "dataset.num_classes=5"])
    assert config.num_classes == 5
    assert config.model.num_classes == 5
    assert config.loss.ignore_index == config.dataset.ignore_index == 255


def test_every_group_option_composes_and_passes_the_check() -> None:
    seen = 0
    for group in (
        "model",
        "loss",
        "augmentation",
        "optimizer",
        "scheduler",
        "trainer",
        "tracker",
        "callbacks",
    ):
        for path in sorted((config_folder() / group).glob("*.yaml")):
            overrides = [f"{group}={path.stem}"]
            if path.stem.startswith("mask_rcnn"):
                overrides.append("dataset.instances=true")
            compose([*TINY, *overrides])
            seen += 1
    assert seen >= 40


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=deplab"], "there is no model 'deplab'; did you mean 'deeplab'"),
        (["loss=dice", "loss.gama=2"], "there is no key 'gama' in 'loss'"),
        (["loss=focal", "loss.gama=2"], "did you mean 'gamma'"),
        (["dataset.root=/nope"], "/nope does not exist"),
        (["seed=abc"], "seed: Value 'abc' of type 'str' could not be converted to Integer"),
        (["+sed=3"], "no such run-wide key; did you mean 'seed'"),
        (["+optimizer.lrr=3"], "takes no 'lrr'; did you mean 'lr'"),
        (["optimizer.lr=fast"], "'fast' is of type 'str', expected float"),
        (["trainer.max_epoch=3"], "no key 'max_epoch' in 'trainer'; did you mean 'max_epochs'"),
        (["optimizer.algorithm._target_=torch.optim.AdamX"], "'torch.optim' has no 'AdamX'; did you mean"),
        (["+loss.smoth=1", "+optimizer.lrr=3"], "lrr"),
        (["loss.ignore_index=???"], "loss.ignore_index: has no value"),
    ],
)
def test_mistakes_are_named(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(overrides)
    assert said in str(error.value)
    assert all(len(line) < 400 for line in str(error.value).splitlines())


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["+loss.smoth=1", "+optimizer.lrr=3"])
    assert len(str(error.value).splitlines()) == 2


def test_missing_data_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        compose(["dataset=folder", f"dataset.root={tmp_path}"])
