"""The callback configs: one node a callback, every argument of ours written out."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "callbacks"
FILES = sorted(CONF.glob("*.yaml"))


def nodes(file):
    config = OmegaConf.to_container(OmegaConf.load(file)) or {}
    return {name: node for name, node in config.items() if isinstance(node, dict) and "_target_" in node}


def test_there_are_as_many_configs_as_expected():
    assert [file.stem for file in FILES] == ["default", "early_stopping", "ema", "none"]
    assert len(nodes(CONF / "default.yaml")) == 11
    assert nodes(CONF / "none.yaml") == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_arguments_exist_and_ours_are_complete(file):
    for name, node in nodes(file).items():
        target = node.pop("_target_")
        module, _, cls = target.rpartition(".")
        arguments = inspect.signature(getattr(importlib.import_module(module), cls)).parameters
        assert set(node) <= set(arguments), name
        if target.startswith("segtrail."):
            assert set(node) == set(arguments), name
            for key, value in node.items():
                if not str(value).startswith("${"):
                    assert value == arguments[key].default, (name, key)
