"""The runs table: which attributes are columns, and their values, column by column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from segtrail.server.schema import attributes, containers, paths
from segtrail.server.store import Store
from segtrail.tracking import names

_ATOMS = ("float", "int", "bool", "string", "datetime")
_HEAD = ("sys/name", "sys/tags", "sys/failed", "sys/state", "sys/creation_time", "sys/running_time")
_METRICS = re.compile(r"(val|test)/[^/]+|train/(loss|epoch)")
_DEFAULT = re.compile(r"parameters/.+|environment/git/commit")
_MAX_DEFAULT = 250
_FEW = 20
# Differs in every run and tells nothing: folders, and what the tracker and callbacks are set to.
INCIDENTAL = re.compile(r"parameters/(callbacks|tracker|run_dir|name)(/|$)|dir(path)?$")
_LIVE = "`sys/trashed`:bool = false"


def attribute_paths(store: Store, project: str) -> dict[str, str]:
    """Paths of all attributes that any run of a project has, with the type of each."""
    with store.read() as connection:
        key = store.project_row(connection, project).container
        query = (
            sa.select(paths.c.path, sa.func.max(attributes.c.type))
            .select_from(attributes)
            .join(containers, containers.c.pk == attributes.c.container)
            .join(paths, paths.c.id == attributes.c.path)
            .where(containers.c.project == key, containers.c.kind == "run")
            .group_by(paths.c.path)
            .order_by(paths.c.path)
        )
        return {row[0]: row[1] for row in connection.execute(query)}


def is_column(type: str) -> bool:
    """Whether values of the type can be shown in a cell."""
    return type in _ATOMS or type in ("floatSeries", "stringSet")


def search_columns(
    known: dict[str, str], words: Sequence[str], limit: int, type_: str = ""
) -> dict[str, str]:
    """Those of `known` that can be columns and contain any of `words`, the best matches first."""
    wanted = [word.lower() for word in words]
    found = [
        path
        for path, type in known.items()
        if is_column(type)
        and type_ in ("", type)
        and (not wanted or any(word in path.lower() for word in wanted))
    ]
    found.sort(key=lambda path: (not any(path.lower().endswith(word) for word in wanted), path))
    return {path: known[path] for path in found[:limit]}


def runs_table(
    store: Store, project: str, known: dict[str, str], extra: Sequence[str], ids: Sequence[str] | None = None
) -> dict[str, Any]:
    """Runs that are not in the trash, newest first, with the default and the `extra` columns.

    Args:
        store: the run store.
        project: "workspace/name".
        known: what :func:`attribute_paths` gave.
        extra: paths to add.
        ids: only these runs.

    Returns:
        ``runs`` (id, sys_id, name, state, created, duration, tags) and ``columns``: path, type, whether the
        values differ between runs, and the value of each run (of a series: last, min and max).
    """
    cells_of = [path for path, type in known.items() if is_column(type)]
    metrics = [path for path in cells_of if _METRICS.fullmatch(path)]
    others = [path for path in cells_of if _DEFAULT.fullmatch(path)]
    others.sort(key=lambda path: path.count("/"))  # where there are too many, the shallow ones tell more
    chosen = sorted([*metrics[:_MAX_DEFAULT], *others[:_MAX_DEFAULT]])
    wanted = list(dict.fromkeys([*chosen, *(path for path in extra if path in known)]))
    page = store.runs(project, query=_query(store, ids), columns=[*_HEAD, *wanted])
    found = page.runs if ids is None else [run for run in page.runs if run["id"] in set(ids)]
    values = [run["attributes"] for run in found]
    columns = []
    for path in wanted:
        cells = [item.get(path) for item in values]
        if not any(cells):
            continue
        columns.append(_column(path, known[path], cells))
    return {"runs": [_head(run) for run in found], "columns": columns}


def _query(store: Store, ids: Sequence[str] | None) -> str:
    """Runs that are not in the trash; where few are wanted, these alone."""
    if not ids or len(ids) > _FEW:
        return _LIVE
    with store.read() as connection:
        query = sa.select(containers.c.sys_id).where(containers.c.id.in_(list(ids)))
        found = list(connection.scalars(query.where(containers.c.kind == "run")))
    if not all(re.fullmatch(r"[\w-]+", sys_id) for sys_id in found):
        return _LIVE
    wanted = " OR ".join(f'`sys/id`:string = "{sys_id}"' for sys_id in found or [""])
    return f"{_LIVE} AND ({wanted})"


def trashed_runs(store: Store, project: str) -> list[dict[str, Any]]:
    """Runs in the trash, newest first."""
    page = store.runs(project, query="`sys/trashed`:bool = true", columns=_HEAD)
    return [_head(run) for run in page.runs]


def _column(path: str, type: str, cells: list[dict[str, Any] | None]) -> dict[str, Any]:
    if type == "floatSeries":
        column = {
            name: [cell.get(key) if cell else None for cell in cells]
            for name, key in (("value", "last"), ("min", "min"), ("max", "max"))
        }
    else:
        column = {"value": [cell.get("value") if cell else None for cell in cells]}
    first = next(iter(column["value"]), None)
    # not a number differs from itself, but looks the same
    differs = any(value != first and repr(value) != repr(first) for value in column["value"])
    varies = differs and not INCIDENTAL.search(path)
    return {"path": path, "type": type, "varies": varies, **column}


def _head(run: dict[str, Any]) -> dict[str, Any]:
    def value(path: str, default: Any = None) -> Any:
        return run["attributes"].get(path, {}).get("value", default)

    state = "failed" if value("sys/failed") else value("sys/state", "idle")
    return {
        "id": run["id"],
        "sys_id": run["sys_id"],
        "name": value("sys/name") or run["sys_id"],
        "state": state,
        "created": value("sys/creation_time", 0),
        "duration": value("sys/running_time", 0),
        "tags": value(names.TAGS, []),
    }
