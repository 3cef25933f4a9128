"""Finds the mistakes of a composed config before anything heavy is imported."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrail.config.schema import TrainConfig
from segtrail.config.signature import Signature, TargetError, signature

HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}

# What `segtrail.config.build` gives to a component when it makes it.
GIVEN_BY_BUILD = {
    "module": {
        "model",
        "loss",
        "optimizer",
        "scheduler",
        "class_names",
        "palette",
        "ignore_index",
        "channels_last",
    },
    "loader": {"dataset", "splits", "num_classes", "train_transforms", "eval_transforms", "seed", "derived"},
    "dataset": {"split"},
    "scheduler": {"optimizer", "total_steps"},
    "trainer": {"callbacks", "logger"},
}


class ConfigError(Exception):
    """A config that cannot run; one line a mistake, each with where, what, and the nearest valid name."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))


def suggestion(wanted: str, valid: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the nearest valid name, else the list of valid names."""
    names = sorted(set(valid))
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; valid: {', '.join(names)}" if names else ""


def check(config: DictConfig) -> None:
    """Checks every ``_target_`` node against its callable, and every interpolation.

    Raises:
        ConfigError: with all mistakes, one line each.
    """
    problems = [*_unknown_run_wide_keys(config), *_unresolved(config)]
    if not problems:
        problems += _missing_folders(config)
        for path, node in _targets(config, ""):
            problems += _check_node(path, node)
    if problems:
        raise ConfigError(*problems)


def _unknown_run_wide_keys(config: DictConfig) -> Iterator[str]:
    valid = {field.name for field in dataclasses.fields(TrainConfig)}
    for key in map(str, config):
        if key not in valid:
            yield f"{key}: there is no such run-wide key{suggestion(key, valid)}"


def _missing_folders(config: DictConfig) -> Iterator[str]:
    root = config.dataset.get("root")
    if root is not None and not Path(root).is_dir():
        reason = "is not a folder" if Path(root).exists() else "does not exist"
        yield f"dataset.root: {root} {reason}; give the folder that holds the data as dataset.root=PATH"


def _unresolved(config: DictConfig) -> Iterator[str]:
    try:
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = error.full_key or "config"
        message = str(error).splitlines()[0]
        if "Missing mandatory value" in message:
            message = f"has no value; give it as {key}=VALUE"
        yield f"{key}: {message}"


def _targets(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    if isinstance(node, DictConfig) and not node._is_none():
        if "_target_" in node and node.get("_target_"):
            yield path, node
        for key in map(str, node):
            yield from _targets(node[key], f"{path}.{key}" if path else key)
    elif isinstance(node, ListConfig) and not node._is_none():
        for index, item in enumerate(node):
            yield from _targets(item, f"{path}[{index}]")


def _check_node(path: str, node: DictConfig) -> Iterator[str]:
    target = str(node["_target_"])
    try:
        found = signature(target)
    except TargetError as error:
        yield f"{path}._target_: {error}{suggestion(error.wanted, error.candidates) if error.wanted else ''}"
        return
    if found is None:
        return
    keys = [str(key) for key in node if key not in HYDRA_KEYS]
    given = GIVEN_BY_BUILD.get(path, set())
    for key in keys:
        if key not in found.parameters and not found.open:
            yield f"{path}.{key}: {target} takes no '{key}'{suggestion(key, found.parameters.keys() - given)}"
        elif key in found.parameters:
            yield from _check_type(f"{path}.{key}", node[key], found.parameters[key].annotation)
    if not node.get("_partial_") and path not in {"optimizer", "scheduler"}:
        yield from _missing(path, target, found, set(keys) | given, bool(node.get("_args_")))


def _missing(path: str, target: str, found: Signature, present: set[str], positional: bool) -> Iterator[str]:
    if positional:
        return
    for name, parameter in found.parameters.items():
        if parameter.required and name not in present:
            yield f"{path}.{name}: {target} needs it and it is not set; add +{path}.{name}=VALUE"


SIMPLE_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


def _check_type(path: str, value: Any, annotation: str | None) -> Iterator[str]:
    """Compares plain values with annotations made of plain types; anything else passes."""
    if annotation is None or isinstance(value, DictConfig | ListConfig):
        return
    text = re.sub(r"^Optional\[(.*)\]$", r"\1 | None", annotation.strip("'\""))
    members = [member.strip() for member in text.split("|")]
    if not all(member in SIMPLE_TYPES for member in members):
        return
    accepted = tuple(kind for member in members for kind in SIMPLE_TYPES[member])
    wrong_bool = isinstance(value, bool) and bool not in accepted
    if wrong_bool or not isinstance(value, accepted):
        yield f"{path}: {value!r} is of type '{type(value).__name__}', expected {' or '.join(members)}"
