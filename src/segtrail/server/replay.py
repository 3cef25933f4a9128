"""The replay of operations into attributes: what each operation does, once for both sources."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from segtrail.server.operations import (
    READ_ONLY,
    SERIES,
    STRING_SETS,
    AddFiles,
    Append,
    Assign,
    Attribute,
    Clear,
    Configure,
    Copy,
    Delete,
    DeleteFiles,
    EditStrings,
    Operation,
    OperationError,
    SetFile,
)

Stored = Callable[[Attribute, float], Mapping[float, Any]]


class Replay:
    """Applies operations, in order, to the attributes of one run in memory.

    Args:
        attributes: the attributes that exist, by path; changed in place. Whoever calls persists those
            in `changed` and removes those in `deleted`.
        stored: gives the stored points of a series from a step on, ``{step: value}``; asked only when
            a step is not ahead of the last one.
    """

    def __init__(self, attributes: dict[str, Attribute], stored: Stored) -> None:
        self.attributes = attributes
        self.stored = stored
        self.changed: dict[str, Attribute] = {}
        self.deleted: set[str] = set()

    def run(self, operations: Iterable[Operation]) -> list[str]:
        """Applies all that can be applied. Returns one message for each operation that cannot."""
        errors = []
        for operation in operations:
            try:
                _APPLY[type(operation)](self, operation)
            except OperationError as error:
                errors.append(str(error))
        return errors

    def _attribute(self, path: str, type: str) -> Attribute:
        if path in READ_ONLY:
            raise OperationError(f"{path} is read-only")
        attribute = self.attributes.get(path)
        if attribute is None:
            attribute = self.attributes[path] = Attribute(path, type)
            # A path deleted in this same batch may still have points in the store.
            attribute.cleared = path in self.deleted
            self.deleted.discard(path)
        elif attribute.type != type and (attribute.type, type) != ("float", "int"):
            raise OperationError(f"{path} is of type {attribute.type}, not {type}")
        self.changed[path] = attribute
        return attribute

    def assign(self, operation: Assign) -> None:
        attribute = self._attribute(operation.path, operation.type)
        attribute.value = float(operation.value) if attribute.type == "float" else operation.value

    def append(self, operation: Append) -> None:
        series = self._attribute(operation.path, operation.type)
        points, is_float = operation.points, operation.type == "floatSeries"
        behind: list[tuple[float, Any]] = []
        for value, wanted, time in zip(points.values, points.steps, points.times, strict=True):
            last = series.last_step
            step = wanted if wanted is not None else (0.0 if last is None else float(math.floor(last) + 1))
            if last is not None and step <= last:
                behind.append((step, value))
                continue
            series.appended.values.append(value)
            series.appended.steps.append(step)
            series.appended.times.append(time)
            series.last_step, series.value = step, value
            series.count += 1
            if is_float:
                series.min = value if series.min is None or value < series.min else series.min
                series.max = value if series.max is None or value > series.max else series.max
                delta = value - series.mean
                series.mean += delta / series.count
                series.m2 += delta * (value - series.mean)
        if behind:
            self._check_behind(series, behind)

    def _check_behind(self, series: Attribute, behind: list[tuple[float, Any]]) -> None:
        """A step that is not ahead is the repeat of a point that is there (dropped) or an error."""
        known = {} if series.cleared else dict(self.stored(series, min(step for step, _ in behind)))
        appended = series.appended
        for step, value in behind:
            index = bisect.bisect_left(appended.steps, step)  # type: ignore[type-var]
            if index < len(appended) and appended.steps[index] == step:
                known[step] = appended.values[index]
            if step not in known or not _same(known[step], value):
                raise OperationError(
                    f"{series.path}: X-coordinates (step) must be strictly increasing; step {step:g} came"
                    f" after step {series.last_step:g} and its point is left out"
                )

    def clear(self, operation: Clear) -> None:
        if operation.type == "stringSet" and operation.path not in STRING_SETS:
            raise OperationError(f"{operation.path}: string sets exist at {' and '.join(STRING_SETS)} only")
        attribute = self._attribute(operation.path, operation.type)
        attribute.clear()
        if operation.type in ("stringSet", "artifact"):
            attribute.value = [] if operation.type == "stringSet" else ""

    def configure(self, operation: Configure) -> None:
        self._attribute(operation.path, "floatSeries").config = operation.config

    def edit_strings(self, operation: EditStrings) -> None:
        if operation.path not in STRING_SETS:
            raise OperationError(f"{operation.path}: string sets exist at {' and '.join(STRING_SETS)} only")
        attribute = self._attribute(operation.path, "stringSet")
        attribute.value = sorted({*(attribute.value or ()), *operation.add} - set(operation.remove))

    def delete(self, operation: Delete) -> None:
        if operation.path in READ_ONLY:
            raise OperationError(f"{operation.path} is read-only")
        if self.attributes.pop(operation.path, None) is None:
            raise OperationError(f"{operation.path}: there is no such attribute to delete")
        self.changed.pop(operation.path, None)
        self.deleted.add(operation.path)

    def copy(self, operation: Copy) -> None:
        source = self.attributes.get(operation.source)
        if source is None or source.type in (*SERIES, "fileSet", "stringSet"):
            raise OperationError(
                f"{operation.path}: cannot copy from {operation.source}: not an atom or file"
            )
        self._attribute(operation.path, source.type).value = source.value

    def set_file(self, operation: SetFile) -> None:
        self._attribute(operation.path, "file").value = operation.file

    def add_files(self, operation: AddFiles) -> None:
        attribute = self._attribute(operation.path, "fileSet")
        if operation.reset:
            attribute.clear()
        attribute.files.update(operation.files)

    def delete_files(self, operation: DeleteFiles) -> None:
        attribute = self._attribute(operation.path, "fileSet")
        attribute.files.update(dict.fromkeys(operation.names))


def _same(stored: Any, value: Any) -> bool:
    if isinstance(value, dict):  # an image: the store kept the digest of its bytes
        return bool(stored.get("blob") == value.get("blob"))
    return bool(stored == value)


_APPLY: dict[type[Operation], Callable[[Replay, Any], None]] = {
    Assign: Replay.assign,
    Append: Replay.append,
    Clear: Replay.clear,
    Configure: Replay.configure,
    EditStrings: Replay.edit_strings,
    Delete: Replay.delete,
    DeleteFiles: Replay.delete_files,
    Copy: Replay.copy,
    SetFile: Replay.set_file,
    AddFiles: Replay.add_files,
}
