"""The operation model of a run: what a client can ask for.

Both sources, the offline log and HTTP, are brought into the wire form of one HTTP item
(``{"path": "a/b", "<name>": {...}}``), parsed here into an operation and replayed in :mod:`.replay`;
there is no second place that knows what an operation does.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

SERIES = ("floatSeries", "stringSeries", "imageSeries")
STRING_SETS = ("sys/tags", "sys/group_tags")
_FIXED = ("id", "creation_time", "modification_time", "ping_time", "running_time", "size", "monitoring_time")
READ_ONLY = frozenset(f"sys/{name}" for name in (*_FIXED, "trashed", "state", "owner"))
MAX_PATH = 1024
MAX_TEXT = 1 << 20


class OperationError(ValueError):
    """One operation cannot be parsed or applied; the message is what the client shows."""


@dataclass(slots=True)
class Points:
    """Points of one series: values with their steps and times (epoch milliseconds)."""

    values: list[Any] = field(default_factory=list)
    steps: list[float | None] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def drop(self, count: int) -> Points:
        """Returns the points without the first `count`."""
        return Points(self.values[count:], self.steps[count:], self.times[count:])


@dataclass(slots=True)
class Operation:
    """What is done to the attribute at `path`."""

    path: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Attributes that must be known to apply the operation."""
        return (self.path,)


@dataclass(slots=True)
class Assign(Operation):
    """Sets an atom (float, int, bool, string, datetime in epoch milliseconds, artifact hash, gitRef)."""

    type: str
    value: Any


@dataclass(slots=True)
class Append(Operation):
    """Appends to a series. A step of None is the last step + 1."""

    type: str
    points: Points


@dataclass(slots=True)
class Clear(Operation):
    """Empties a series, string set or artifact; a series that is missing is created empty."""

    type: str


@dataclass(slots=True)
class Configure(Operation):
    """Sets the display range and unit of a float series."""

    config: dict[str, Any]


@dataclass(slots=True)
class EditStrings(Operation):
    """Adds strings to a set or removes them."""

    add: list[str]
    remove: list[str]


@dataclass(slots=True)
class Delete(Operation):
    """Removes the attribute."""


@dataclass(slots=True)
class DeleteFiles(Operation):
    """Removes files, or whole folders, from a file set."""

    names: list[str]


@dataclass(slots=True)
class Copy(Operation):
    """Assigns the value that another attribute of the same run has at this point."""

    source: str

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path, self.source)


@dataclass(slots=True)
class SetFile(Operation):
    """Makes the attribute a file whose content is already in the blob store."""

    file: dict[str, Any]  # blob, size, ext, mime


@dataclass(slots=True)
class AddFiles(Operation):
    """Puts files, already in the blob store, into a file set."""

    files: dict[str, dict[str, Any]]  # name -> blob, size, mtime
    reset: bool = False


@dataclass(slots=True)
class Attribute:
    """One attribute of a run.

    `value` is the atom, the sorted list of a string set, the last value of a series, the description of
    a file (``blob, size, ext, mime``), or the size of a file set.
    """

    path: str
    type: str
    value: Any = None
    config: dict[str, Any] | None = None
    count: int = 0
    last_step: float | None = None
    min: float | None = None
    max: float | None = None
    mean: float = 0.0
    m2: float = 0.0
    # What the replay adds to the store beyond the row itself:
    appended: Points = field(default_factory=Points)
    cleared: bool = False
    files: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    # Where the store keeps the points: `settled` of them in large chunks, the others in `tail` small ones.
    settled: int = 0
    tail: int = 0

    @property
    def variance(self) -> float:
        """Population variance of a float series."""
        return self.m2 / self.count if self.count else 0.0

    def clear(self) -> None:
        """Forgets all points or files."""
        self.value = None
        self.count = self.settled = self.tail = 0
        self.last_step = self.min = self.max = None
        self.mean = self.m2 = 0.0
        self.appended = Points()
        self.files = {}
        self.cleared = True


# ------------------------------------------------------------------ parsing


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OperationError(f"{what} must be a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise OperationError(f"{what} must be finite, got {value!r:.40}")
    return number


def _integer(value: Any, what: str) -> int:
    number = _number(value, what)
    if number != int(number) or abs(number) > 2**53:
        raise OperationError(f"{what} must be a whole number within 53 bits, got {value!r:.40}")
    return int(number)


def text(value: Any, what: str, limit: int = MAX_TEXT) -> str:
    """Checks a string and makes it storable: no NUL, no lone surrogate.

    Raises:
        OperationError: not a string, or longer than `limit`.
    """
    if not isinstance(value, str):
        raise OperationError(f"{what} must be a string, got {type(value).__name__}")
    if len(value) > limit:
        raise OperationError(f"{what} has {len(value)} characters, the limit is {limit}")
    if value.isascii() and "\x00" not in value:
        return value
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _strings(value: Any, what: str) -> list[str]:
    if not isinstance(value, list):
        raise OperationError(f"{what} must be a list, got {type(value).__name__}")
    return [text(item, what) for item in value]


def _image(value: Any) -> dict[str, Any]:
    if value is None or isinstance(value, str):  # older clients log the bare base64 text
        value = {"data": value}
    if not isinstance(value, dict):
        raise OperationError(f"image must be an object, got {type(value).__name__}")
    try:
        data = base64.b64decode(value.get("data") or "", validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise OperationError(f"image data is not base64: {error}") from None
    caption = {key: text(value[key], key) for key in ("name", "description") if value.get(key)}
    return {"data": data, **caption}


_VALUE: dict[str, Callable[[Any], Any]] = {
    "floatSeries": lambda value: _number(value, "value"),
    "stringSeries": lambda value: text(value, "value"),
    "imageSeries": _image,
}


def _append(path: str, type: str, payload: Mapping[str, Any]) -> Append:
    entries = payload["entries"]
    if not isinstance(entries, list):
        raise OperationError(f"entries must be a list, got {type_name(entries)}")
    convert = _VALUE[type]
    points = Points()
    for entry in entries:
        step = entry.get("step")
        points.values.append(convert(entry["value"]))
        points.steps.append(None if step is None else _number(step, "step"))
        points.times.append(_integer(entry["timestampMilliseconds"], "timestampMilliseconds"))
    return Append(path, type, points)


def type_name(value: Any) -> str:
    """Returns the name of a value's type, for messages."""
    return type(value).__name__


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise OperationError(f"value must be true or false, got {type(value).__name__}")
    return value


def _config(payload: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for key in ("min", "max"):
        config[key] = None if payload.get(key) is None else _number(payload[key], key)
    config["unit"] = None if payload.get("unit") is None else text(payload["unit"], "unit", 256)
    return config


_PARSERS: dict[str, Callable[[str, Mapping[str, Any]], Operation]] = {
    "assignFloat": lambda path, p: Assign(path, "float", _number(p["value"], "value")),
    "assignInt": lambda path, p: Assign(path, "int", _integer(p["value"], "value")),
    "assignBool": lambda path, p: Assign(path, "bool", _boolean(p["value"])),
    "assignString": lambda path, p: Assign(path, "string", text(p["value"], "value")),
    "assignDatetime": lambda path, p: Assign(
        path, "datetime", _integer(p["valueMilliseconds"], "valueMilliseconds")
    ),
    "assignArtifact": lambda path, p: Assign(path, "artifact", text(p["hash"], "hash", 256)),
    "logFloats": lambda path, p: _append(path, "floatSeries", p),
    "logStrings": lambda path, p: _append(path, "stringSeries", p),
    "logImages": lambda path, p: _append(path, "imageSeries", p),
    "clearFloatSeries": lambda path, p: Clear(path, "floatSeries"),
    "clearStringSeries": lambda path, p: Clear(path, "stringSeries"),
    "clearImageSeries": lambda path, p: Clear(path, "imageSeries"),
    "clearStringSet": lambda path, p: Clear(path, "stringSet"),
    "clearArtifact": lambda path, p: Clear(path, "artifact"),
    "configFloatSeries": lambda path, p: Configure(path, _config(p)),
    "insertStrings": lambda path, p: EditStrings(path, _strings(p["values"], "values"), []),
    "removeStrings": lambda path, p: EditStrings(path, [], _strings(p["values"], "values")),
    "deleteAttribute": lambda path, p: Delete(path),
    "deleteFiles": lambda path, p: DeleteFiles(path, _strings(p["filePaths"], "filePaths")),
    "copyAttribute": lambda path, p: Copy(path, text(p["source"], "source", MAX_PATH)),
    "setFile": lambda path, p: SetFile(path, _stored_file(p["file"])),
    "addFiles": lambda path, p: AddFiles(
        path, {file_name(name): _stored_file(file) for name, file in p["files"].items()}, bool(p.get("reset"))
    ),
}


def _stored_file(value: Any) -> dict[str, Any]:
    blob = value["blob"]
    if not isinstance(blob, str) or len(blob) != 64 or not set(blob) <= set("0123456789abcdef"):
        raise OperationError(f"blob must be a SHA-256 in hex, got {blob!r:.80}")
    file = {"blob": blob, "size": _integer(value["size"], "size")}
    if "mtime" in value:
        file["mtime"] = _integer(value["mtime"], "mtime")
    for key in ("ext", "mime"):
        if value.get(key):
            file[key] = text(value[key], key, 128)
    return file


def file_name(name: Any) -> str:
    """Checks the name of a file inside a file set: relative, and inside the set.

    Raises:
        OperationError: absolute, or with a `..` that would leave the set.
    """
    parts = [part for part in text(name, "file name", 4096).replace("\\", "/").split("/") if part != "."]
    cleaned = "/".join(part for part in parts if part)
    if not cleaned or ".." in parts or (parts and parts[0] == ""):
        raise OperationError(f"file name {name!r:.200} leaves the file set; use a relative path")
    return cleaned


def parse(item: Any) -> Operation:
    """Parses one item of the wire form.

    Raises:
        OperationError: with what is wrong; never another exception, whatever the item is.
    """
    if not isinstance(item, dict):
        raise OperationError(f"operation must be an object, got {type(item).__name__}")
    names = [name for name in item if name != "path"]
    if len(names) != 1 or names[0] not in _PARSERS:
        raise OperationError(f"operation must have a path and one known name, got {', '.join(names)!r:.200}")
    path = text(item.get("path"), "path", MAX_PATH).strip("/")
    if not path:
        raise OperationError("path is empty")
    payload = item[names[0]]
    if not isinstance(payload, dict):
        raise OperationError(f"{names[0]} must be an object, got {type(payload).__name__}")
    try:
        return _PARSERS[names[0]](path, payload)
    except OperationError as error:
        raise OperationError(f"{path}: {names[0]}: {error}") from None
    except KeyError as error:
        raise OperationError(f"{path}: {names[0]} has no {error}") from None
    except (TypeError, AttributeError) as error:
        raise OperationError(f"{path}: {names[0]} is malformed: {error}") from None


_RECORD_NAMES = {
    "ClearFloatLog": "clearFloatSeries",
    "ClearStringLog": "clearStringSeries",
    "ClearImageLog": "clearImageSeries",
    "AddStrings": "insertStrings",
}


def wire_item(record: Mapping[str, Any]) -> dict[str, Any]:
    """Brings the ``obj`` of an offline record into the wire form.

    Uploads and artifacts refer to files and are resolved by the ingest before they come here.

    Raises:
        OperationError: the record has not the shape of one.
    """
    try:
        type = record["type"]
        path = "/".join(record["path"])
        name = _RECORD_NAMES.get(type) or type[0].lower() + type[1:]
        if type in ("LogFloats", "LogStrings", "LogImages"):
            entries = [
                {"value": v["value"], "step": v.get("step"), "timestampMilliseconds": int(v["ts"] * 1000)}
                for v in record["values"]
            ]
            return {"path": path, name: {"entries": entries}}
        if type == "AssignDatetime":
            return {"path": path, name: {"valueMilliseconds": record["value"]}}
        if type == "DeleteFiles":
            return {"path": path, name: {"filePaths": record["file_paths"]}}
        if type == "CopyAttribute":
            return {"path": path, name: {"source": "/".join(record["source_path"])}}
        payload = {key: value for key, value in record.items() if key not in ("type", "path")}
        return {"path": path, name: payload}
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise OperationError(f"malformed record ({type_name(error)}: {error})") from None
