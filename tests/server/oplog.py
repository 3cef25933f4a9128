"""Writes operation logs as the client does, without it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any


class Log:
    """A run directory that a program writes.

    Args:
        base: the ``.neptune`` folder.
        mode: offline or async.
        container: id of the run; a new one by default.
        pid: in the directory's name.
    """

    def __init__(self, base: Path, mode: str = "offline", container: str | None = None, pid: int = 0) -> None:
        self.container = container or str(uuid.uuid4())
        self.path = base / mode / f"run__{self.container}__{pid or 2**22 + 1}__{uuid.uuid4().hex[:8]}"
        (self.path / "upload_path").mkdir(parents=True)
        metadata = {
            "mode": mode,
            "containerId": self.container,
            "containerType": "run",
            "structureVersion": 3,
            "createdAt": "2024-05-06T07:08:09+00:00",
        }
        (self.path / "metadata.json").write_text(json.dumps(metadata))
        self.version = 0
        self.file = self.path / "data-1.log"

    def line(self, obj: dict[str, Any]) -> str:
        """Numbers a record and returns its line."""
        self.version += 1
        return json.dumps({"obj": obj, "version": self.version, "at": 1700000000.0 + self.version}) + "\n"

    def write(self, *objects: dict[str, Any]) -> None:
        """Appends records."""
        self.raw("".join(self.line(obj) for obj in objects))

    def raw(self, text: str | bytes) -> None:
        """Appends anything."""
        with self.file.open("ab") as file:
            file.write(text.encode() if isinstance(text, str) else text)

    def rotate(self) -> None:
        """Goes on in a new file."""
        self.file = self.path / f"data-{self.version + 1}.log"


def point(path: str, value: float, step: float | None = None, at: float = 1700000000.0) -> dict[str, Any]:
    """A record that appends one float."""
    return {
        "type": "LogFloats",
        "path": path.split("/"),
        "values": [{"value": value, "step": step, "ts": at}],
    }


def text_point(path: str, value: str, at: float = 1700000000.0) -> dict[str, Any]:
    """A record that appends one string."""
    return {
        "type": "LogStrings",
        "path": path.split("/"),
        "values": [{"value": value, "step": None, "ts": at}],
    }


def string(path: str, value: str) -> dict[str, Any]:
    """A record that assigns a string."""
    return {"type": "AssignString", "path": path.split("/"), "value": value}
