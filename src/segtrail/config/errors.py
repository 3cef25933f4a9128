"""Hydra's exceptions, told in one line that names the key and the nearest valid one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from segtrail.config.check import suggestion


def explain(error: Exception, overrides: Sequence[str] = ()) -> str:
    """Returns one line that says what is wrong with the overrides or the config files.

    Args:
        error: what Hydra or OmegaConf raised while composing.
        overrides: the command line's overrides, to show the failing one with the keys that exist.
    """
    if isinstance(error, MissingConfigException):
        return _missing_group(error)
    if isinstance(error, OverrideParseException):
        return f"cannot read the override '{error.override}': {_first_line(error)}"
    key_error = next((e for e in _chain(error) if isinstance(e, ConfigKeyError | ConfigAttributeError)), None)
    if key_error is not None:
        return _unknown_key(key_error, overrides)
    for cause in _chain(error):
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"{cause.full_key}: {_first_line(cause)}"
    return _first_line(error)


def _chain(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _missing_group(error: MissingConfigException) -> str:
    missing = str(error.missing_cfg_file or "")
    options = [str(option) for option in error.options or ()]
    group, _, name = missing.rpartition("/")
    if not group:
        return _first_line(error)
    return f"{group}={name}: there is no {group} '{name}'{suggestion(name, options)}"


def _unknown_key(error: OmegaConfBaseException, overrides: Sequence[str]) -> str:
    full_key = str(error.full_key or error.key)
    parent_key, _, key = full_key.rpartition(".")
    valid = _keys_of_node(error)
    override = next((o for o in overrides if re.split(r"[=@]", o.lstrip("+~"))[0] == full_key), None)
    where = f"{override}: " if override else f"{full_key}: "
    return f"{where}there is no key '{key}' in '{parent_key or 'the config'}'{suggestion(key, valid)}"


def _keys_of_node(error: OmegaConfBaseException) -> list[str]:
    node: Any = error.parent_node
    if isinstance(node, DictConfig):
        return [str(key) for key in node if not str(key).startswith("_")]
    return []
