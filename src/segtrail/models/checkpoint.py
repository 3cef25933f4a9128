"""Starting from the weights of a whole model: a run's checkpoint or a published one."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str] | None]]
"""Regular expressions of published names with their replacements (of ``re.sub``); None drops the tensor."""


def load_checkpoint(model: nn.Module, path: str, renames: Renames = ()) -> bool:
    """Loads every tensor of ``model`` from a file.

    Args:
        model: the model, already built.
        path: a run's checkpoint, a state dict, or a published checkpoint that ``renames`` translates.
        renames: how published names become the model's; the first expression that matches counts.

    Returns:
        Whether it was a published checkpoint, whose names were translated.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, or for another architecture or number of classes.
    """
    state = read_state_dict(path)
    own = model.state_dict()
    published = bool(renames) and not own.keys() & state.keys()
    if published:
        state = {new: tensor for name, tensor in state.items() if (new := rename(name, renames))}
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        raise ValueError(
            f"checkpoint {path} is not of this {type(model).__name__}: {len(missing)} of {len(own)} tensors "
            f"missing ({', '.join(missing[:2])}), {len(unknown)} unknown ({', '.join(unknown[:2])})"
        )
    if wrong:
        name = wrong[-1]  # the classifier comes last
        theirs, ours = tuple(state[name].shape), tuple(own[name].shape)
        cause = (
            f": trained with {theirs[0]} classes, this model has {ours[0]}"
            if theirs[1:] == ours[1:]
            else ": another width or encoder"
        )
        raise ValueError(f"checkpoint {path}: {name} is {theirs}, the model's is {ours}{cause}")
    model.load_state_dict(state, strict=False)
    return published


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a file, by name, without the prefixes that wrappers add.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no file of tensors.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no weights file {file}")
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"cannot read weights from {file}: {str(error).splitlines()[0]}") from error
    of_a_run = isinstance(content, Mapping) and "segtrail" in content
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content.items() if isinstance(content, Mapping) else ()
    state = {n.removeprefix("module."): t for n, t in tensors if isinstance(t, Tensor)}
    if of_a_run:  # beside the model's tensors lie the loss's and the metrics'
        state = {n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")}
    if not state:
        raise ValueError(f"{file} holds no state dict of tensors")
    return state


def rename(name: str, renames: Renames) -> str | None:
    """The model's name for a published one; None if the model has no such tensor."""
    for pattern, replacement in renames:
        if re.match(pattern, name):
            return None if replacement is None else re.sub(pattern, replacement, name, count=1)
    return name
