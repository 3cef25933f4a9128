"""Class names, colors, id maps, splits and counts of the public data sets, as published by their authors."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def table(name: str) -> dict[str, Any]:
    """Content of ``<name>.json`` in this package; do not change it."""
    return json.loads(files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
