"""Attributes and their points as rows: loading what operations touch, writing what they changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from segtrail.server.operations import SERIES, Attribute
from segtrail.server.schema import attributes, chunks, files, upsert
from segtrail.server.series import (
    LARGE,
    LARGE_BYTES,
    TAIL,
    join_values,
    pack_numbers,
    pack_values,
    unpack_numbers,
)

_NUMBERS = frozenset({"float", "int", "bool", "datetime", "floatSeries", "fileSet"})
_OBJECTS = frozenset({"file", "gitRef", "imageSeries"})
MAX_CHUNK = 8 * LARGE


def to_row(container: int, path: int, attribute: Attribute) -> dict[str, Any]:
    """Returns the row of an attribute."""
    value, type = attribute.value, attribute.type
    extra = attribute.config
    if type in _OBJECTS and value is not None:
        extra = value
    text = None
    if type == "stringSet":
        text = json.dumps(value, ensure_ascii=False)
    elif type == "file":
        text = value["blob"]
    elif type not in _NUMBERS and type not in _OBJECTS:
        text = value
    return {
        "container": container,
        "path": path,
        "type": type,
        "num": float(value) if type in _NUMBERS and value is not None else None,
        "text": text,
        "extra": None if extra is None else json.dumps(extra),
        "n": attribute.count,
        "last_step": attribute.last_step,
        "min": attribute.min,
        "max": attribute.max,
        "mean": attribute.mean,
        "m2": attribute.m2,
        "settled": attribute.settled,
        "tail": attribute.tail,
    }


def from_row(path: str, row: Any) -> Attribute:
    """Inverts :func:`to_row`."""
    type, value = row.type, row.text
    extra = json.loads(row.extra) if row.extra else None
    if type in _NUMBERS:
        value = row.num
        if value is not None and type in ("int", "datetime"):
            value = int(value)
        elif type == "bool":
            value = bool(value)
    elif type in _OBJECTS:
        value = extra
    elif type == "stringSet":
        value = json.loads(value)
    return Attribute(
        path,
        type,
        value,
        config=extra if type == "floatSeries" else None,
        count=row.n,
        last_step=row.last_step,
        min=row.min,
        max=row.max,
        mean=row.mean,
        m2=row.m2,
        settled=row.settled,
        tail=row.tail,
    )


def load(connection: sa.Connection, container: int, ids: Mapping[str, int]) -> dict[str, Attribute]:
    """Loads the attributes of a container at the paths in `ids`, those that exist."""
    names = {number: path for path, number in ids.items()}
    found: dict[str, Attribute] = {}
    numbers = list(names)
    for first in range(0, len(numbers), 1000):
        part = numbers[first : first + 1000]
        query = sa.select(attributes).where(attributes.c.container == container, attributes.c.path.in_(part))
        for row in connection.execute(query):
            found[names[row.path]] = from_row(names[row.path], row)
    return found


def load_points(
    connection: sa.Connection,
    container: int,
    path: int,
    type: str,
    start: float | None = None,
    stop: float | None = None,
    *,
    times: bool = True,
) -> tuple[np.ndarray, Any, np.ndarray | None]:
    """Reads the points of a series with ``start <= step <= stop``.

    Returns:
        Steps (n,) float64, values ((n,) float64 or a list), times (n,) int64 epoch milliseconds or None.
    """
    columns = [chunks.c.n, chunks.c.points, chunks.c.steps] + ([chunks.c.times] if times else [])
    query = sa.select(*columns).where(chunks.c.container == container, chunks.c.path == path)
    if start is not None:
        query = query.where(chunks.c.last_step >= start)
    if stop is not None:
        query = query.where(chunks.c.first_step <= stop)
    rows = connection.execute(query.order_by(chunks.c.start)).all()
    steps = _concatenate([unpack_numbers(row.steps, row.n, "<f8") for row in rows], "<f8")
    values = join_values(type, (row.points for row in rows))
    stamps = _concatenate([unpack_numbers(row.times, row.n, "<i8") for row in rows], "<i8") if times else None
    first = 0 if start is None else int(np.searchsorted(steps, start))
    last = len(steps) if stop is None else int(np.searchsorted(steps, stop, side="right"))
    if (first, last) != (0, len(steps)):
        steps, values = steps[first:last], values[first:last]
        stamps = stamps[first:last] if stamps is not None else None
    return steps, values, stamps


def _concatenate(parts: list[np.ndarray], dtype: str) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def drop(connection: sa.Connection, container: int, path: int, *, row: bool) -> None:
    """Removes the points and files of an attribute and, with `row`, the attribute itself."""
    for table in (chunks, files, attributes) if row else (chunks, files):
        connection.execute(table.delete().where(table.c.container == container, table.c.path == path))


def save(
    connection: sa.Connection, container: int, ids: Mapping[str, int], changed: Iterable[Attribute]
) -> None:
    """Writes changed attributes with their new points and files."""
    new_rows, new_chunks = [], []
    for attribute in changed:
        path = ids[attribute.path]
        if attribute.cleared:
            drop(connection, container, path, row=False)
        if attribute.files:
            _save_files(connection, container, path, attribute)
        if attribute.type == "fileSet":
            total = sa.select(sa.func.coalesce(sa.func.sum(files.c.size), 0))
            attribute.value = connection.scalar(
                total.where(files.c.container == container, files.c.path == path)
            )
        elif attribute.type in SERIES and len(attribute.appended):
            new_chunks += _append(connection, container, path, attribute)
        new_rows.append(to_row(container, path, attribute))
    if new_chunks:
        connection.execute(chunks.insert(), new_chunks)
    if new_rows:
        upsert(connection, attributes, new_rows)


def _append(connection: sa.Connection, container: int, path: int, series: Attribute) -> list[dict[str, Any]]:
    """Returns the chunk rows that hold the new points; merges the small ones when they are many."""
    new = series.appended
    start = series.count - len(new)
    packed = [(pack_values(series.type, new.values), np.array(new.steps, "<f8"), np.array(new.times, "<i8"))]
    if series.tail < TAIL and len(new) < LARGE:
        series.tail += 1
        return [_chunk(container, path, start, *packed[0])]
    tail = sa.and_(chunks.c.container == container, chunks.c.path == path, chunks.c.start >= series.settled)
    old = connection.execute(sa.select(chunks).where(tail).order_by(chunks.c.start)).all()
    connection.execute(chunks.delete().where(tail))
    values = join_values(series.type, [*(row.points for row in old), packed[0][0]])
    steps = np.concatenate([*(unpack_numbers(row.steps, row.n, "<f8") for row in old), packed[0][1]])
    times = np.concatenate([*(unpack_numbers(row.times, row.n, "<i8") for row in old), packed[0][2]])
    rows = []
    for first in range(0, len(steps), MAX_CHUNK):
        part = slice(first, first + MAX_CHUNK)
        data = pack_values(series.type, values[part])
        rows.append(_chunk(container, path, series.settled + first, data, steps[part], times[part]))
    large = len(steps) >= LARGE or sum(len(row["points"]) for row in rows) >= LARGE_BYTES
    series.settled, series.tail = (series.count, 0) if large else (series.settled, 1)
    return rows


def _chunk(
    container: int, path: int, start: int, data: bytes, steps: np.ndarray, times: np.ndarray
) -> dict[str, Any]:
    return {
        "container": container,
        "path": path,
        "start": start,
        "n": len(steps),
        "first_step": float(steps[0]),
        "last_step": float(steps[-1]),
        "points": data,
        "steps": pack_numbers(steps, "<f8"),
        "times": pack_numbers(times, "<i8"),
    }


def _save_files(connection: sa.Connection, container: int, path: int, attribute: Attribute) -> None:
    here = sa.and_(files.c.container == container, files.c.path == path)
    removed = [name for name, file in attribute.files.items() if file is None]
    for name in removed:
        folder = files.c.name.startswith(name.rstrip("/") + "/", autoescape=True)
        connection.execute(files.delete().where(here, sa.or_(files.c.name == name, folder)))
    added = [
        {
            "container": container,
            "path": path,
            "name": name,
            "blob": file["blob"],
            "size": file["size"],
            "mtime": file.get("mtime", 0),
        }
        for name, file in attribute.files.items()
        if file is not None
    ]
    if added:
        upsert(connection, files, added)
