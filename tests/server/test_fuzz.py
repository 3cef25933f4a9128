"""Mutated requests to every endpoint, without sockets: no crash, no partial apply, a reason for each refusal.

The suite sends 20,000; ``SEGTRAIL_FUZZ_REQUESTS=100000`` sends as many, in about five times the time.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import re
from collections.abc import Callable
from itertools import chain
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.types import Message

from segtrail.server import api_sync
from segtrail.server.store import Store
from segtrail.server.swagger import DOCUMENTS
from tests.server.conftest import dump
from tests.server.operations import log_item
from tests.server.test_http import OPERATIONS, Api
from tests.server.test_operations import mutate

REQUESTS = int(os.environ.get("SEGTRAIL_FUZZ_REQUESTS", "20000"))
VALUES = {"projectIdentifier": "ws/p", "attribute": "m/x", "ext": "txt", "subPath": "a/b", "directory": "d"}


Seed = tuple[str, str, dict[str, Any], Any]


def requests_to(run: str) -> list[Seed]:
    """Returns good requests: those with a body of their own, and one for each other endpoint."""
    run_query = {"experimentId": run, "attribute": "m/x"}
    project = {"projectIdentifier": "ws/p"}
    leaderboard = "/api/leaderboard/v1"
    artifact = {"filePath": "a", "fileHash": "b", "type": "Local", "size": 1, "metadata": []}
    seeds: list[Seed] = [
        ("POST", OPERATIONS, run_query, [log_item("logFloats", "m/x", [1.0, 2.0], [1, 2], 1000)]),
        ("POST", OPERATIONS, run_query, [{"path": "p", "assignString": {"value": "text"}}]),
        ("POST", f"{leaderboard}/experiments", {}, {"projectIdentifier": "ws/p", "type": "run", "customId": "c"}),  # noqa: E501
        ("POST", f"{leaderboard}/experiments", {}, {"projectIdentifier": "ws/p", "type": "model", "key": "K"}),  # noqa: E501
        ("POST", f"{leaderboard}/experiments/trash", project, ["ws/p/P-1"]),
        ("POST", f"{leaderboard}/experiments/signal", project, {"type": "stop", "experimentIdentifiers": ["x"]}),  # noqa: E501
        ("POST", f"{leaderboard}/leaderboard/entries/search", {**project, "type": "run"}, {
            "query": {"query": "(`m/x`:floatSeries > 1)"}, "pagination": {"limit": 5, "offset": 0},
            "sorting": {"dir": "descending", "sortBy": {"name": "m/x", "type": "float"}},
            "attributeFilters": [{"path": "m/x"}]}),
        ("POST", f"{leaderboard}/leaderboard/attributes/search", {**project, "search": "m"}, {}),
        ("GET", f"{leaderboard}/attributes/series/float", {**run_query, "limit": "5", "offset": "0"}, None),
        ("GET", f"{leaderboard}/attributes/ls", {**run_query, "path": "x"}, None),
        ("GET", f"{leaderboard}/download/downloadFile", {"id": "WzEsMl0="}, None),
        ("GET", "/api/backend/v1/projects", {"limit": "5", "searchTerm": "p"}, None),
        ("POST", "/api/backend/v1/projects", {}, {"organizationId": "ws", "name": "n", "projectKey": "NN"}),
        ("PUT", "/api/artifacts/v1/artifact/files", {**project, "hash": "0" * 64}, {"files": [artifact]}),
        ("POST", "/api/artifacts/v1/artifact", {**project, "hash": "0" * 64}, {"files": [artifact]}),
        ("POST", "/api/segtrail/v1/source", {}, {"directory": "d", "origin": "o", "project": "ws/p",
                                                 "custom_id": None, "created": 1, "version": 0}),
        ("POST", "/api/segtrail/v1/records", {}, {"directory": "d", "version": 2, "place": "", "items": [
            [1, {"path": "a", "assignInt": {"value": 1}}, 1000]]}),
    ]  # fmt: skip
    known = {(method, path) for method, path, _, _ in seeds}
    for endpoint in [*chain.from_iterable(DOCUMENTS.values()), *api_sync.ENDPOINTS]:
        if (endpoint.method, endpoint.path) not in known:
            names = [name.rstrip("[]#") for name in endpoint.query]
            query = {name: VALUES.get(name, "1") for name in names}
            for name in ("experimentId", "experimentIdentifier"):
                query |= {name: run} if name in names else {}
            if endpoint.name in ("deleteProject", "deleteAllExperiments"):
                query["projectIdentifier"] = "ws/other"
            path = re.sub(r"\{.*?\}", "ws", endpoint.path)
            body = {"userId": "u", "role": "member", "id": "x"} if endpoint.body else "some bytes"
            seeds.append((endpoint.method, path, query, body if endpoint.method != "GET" else None))
    return seeds


class Caller:
    """Calls the application as a server would, in one event loop of its own.

    Args:
        api: gives application and token.
    """

    def __init__(self, api: Api) -> None:
        self.app = api.app
        token = str(api.client.headers["Authorization"])
        self.headers = [(b"host", b"testserver"), (b"authorization", token.encode())]

    async def __call__(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": urlencode(query).encode(), "headers": self.headers,
            "client": ("127.0.0.1", 1), "server": ("testserver", 80),
        }  # fmt: skip
        status, parts = 0, []
        bodies = [body]

        async def receive() -> Message:
            if not bodies:  # the caller stays until it is answered
                await asyncio.Event().wait()
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        await self.app(scope, receive, send)
        return status, b"".join(parts)


def mutated(seed: Seed, chance: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    """Returns a request with something wrong in its query, its body or its raw bytes."""
    method, path, query, body = seed
    if chance.random() < 0.3:
        query = mutate(query, chance)
    query = query if isinstance(query, dict) else {}
    query = {storable(key): storable(value) for key, value in query.items()}
    content = b"" if body is None else json.dumps(mutate(body, chance)).encode()
    if content and chance.random() < 0.2:
        position = chance.randrange(len(content))
        content = content[:position] + bytes([chance.randrange(256)]) + content[position + 1 :]
    return method, path, query, content


def storable(value: Any) -> str:
    """Returns a text that fits into a URL."""
    return str(value)[:99].encode("utf-8", "replace").decode()


def state_of_sqlite(store: Store) -> Callable[[], Any]:
    """Returns what changes with every commit of another connection, without reading the tables."""
    connection = store.engine.connect()
    return lambda: connection.exec_driver_sql("PRAGMA data_version").scalar()


async def attack(api: Api, number: int, state: Callable[[], Any]) -> collections.Counter[int]:
    """Sends requests, checks each answer. Returns how many had which status."""
    call, chance = Caller(api), random.Random(0)
    counts: collections.Counter[int] = collections.Counter()
    for i in range(number):
        if i % 500 == 0:  # what was trashed or deleted is replaced
            run = api.run()
            seeds = requests_to(run)
            before = state()
        request = mutated(chance.choice(seeds), chance)
        status, answer = await call(*request)
        counts[status] += 1
        assert 200 <= status < 500, (request, answer)
        after = state()
        if status >= 400:
            assert json.loads(answer)["message"], request
            assert after == before, (status, request, answer)
        before = after
    return counts


@pytest.fixture
def project(store: Store) -> Api:
    api = Api(store)
    api.run("ws/other")
    return api


def test_what_is_refused_leaves_every_table_as_it_was(project: Api) -> None:
    counts = asyncio.run(attack(project, 400, lambda: dump(project.store)))
    assert counts[200] > 40
    assert counts[400] > 40


def test_mutated_requests_are_answered_not_crashed(lite: Store) -> None:
    api = Api(lite)
    api.run("ws/other")
    counts = asyncio.run(attack(api, REQUESTS, state_of_sqlite(lite)))
    assert min(counts[200], counts[400], counts[404]) > REQUESTS / 20
    assert list(lite.blobs.staging.iterdir()) == []
    run = api.run()
    assert api.log(run, log_item("logFloats", "m", [1.0], None, 1)).json() == []
