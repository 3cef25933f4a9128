"""Operations in the wire form, in short."""

from __future__ import annotations

import base64
from typing import Any

from segtrail.server.operations import Operation, parse

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def floats(path: str, values: list[Any], steps: list[Any] | None = None, at: int = 1000) -> Operation:
    """Appends to a float series; times are `at`, `at` + 1, ..."""
    return parse(log_item("logFloats", path, values, steps, at))


def strings(path: str, values: list[str], steps: list[Any] | None = None, at: int = 1000) -> Operation:
    """Appends to a string series."""
    return parse(log_item("logStrings", path, values, steps, at))


def images(path: str, values: list[bytes], steps: list[Any] | None = None) -> Operation:
    """Appends to an image series."""
    data = [{"data": base64.b64encode(value).decode(), "name": None, "description": None} for value in values]
    return parse(log_item("logImages", path, data, steps, 1000))


def log_item(name: str, path: str, values: list[Any], steps: list[Any] | None, at: int) -> dict[str, Any]:
    """Returns the wire form of an append."""
    steps = steps if steps is not None else [None] * len(values)
    entries = [
        {"value": value, "step": step, "timestampMilliseconds": at + i}
        for i, (value, step) in enumerate(zip(values, steps, strict=True))
    ]
    return {"path": path, name: {"entries": entries}}


def assign(kind: str, path: str, value: Any) -> Operation:
    """Assigns an atom: Float, Int, Bool, String."""
    return parse({"path": path, f"assign{kind}": {"value": value}})


def do(name: str, path: str, **payload: Any) -> Operation:
    """Any other operation."""
    return parse({"path": path, name: payload})
