"""Class lists in the files that labeling tools and data sets bring along."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from segtrail.data.datasets.base import color_map
from segtrail.data.types import ClassTable, DataError

CLASS_FILES = (
    "classes.txt",
    "codes.txt",
    "class_names.txt",
    "label_colors.txt",
    "class_dict.csv",
    "labelmap.txt",
    "data.yaml",
)

_COLOR_LINE = re.compile(r"^(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*)$")
_CVAT_LINE = re.compile(r"^([^:#]+):(\d{1,3}),(\d{1,3}),(\d{1,3}):[^:]*:[^:]*$")


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One line of a class file.

    Attributes:
        name: class name.
        value: what stands for it in index masks: its position in the file.
        color: RGB in color masks, where the file says so.
    """

    name: str
    value: int
    color: tuple[int, int, int] | None = None


def find_class_file(root: Path) -> Path | None:
    """First of :data:`CLASS_FILES` that lies in ``root``."""
    return next((root / name for name in CLASS_FILES if (root / name).is_file()), None)


def read_class_file(path: Path) -> list[ClassEntry]:
    """Parse any of :data:`CLASS_FILES`; the layout is recognized by the content.

    Names may be listed one a line (``classes.txt``, ``codes.txt``), with colors as ``R G B name``
    (CamVid), ``name,r,g,b`` (CSV with a header), ``name:r,g,b::`` (CVAT), or as ``names:`` in YAML.

    Raises:
        DataError: no classes, a name or color twice, a color above 255.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable text file ({error})") from error
    if path.suffix in (".yaml", ".yml"):
        pairs = _from_yaml(path, text)
    elif path.suffix == ".csv":
        pairs = _from_csv(path, text)
    else:
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        # Labelme lists its void label first and numbers the others from 0.
        pairs = [_from_line(line) for line in lines if line.strip() != "__ignore__"]
    entries = [ClassEntry(name, value, color) for value, (name, color) in enumerate(pairs)]
    if not entries:
        raise DataError(f"{path}: no classes in it; write one name a line")
    _check(path, entries)
    return entries


def table_of(entries: Sequence[ClassEntry]) -> ClassTable:
    """Names, with the file's colors or distinct ones of our own."""
    colors = color_map(len(entries))
    for index, entry in enumerate(entries):
        if entry.color is not None:
            colors[index] = entry.color
    return ClassTable(tuple(entry.name for entry in entries), colors)


def _from_line(line: str) -> tuple[str, tuple[int, int, int] | None]:
    line = line.strip()
    if match := _COLOR_LINE.match(line):
        return match[4].strip(), (int(match[1]), int(match[2]), int(match[3]))
    if match := _CVAT_LINE.match(line):
        return match[1].strip(), (int(match[2]), int(match[3]), int(match[4]))
    return line, None


def _from_csv(path: Path, text: str) -> list[tuple[str, tuple[int, int, int] | None]]:
    rows = [
        {key.strip().lower(): value for key, value in row.items()}
        for row in csv.DictReader(text.splitlines())
    ]
    try:
        return [(row["name"].strip(), (int(row["r"]), int(row["g"]), int(row["b"]))) for row in rows]
    except (KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: expected the columns name,r,g,b ({error!r})") from error


def _from_yaml(path: Path, text: str) -> list[tuple[str, tuple[int, int, int] | None]]:
    names = (yaml.safe_load(text) or {}).get("names")
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list):
        raise DataError(f"{path}: expected a list 'names:' of classes")
    return [(str(name), None) for name in names]


def _check(path: Path, entries: Sequence[ClassEntry]) -> None:
    names: dict[str, int] = {}
    colors: dict[tuple[int, int, int], str] = {}
    for entry in entries:
        if entry.name in names:
            raise DataError(f"{path}: class {entry.name!r} is listed twice; rename one")
        names[entry.name] = entry.value
        if entry.color is None:
            continue
        if max(entry.color) > 255:
            raise DataError(f"{path}: color {entry.color} of {entry.name!r} is above 255")
        if entry.color in colors:
            raise DataError(
                f"{path}: {entry.name!r} and {colors[entry.color]!r} share the color {entry.color}; "
                f"give each its own"
            )
        colors[entry.color] = entry.name


def named(class_names: Sequence[str]) -> list[ClassEntry]:
    """Entries of configured names, in id order; ``color_rrggbb`` stands for that color.

    Raises:
        DataError: no name, or one twice.
    """
    names = [str(name) for name in class_names]
    if not names:
        raise DataError("dataset.class_names is empty; list the names in id order, or null to find them")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"dataset.class_names has {name!r} twice; rename one")
    return [ClassEntry(name, value, _color_of(name)) for value, name in enumerate(names)]


def color_name(color: Sequence[int]) -> str:
    """Name of a class of which only the color is known."""
    return "color_{:02x}{:02x}{:02x}".format(*color)


def _color_of(name: str) -> tuple[int, int, int] | None:
    match = re.fullmatch(r"color_([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", name)
    return (int(match[1], 16), int(match[2], 16), int(match[3], 16)) if match else None
