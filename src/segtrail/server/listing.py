"""Lists of runs: filter, sort and columns in a constant number of SQL statements, no series touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from segtrail.server.nql import AGGREGATES, SYSTEM, Resolve, compile_query
from segtrail.server.operations import Attribute
from segtrail.server.rows import to_row
from segtrail.server.schema import attributes, containers, paths, projects

_PART = 1000


@dataclass(frozen=True)
class RunsPage:
    """Some runs of all that match.

    Attributes:
        total: how many runs match.
        runs: for each run of this page ``id`` (UUID), ``sys_id``, ``project`` ("workspace/name"), ``kind``
            and ``attributes``: path -> ``type`` and, by type, ``value``; series ``last, last_step, count``
            and, if of floats, ``min, max, mean, variance``; files ``value`` (blob, size, ext, mime).
    """

    total: int
    runs: list[dict[str, Any]]


_READ: dict[str, Callable[[Any], dict[str, Any]]] = {
    "float": lambda r: {"type": "float", "value": r[3]},
    "int": lambda r: {"type": "int", "value": int(r[3])},
    "bool": lambda r: {"type": "bool", "value": bool(r[3])},
    "datetime": lambda r: {"type": "datetime", "value": int(r[3])},
    "string": lambda r: {"type": "string", "value": r[4]},
    "artifact": lambda r: {"type": "artifact", "value": r[4]},
    "stringSet": lambda r: {"type": "stringSet", "value": json.loads(r[4])},
    "file": lambda r: {"type": "file", "value": json.loads(r[5])},
    "gitRef": lambda r: {"type": "gitRef", "value": json.loads(r[5])},
    "fileSet": lambda r: {"type": "fileSet", "value": {"size": int(r[3] or 0)}},
    "floatSeries": lambda r: {
        "type": "floatSeries",
        "last": r[3],
        "last_step": r[7],
        "count": r[6],
        "min": r[8],
        "max": r[9],
        "mean": r[10] if r[6] else None,
        "variance": r[11] / r[6] if r[6] else None,
        "config": json.loads(r[5]) if r[5] else None,
    },
    "stringSeries": lambda r: {"type": "stringSeries", "last": r[4], "last_step": r[7], "count": r[6]},
    "imageSeries": lambda r: {
        "type": "imageSeries",
        "last": json.loads(r[5]) if r[5] else None,
        "last_step": r[7],
        "count": r[6],
    },
}
_STATES = ("experimentState",)
_NAMES = ("container", "path", "type", "num", "text", "extra", "n", "last_step", "min", "max", "mean", "m2")
_COLUMNS = [attributes.c[name] for name in _NAMES]


def system_values(row: Any, now: int) -> dict[str, dict[str, Any]]:
    """Returns the system attributes that come from the container itself, `row` with its system columns."""
    found = {}
    for path, (type, _) in SYSTEM.items():
        value = row._mapping[path]
        if value is not None:
            found[path] = {"type": type, "value": float(value) if type == "float" else value}
            if type == "int":
                found[path]["value"] = int(value)
    return found


def system_columns(now: int) -> list[Any]:
    """Returns the columns that :func:`system_values` reads."""
    return [
        sa.type_coerce(column(containers.c, now), _SQL_TYPES[type]).label(path)
        for path, (type, column) in SYSTEM.items()
    ]


_SQL_TYPES: dict[str, Any] = {
    "string": sa.Text(),
    "datetime": sa.BigInteger(),
    "float": sa.Float(53),
    "int": sa.Float(53),
    "bool": sa.Boolean(),
    "experimentState": sa.Text(),
}


def find_runs(
    connection: sa.Connection,
    resolve: Resolve,
    now: int,
    *,
    project: int | None,
    kinds: Sequence[str],
    query: str | None,
    sort: str | None,
    aggregate: str,
    descending: bool,
    columns: Sequence[str] | None,
    limit: int | None,
    offset: int,
) -> RunsPage:
    """Finds runs; see :meth:`segtrail.server.store.Store.runs`."""
    condition = sa.and_(containers.c.kind.in_(kinds), compile_query(query or "", resolve, now))
    if project is not None:
        condition = sa.and_(condition, containers.c.project == project)
    total = connection.scalar(sa.select(sa.func.count()).select_from(containers).where(condition)) or 0
    if limit == 0:
        return RunsPage(total, [])
    page = (
        sa.select(
            containers.c.pk,
            containers.c.id,
            containers.c.kind,
            containers.c.sys_id.label("sys_id"),
            projects.c.workspace,
            projects.c.name,
            *system_columns(now),
        )
        .join(projects, projects.c.container == containers.c.project)
        .where(condition)
    )
    page = _sorted(page, resolve, now, sort, aggregate, descending)
    rows = connection.execute(page.limit(limit).offset(offset)).all()
    wanted = None if columns is None else set(columns)
    runs: dict[int, dict[str, Any]] = {}
    for row in rows:
        found = system_values(row, now)
        runs[row.pk] = {
            "id": row.id,
            "sys_id": row.sys_id,
            "project": f"{row.workspace}/{row.name}",
            "kind": row.kind,
            "attributes": {path: value for path, value in found.items() if wanted is None or path in wanted},
        }
    _read_attributes(connection, resolve, runs, columns)
    return RunsPage(total, list(runs.values()))


def _sorted(
    page: sa.Select, resolve: Resolve, now: int, sort: str | None, aggregate: str, descending: bool
) -> sa.Select:
    def order(column: Any) -> Any:
        return column.desc() if descending else column.asc()

    if sort is None:
        return page.order_by(containers.c.created.desc(), containers.c.pk.desc())
    if sort in SYSTEM:
        key = SYSTEM[sort][1](containers.c, now)
        return page.order_by(key.is_(None), order(key), order(containers.c.pk))
    path = resolve(sort)
    page = page.outerjoin(
        attributes, sa.and_(attributes.c.container == containers.c.pk, attributes.c.path == path)
    )
    number = AGGREGATES[aggregate]
    empty = sa.and_(number.is_(None), attributes.c.text.is_(None))
    return page.order_by(empty, order(number), order(attributes.c.text), order(containers.c.pk))


def _read_attributes(
    connection: sa.Connection,
    resolve: Resolve,
    runs: dict[int, dict[str, Any]],
    columns: Sequence[str] | None,
) -> None:
    ids: dict[int, str] = {}
    if columns is not None:
        ids = {number: path for path in columns if (number := resolve(path)) is not None}
        if not ids:
            return
    keys = list(runs)
    for first in range(0, len(keys), _PART):
        query = sa.select(*_COLUMNS).where(attributes.c.container.in_(keys[first : first + _PART]))
        if columns is not None:
            query = query.where(attributes.c.path.in_(list(ids)))
        # Plain tuples of the driver: half a million of SQLAlchemy's rows would take longer than the query.
        rows: Any = connection.execute(query).cursor.fetchall()
        if columns is None:
            unknown = {row[1] for row in rows} - ids.keys()
            ids.update(path_names(connection, unknown))
        for row in rows:
            runs[row[0]]["attributes"][ids[row[1]]] = _READ[row[2]](row)


def path_names(connection: sa.Connection, numbers: set[int]) -> dict[int, str]:
    """Returns the paths with these ids."""
    found: dict[int, str] = {}
    wanted = list(numbers)
    for first in range(0, len(wanted), _PART):
        query = sa.select(paths.c.id, paths.c.path).where(paths.c.id.in_(wanted[first : first + _PART]))
        found.update((row[0], row[1]) for row in connection.execute(query))
    return found


def describe(attribute: Attribute) -> dict[str, Any]:
    """Describes one attribute as lists of runs do."""
    if attribute.type in _STATES:
        return {"type": attribute.type, "value": attribute.value}
    row = to_row(0, 0, attribute)
    return _READ[attribute.type]([row[name] for name in _NAMES])
