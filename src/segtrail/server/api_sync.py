"""The part of the API for ``segtrail sync``: offline logs pushed by version, so that nothing is doubled."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from segtrail.server.api_files import receive_blob
from segtrail.server.call import BadRequestError, Call
from segtrail.server.database import NotFoundError
from segtrail.server.operations import text
from segtrail.server.swagger import Endpoint

PREFIX = "/api/segtrail/v1"
ENDPOINTS = [
    Endpoint("syncSource", "GET", f"{PREFIX}/source", ("directory",)),
    Endpoint("syncOpen", "POST", f"{PREFIX}/source", body="source"),
    Endpoint("syncHasRun", "GET", f"{PREFIX}/run", ("experimentId",)),
    Endpoint("syncBlob", "POST", f"{PREFIX}/blob"),
    Endpoint("syncArtifact", "POST", f"{PREFIX}/artifact", body="artifact"),
    Endpoint("syncRecords", "POST", f"{PREFIX}/records", body="records"),
]


def _number(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise BadRequestError(f"{name} must be a whole number of at least 0, got {value!r:.80}")
    return value


def source(call: Call) -> Any:
    known = call.store.source(text(call.text("directory"), "directory", 512))
    if known is not None and known[0]:
        call.container("contributor", known[0])
    return {"source": known}


def open_source(call: Call) -> Any:
    wanted = call.object()
    names = {key: text(wanted.get(key), key, 512) for key in ("directory", "origin", "project")}
    custom_id = None if wanted.get("custom_id") is None else text(wanted["custom_id"], "custom_id", 256)
    created, version = (_number(wanted.get(key), key) for key in ("created", "version"))
    if not re.fullmatch(r"[\w.-]{1,36}", names["origin"], re.ASCII):
        raise BadRequestError(f"origin must be the id of a run, got {names['origin']!r:.80}")
    call.auth.require(call.caller, names["project"], "contributor")
    known = call.store.run_of(names["origin"])
    if known is not None:
        call.container("contributor", known)
    run_id = call.store.open_source(**names, custom_id=custom_id, created=created, version=version)
    return {"run": run_id}


def has_run(call: Call) -> Any:
    try:
        call.container("contributor")
    except NotFoundError:
        return {"found": False}
    return {"found": True}


async def blob(call: Call, stream: AsyncIterator[bytes]) -> Any:
    key, size = await receive_blob(call, stream)
    return {"blob": key, "size": size}


def artifact(call: Call) -> Any:
    wanted = call.object()
    row = call.container("contributor", text(wanted.get("run"), "run", 512))
    files = wanted.get("files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise BadRequestError("files must be a list of objects")
    call.store.put_artifact(row.id, text(wanted.get("hash"), "hash", 64), files)


def records(call: Call) -> Any:
    wanted = call.object()
    directory = text(wanted.get("directory"), "directory", 512)
    version, items = _number(wanted.get("version"), "version"), wanted.get("items")
    if not isinstance(items, list) or not all(isinstance(i, list) and len(i) == 3 for i in items):
        raise BadRequestError("items must be a list of [version, operation, epoch milliseconds]")
    records = [(_number(i[0], "version"), i[1], _number(i[2], "time")) for i in items]
    known = call.store.source(directory)
    if known is None:
        raise NotFoundError(f"{directory} was not opened")
    call.container("contributor", known[0])
    place = text(wanted.get("place"), "place", 512)
    count, errors = call.store.ingest(directory, records, version, place)
    call.shared.metrics.count("segtrail_ingested_total", count)
    return {"count": count, "errors": errors}


HANDLERS = {
    "syncSource": source,
    "syncOpen": open_source,
    "syncHasRun": has_run,
    "syncArtifact": artifact,
    "syncRecords": records,
}
STREAMS = {"syncBlob": blob}
