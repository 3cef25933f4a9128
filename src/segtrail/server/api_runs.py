"""The part of the API about runs, models and versions: creating, logging, reading, tables."""

from __future__ import annotations

import re
import warnings
from typing import Any

import sqlalchemy as sa

from segtrail.server.auth import ForbiddenError
from segtrail.server.call import BadRequestError, Call, MissingRunError, iso
from segtrail.server.database import NotFoundError, now_ms
from segtrail.server.listing import describe, find_runs
from segtrail.server.nql import SYSTEM
from segtrail.server.operations import Attribute, OperationError, parse, text
from segtrail.server.resend import Resend
from segtrail.server.schema import attributes, containers, paths

KINDS = ("run", "model", "modelVersion")
_SEARCH_LIMIT = 1000


def _experiment(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "shortId": row.sys_id if row.kind != "project" else row.key,
        "type": row.kind,
        "organizationName": row.workspace,
        "projectName": row.name,
        "projectId": row.id if row.kind == "project" else None,
        "trashed": row.trashed,
    }


def create_experiment(call: Call) -> Any:
    wanted = call.object()
    kind = wanted.get("type") or "run"
    if kind not in KINDS:
        raise BadRequestError(f"type must be one of {', '.join(KINDS)}, got {kind!r:.80}")
    if not isinstance(wanted.get("projectIdentifier"), str):
        raise BadRequestError("projectIdentifier is missing")
    project = call.project("contributor", wanted["projectIdentifier"])
    first = {"sys/owner": Attribute("sys/owner", "string", call.caller.user)}
    for path in ("sys/tags", "sys/group_tags"):
        first[path] = Attribute(path, "stringSet", [])
    sys_id = parent = custom_id = None
    if kind == "run":
        custom_id = wanted.get("customId")
        first["sys/failed"] = Attribute("sys/failed", "bool", False)
        git = wanted.get("gitInfo")
        if isinstance(git, dict):
            first["source_code/git"] = Attribute("source_code/git", "gitRef", git)
    elif kind == "model":
        key = wanted.get("key")
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,40}", key):
            raise BadRequestError(f"a model needs a key of letters and digits, got {key!r:.80}")
        sys_id = f"{project.key}-{key}"
    else:
        parent = call.container("contributor", str(wanted.get("parentId")))
        first["sys/model_id"] = Attribute("sys/model_id", "string", parent.sys_id)
        first["sys/stage"] = Attribute("sys/stage", "string", "none")
    if custom_id is not None:
        custom_id = text(custom_id, "customId", 256)
    run_id = call.store.create_run(
        project.id,
        custom_id=custom_id,
        kind=kind,
        parent=parent.id if parent is not None else None,
        sys_id=sys_id,
        attributes=first,
    )
    return _experiment(call.container("viewer", run_id))


def get_experiment(call: Call) -> Any:
    return _experiment(call.container("viewer"))


def ping(call: Call) -> Any:
    call.store.ping(call.container("contributor").id)


def execute_operations(call: Call) -> Any:
    """Applies a batch. What is wrong with single operations is told in the answer, never by a status: a
    client that gets 4xx stops sending for good."""
    row = call.container("contributor")
    if not isinstance(call.body, list):
        raise BadRequestError(f"operations must be a list, got {type(call.body).__name__}")
    operations, errors = [], []
    for item in call.body:
        try:
            operations.append(parse(item))
        except OperationError as error:
            errors.append(str(error))
    guard = Resend(call.caller.session, call.digest)
    errors += call.store.apply_with(row.id, operations, guard=guard)
    call.shared.metrics.count("segtrail_operations_total", len(operations))
    call.shared.metrics.count("segtrail_operation_errors_total", len(errors))
    return [error_item(message) for message in errors]


def error_item(message: str) -> dict[str, str]:
    """Returns what the client shows for one operation that could not be applied."""
    return {"errorDescription": message, "errorType": "METADATA_INCONSISTENCY"}


# ------------------------------------------------------------------ reading


def _properties(path: str, described: dict[str, Any]) -> dict[str, Any]:
    """Brings an attribute, as lists of runs describe it, into the form of the protocol."""
    type = described["type"]
    value: Any = described.get("value")
    properties: dict[str, Any] = {"attributeName": path, "attributeType": type}
    if type == "datetime":
        properties["value"] = iso(value)
    elif type == "file":
        name = path.rpartition("/")[2] + (f".{value['ext']}" if value.get("ext") else "")
        properties |= {"name": name, "ext": value.get("ext") or "", "size": value["size"]}
    elif type == "fileSet":
        properties["size"] = value["size"]
    elif type == "stringSet":
        properties["values"] = value
    elif type == "artifact":
        properties["hash"] = value
    elif type == "gitRef":
        properties |= value
    elif type.endswith("Series"):
        properties["lastStep"] = described["last_step"]
        if type != "imageSeries":
            properties["last"] = described["last"]
        if type == "floatSeries":
            config = described["config"] or {"min": None, "max": None, "unit": None}
            properties |= {"min": described["min"], "max": described["max"], "config": config}
            properties |= {"average": described["mean"], "variance": described["variance"]}
    else:
        properties["value"] = value
    return {"name": path, "type": type, f"{type}Properties": properties}


def get_experiment_attributes(call: Call) -> Any:
    row = call.container("viewer")
    found = call.store.attributes(row.id)
    return {
        "id": row.id,
        "attributes": [_properties(path, describe(attribute)) for path, attribute in found.items()],
    }


def _get(type: str) -> Any:
    def handler(call: Call) -> Any:
        path = call.text("attribute").strip("/")
        row = call.container("viewer")
        if path in SYSTEM:
            attribute = call.store.attributes(row.id, path).get(path)
        else:
            attribute = call.store.attribute(row.id, path)
        if attribute is None or (attribute.type != type and (attribute.type, type) != ("int", "float")):
            raise NotFoundError(f"run {row.sys_id} has no {type} {path}")
        return _properties(path, describe(attribute))[f"{attribute.type}Properties"]

    return handler


def _values(type: str) -> Any:
    def handler(call: Call) -> Any:
        row = call.container("viewer")
        offset, limit = call.integer("offset", 0), min(call.integer("limit", 1000), 10_000)
        page = call.store.series_page(row.id, call.text("attribute").strip("/"), type, offset, limit)
        points = zip(page["steps"], page["values"], page["times"], strict=True)
        return {
            "totalItemCount": page["total"],
            "values": [{"step": step, "value": value, "timestampMillis": at} for step, value, at in points],
        }

    return handler


# ------------------------------------------------------------------ tables


def search_entries(call: Call) -> Any:
    project = call.project("viewer")
    params = call.object()
    kinds = [kind for kind in call.lists.get("type", []) if kind in KINDS] or list(KINDS)
    page, sorting = params.get("pagination") or {}, params.get("sorting") or {}
    filters = params.get("attributeFilters")
    try:
        columns = [entry["path"] for entry in filters] if filters else None
        query = (params.get("query") or {}).get("query") or ""
        sort = (sorting.get("sortBy") or {}).get("name")
        descending = sorting.get("dir") == "descending"
        limit, offset = int(page.get("limit", 100)), int(page.get("offset", 0))
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise BadRequestError(f"malformed params: {error!r:.200}") from None
    texts = [query, *(columns or ()), *([] if sort is None else [sort])]
    if not all(isinstance(text, str) for text in texts):
        raise BadRequestError("malformed params: query, names of columns and of the sorting must be strings")
    if not 0 <= limit <= 10_000 or not 0 <= offset < 2**31:
        raise BadRequestError("malformed params: pagination")
    with call.store.read() as connection:
        found = find_runs(
            connection,
            call.store.resolve(connection),
            now_ms(),
            project=project.container,
            kinds=kinds,
            query=query,
            sort=sort,
            aggregate="last",
            descending=descending,
            columns=columns,
            limit=limit,
            offset=offset,
        )
    entries = [
        {
            "experimentId": run["id"],
            "attributes": [_properties(path, value) for path, value in run["attributes"].items()],
        }
        for run in found.runs
    ]
    return {"matchingItemCount": found.total, "entries": entries}


def search_attributes(call: Call) -> Any:
    """Finds names and types of attributes, by the ids of names: runs without them are never looked at."""
    project = call.project("viewer")
    search = call.query.get("search") or ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the search is the user's, its style too
            pattern = re.compile(search)
    except (re.error, OverflowError):
        pattern = re.compile(re.escape(search))
    limit = min(call.integer("limit", _SEARCH_LIMIT) or _SEARCH_LIMIT, _SEARCH_LIMIT)
    entries = [{"name": path, "type": type} for path, (type, _) in SYSTEM.items() if pattern.search(path)]
    with call.store.read() as connection:
        names = [
            (number, path)
            for number, path in connection.execute(sa.select(paths.c.id, paths.c.path))
            if pattern.search(path)
        ]
        for number, path in names:
            if len(entries) >= limit:
                break
            here = (
                sa.select(attributes.c.type)
                .distinct()
                .join(containers, containers.c.pk == attributes.c.container)
            )
            condition = sa.and_(attributes.c.path == number, containers.c.project == project.container)
            entries += [{"name": path, "type": type} for type in connection.scalars(here.where(condition))]
    return {"entries": entries}


# ------------------------------------------------------------------ trash


def _bulk(call: Call, names: list[str], action: Any) -> Any:
    project = call.project("contributor")
    done, errors = [], []
    for name in names:
        try:
            row = call.container("contributor", name)
            if row.project != project.container or row.kind == "project":
                raise MissingRunError(f"there is no run {name} in {project.workspace}/{project.name}")
            action([row.id])
            done.append(name)
        except (NotFoundError, ForbiddenError) as error:
            errors.append({"id": name, "error": {"errorDescription": str(error)}})
    return {"errors": errors, "updatedExperimentIdentifiers": done}


def delete_all(call: Call) -> Any:
    project = call.project("owner")
    with call.store.read() as connection:
        trashed = sa.select(containers.c.id).where(
            containers.c.project == project.container, containers.c.trashed.is_(True)
        )
        names = list(connection.scalars(trashed))
    return _bulk(call, names, call.store.delete)


def signal_runs(call: Call) -> Any:
    """Asks running clients to stop, or to abort and be marked as failed."""
    wanted = call.object()
    kind = wanted.get("type")
    if kind not in ("stop", "abort"):
        raise BadRequestError(f"signal must be stop or abort, got {kind!r:.80}")
    names = wanted.get("experimentIdentifiers")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadRequestError("experimentIdentifiers must be a list of strings")
    return _bulk(call, names, lambda ids: call.shared.signals.send(ids[0], kind, wanted.get("seconds")))


def no_checkpoint(call: Call) -> Any:
    raise NotFoundError("notebooks are not stored")


HANDLERS = {
    "createExperiment": create_experiment,
    "getExperiment": get_experiment,
    "trashExperiments": lambda call: _bulk(call, call.strings(), call.store.trash),
    "restoreExperiments": lambda call: _bulk(call, call.strings(), call.store.restore),
    "deleteExperiments": lambda call: _bulk(call, call.strings(), call.store.delete),
    "deleteAllExperiments": delete_all,
    "signalRuns": signal_runs,
    "ping": ping,
    "executeOperations": execute_operations,
    "getExperimentAttributes": get_experiment_attributes,
    "getFloatAttribute": _get("float"),
    "getIntAttribute": _get("int"),
    "getBoolAttribute": _get("bool"),
    "getStringAttribute": _get("string"),
    "getDatetimeAttribute": _get("datetime"),
    "getFileAttribute": _get("file"),
    "getArtifactAttribute": _get("artifact"),
    "getFloatSeriesAttribute": _get("floatSeries"),
    "getStringSeriesAttribute": _get("stringSeries"),
    "getStringSetAttribute": _get("stringSet"),
    "getFloatSeriesValues": _values("floatSeries"),
    "getStringSeriesValues": _values("stringSeries"),
    "getImageSeriesValues": _values("imageSeries"),
    "searchLeaderboardEntries": search_entries,
    "searchLeaderboardAttributes": search_attributes,
    "createEmptyCheckpoint": no_checkpoint,
}
