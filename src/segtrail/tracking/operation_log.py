"""How far an earlier process of a run had come, read from the operation logs that it left."""

from __future__ import annotations

import json
import os
from pathlib import Path

# only these operations lengthen a series; the start of a line tells them apart without parsing images
_SERIES = tuple(f'{{"obj": {{"type": "{kind}"' for kind in ("LogFloats", "LogStrings", "LogImages"))


def data_directory() -> Path:
    """Where the client writes, as it decides itself."""
    return Path(os.environ.get("NEPTUNE_DATA_DIRECTORY") or ".neptune").resolve()


def directories(container_id: str, mode: str = "offline") -> list[Path]:
    """Directories of all processes that wrote to one run."""
    return sorted((data_directory() / mode).glob(f"run__{container_id}__*"))


def last_steps(container_id: str) -> dict[str, float]:
    """Highest step of each series of an offline run, by path.

    A line that is cut off or damaged was never logged as far as the readers are concerned, so it is
    passed over here too and its points are logged anew.
    """
    steps: dict[str, float] = {}
    for directory in directories(container_id):
        for file in directory.glob("data-*.log"):
            with file.open(encoding="ascii", errors="replace") as lines:
                for line in lines:
                    if line.startswith(_SERIES):
                        _read(line, steps)
    return steps


def _read(line: str, steps: dict[str, float]) -> None:
    try:
        operation = json.loads(line)["obj"]
        path = "/".join(operation["path"])
        for value in operation["values"]:
            if value["step"] is not None:
                steps[path] = max(steps.get(path, -1.0), value["step"])
    except (ValueError, KeyError, TypeError):
        return
