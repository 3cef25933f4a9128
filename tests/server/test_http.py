"""The HTTP API without the client: who may do what, what is refused, and that nothing crashes it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from segtrail.server import app as app_module
from segtrail.server.app import HANDLERS, STREAMS, create_app, is_loopback
from segtrail.server.auth import AuthError, api_token
from segtrail.server.store import Store
from segtrail.server.swagger import DOCUMENTS, document
from tests.server.conftest import dump
from tests.server.operations import log_item

BASE = "http://testserver"
OPERATIONS = "/api/leaderboard/v1/attributes/operations"
UPLOAD = "/api/leaderboard/v1/attributes/storage/file/upload"
FILESET = "/api/leaderboard/v1/attributes/storage/fileset/upload"
TAR = "/api/leaderboard/v1/attributes/uploadFileSetTar"


class Api:
    """A caller of the API with a bearer token."""

    def __init__(self, store: Store, user: str | None = "ann", role: str = "owner", **options: Any) -> None:
        self.store = store
        options.setdefault("require_token", True)
        self.app = create_app(store, **options)
        self.client = TestClient(self.app, BASE, raise_server_exceptions=False)
        if user is not None:
            self.log_in(user, role)

    def log_in(self, user: str, role: str | None = None, project: str = "*") -> str:
        id, key = self.app.state.auth.create_token(user, role, project)
        self.exchange(api_token(BASE, key))
        return str(id)

    def exchange(self, token: str) -> httpx.Response:
        url = "/api/backend/v1/authorization/oauth-token"
        answer = self.client.get(url, headers={"X-Neptune-Api-Token": token})
        if answer.status_code == 200:
            self.client.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
        return answer

    def run(self, project: str = "ws/p") -> str:
        found = self.client.get("/api/backend/v1/projects/get", params={"projectIdentifier": project}).json()
        body = {"projectIdentifier": found["id"], "type": "run"}
        return str(self.client.post("/api/leaderboard/v1/experiments", json=body).json()["id"])

    def log(self, run: str, *items: Any) -> httpx.Response:
        return self.client.post(OPERATIONS, params={"experimentId": run}, json=list(items))


@pytest.fixture
def api(store: Store) -> Iterator[Api]:
    api = Api(store)
    with api.client:
        yield api


# ------------------------------------------------------------------ documents and operation


def test_every_operation_of_the_documents_has_a_handler() -> None:
    names = [endpoint.name for endpoints in DOCUMENTS.values() for endpoint in endpoints]
    assert len(names) == len(set(names)) >= 60
    assert set(names) <= HANDLERS.keys() | STREAMS.keys()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_refer_only_to_definitions_that_exist(name: str) -> None:
    text = json.dumps(document(name))
    references = {part.partition('"')[0] for part in text.split("#/definitions/")[1:]}
    assert references <= document(name)["definitions"].keys()


def test_health_and_metrics(api: Api) -> None:
    assert api.client.get("/healthz").json() == {"status": "ok"}
    run = api.run()
    api.log(run, log_item("logFloats", "m", [1.0, 2.0], None, 1))
    text = api.client.get("/metrics").text
    assert "# TYPE segtrail_operations_total counter\nsegtrail_operations_total 1\n" in text
    assert 'segtrail_requests_total{operation="executeOperations",status="200"} 1' in text
    api.store.engine.dispose()
    api.store.engine = api.store.engine.execution_options()
    assert api.client.get("/healthz").status_code == 200


def test_the_address_is_the_one_the_caller_used(api: Api) -> None:
    config = api.client.get("/api/backend/v1/clients/config", headers={"Host": "runs.example:1234"}).json()
    assert config["apiUrl"] == "http://runs.example:1234"
    assert config["sysNameSetByBackend"] is True


# ------------------------------------------------------------------ tokens and roles


def test_tokens_are_stored_as_hashes_and_can_be_revoked(store: Store) -> None:
    api = Api(store, None)
    id, key = api.app.state.auth.create_token("ann", "owner")
    assert id in str(dump(store))
    assert key not in str(dump(store))
    assert api.exchange(api_token(BASE, key)).json()["username"] == "ann"
    run = api.run()
    api.app.state.auth.revoke(id)
    assert api.log(run).status_code == 401
    assert api.exchange(api_token(BASE, key)).status_code == 401
    with pytest.raises(KeyError, match="no token"):
        api.app.state.auth.revoke("none")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer x.y.z", "Basic dXNlcjpwYXNz", "Bearer " + "a" * 5000]
)
def test_without_a_valid_bearer_token_nothing_is_answered(store: Store, header: str) -> None:
    api = Api(store, None)
    for name, endpoints in DOCUMENTS.items():
        for endpoint in endpoints:
            if endpoint.public:
                continue
            path = endpoint.path.replace("{", "").replace("}", "")
            answer = api.client.request(endpoint.method, path, headers={"Authorization": header})
            assert answer.status_code == 401, (name, endpoint.name)


def test_a_token_of_one_kind_does_not_pass_for_another(api: Api) -> None:
    auth = api.app.state.auth
    caller = auth.exchange(api_token(BASE, auth.create_token("bob", "viewer")[1]))
    for kind in ("refresh", "browser"):
        with pytest.raises(AuthError):
            auth.verify(auth.issue(caller, BASE, kind))
    url = "/auth/realms/segtrail/protocol/openid-connect/token"
    form = {"grant_type": "refresh_token", "refresh_token": auth.issue(caller, BASE, "refresh")}
    assert api.client.post(url, data=form).json()["token_type"] == "Bearer"
    form["refresh_token"] = auth.issue(caller, BASE)
    assert api.client.post(url, data=form).status_code == 401
    assert api.client.post(url, data={"grant_type": "password"}).status_code == 401


def test_roles_by_project(store: Store) -> None:
    api = Api(store, "ann", "owner")
    run = api.run("ws/p")
    secret = api.run("other/secret")
    api.log_in("bob", "viewer", "ws/p")
    attributes = "/api/leaderboard/v1/attributes"
    assert api.client.get(attributes, params={"experimentId": run}).status_code == 200
    assert api.log(run, {"path": "a", "assignInt": {"value": 1}}).status_code == 403
    answer = api.client.get(attributes, params={"experimentId": secret})
    assert (answer.status_code, answer.json()["errorType"]) == (404, "EXPERIMENT_NOT_FOUND")
    names = api.client.get("/api/backend/v1/projects").json()["entries"]
    assert [(entry["organizationName"], entry["name"]) for entry in names] == [("ws", "p")]
    project = {"projectIdentifier": "ws/new"}
    assert api.client.get("/api/backend/v1/projects/get", params=project).status_code == 404
    api.log_in("cat", "contributor", "ws/*")
    assert api.client.get("/api/backend/v1/projects/get", params=project).status_code == 200
    assert api.log(run, {"path": "a", "assignInt": {"value": 1}}).json() == []
    assert api.client.delete("/api/backend/v1/projects", params=project).status_code == 403
    member = {"userId": "dan", "role": "member"}
    assert api.client.post(
        "/api/backend/v1/projects/members", params=project, json=member
    ).status_code == 403  # fmt: skip


def test_owners_manage_members_and_delete(api: Api) -> None:
    run = api.run("ws/p")
    project = {"projectIdentifier": "ws/p"}
    url = "/api/backend/v1/projects/members"
    member = {"userId": "dan", "role": "member"}
    assert api.client.post(url, params=project, json=member).json()["role"] == "member"
    assert api.client.post(url, params=project, json=member).status_code == 409
    assert api.client.post(url, params=project, json={"userId": "x", "role": "king"}).status_code == 400
    listed = api.client.get(f"{url}Of", params=project).json()
    assert listed[0]["registeredMemberInfo"] == {"username": "dan"}
    assert api.client.delete(f"{url}/dan", params=project).status_code == 200
    assert api.client.delete(f"{url}/dan", params=project).status_code == 403
    body = {"organizationId": "ws", "name": "p"}
    again = api.client.post("/api/backend/v1/projects", json=body)
    assert again.status_code == 400
    assert again.json()["validationErrors"][0]["errors"][0]["errorCode"]["name"] == "ERR_NOT_UNIQUE"
    assert api.client.delete("/api/backend/v1/projects", params=project).status_code == 200
    assert api.log(run).status_code == 404
    assert api.client.post("/api/backend/v1/projects", json=body).status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", 200), ("localhost:80", 200), ("evil.example", 421)]
)
def test_a_server_without_tokens_answers_only_under_this_machines_names(
    store: Store, host: str, expected: int
) -> None:
    api = Api(store, None, require_token=False)
    assert api.client.get("/healthz", headers={"Host": host}).status_code == expected
    elsewhere = {"Host": host, "Origin": "http://evil.example"}
    assert api.client.post("/login", headers=elsewhere).status_code in (403, 421)


def test_beyond_this_machine_a_token_is_required() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "runs.example")))


def test_pages_are_behind_a_login(store: Store) -> None:
    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"hello {request.state.caller.user}")

    api = Api(store, None, ui=Starlette(routes=[Route("/{rest:path}", page)]))
    assert api.client.get("/runs").status_code == 401
    answer = api.client.get("/runs", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "API token" in api.client.get("/login").text
    assert api.client.post("/login", data={"token": "<script>"}).status_code == 401
    token = api_token(BASE, api.app.state.auth.create_token("ann", "viewer")[1])
    answer = api.client.post("/login", data={"token": token}, follow_redirects=False)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert api.client.get("/runs").text == "hello ann"


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("name", ["../../../escape", "/etc/escape", "a/../../escape", "..\\..\\escape"])
def test_uploads_cannot_leave_the_store(api: Api, tmp_path: Path, name: str) -> None:
    run = api.run()
    where = {"experimentIdentifier": run, "attribute": "fs", "subPath": name}
    answer = api.client.post(FILESET, params=where, content=b"x").json()
    assert "leaves the file set" in answer["errors"][0]["errorDescription"]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for member in (name, "good.txt"):
            info = tarfile.TarInfo(member)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    where = {"experimentId": run, "attribute": "tar", "reset": "True"}
    errors = api.client.post(TAR, params=where, content=archive.getvalue()).json()["errors"]
    assert len(errors) == 1
    assert set(api.store.file_set(run, "tar")) == {"good.txt"}
    assert not list(tmp_path.rglob("*escape*"))
    assert not Path("/etc/escape").exists()


def test_attribute_names_that_look_like_paths_are_only_names(api: Api) -> None:
    run = api.run()
    where = {"experimentIdentifier": run, "attribute": "../../x/../y", "ext": "../z"}
    assert api.client.post(UPLOAD, params=where, content=b"abc").json() == {"errors": []}
    answer = api.client.get(
        "/api/leaderboard/v1/attributes/download",
        params={"experimentId": run, "attribute": "../../x/../y"},
    )
    assert answer.content == b"abc"
    assert answer.headers["content-disposition"].endswith('filename="y..._z"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_size_limits(store: Store) -> None:
    api = Api(store, max_body=2000, max_upload=1000)
    run = api.run()
    assert api.log(run, {"path": "a", "assignString": {"value": "x" * 3000}}).status_code == 413
    where = {"experimentIdentifier": run, "attribute": "f", "ext": ""}
    assert api.client.post(UPLOAD, params=where, content=b"x" * 1001).status_code == 413
    assert api.client.post(UPLOAD, params=where, content=b"x" * 1000).status_code == 200
    start = api.client.post(f"{UPLOAD}/start", params={**where, "totalLength": 10**9})
    assert start.status_code == 413
    bomb = io.BytesIO()
    with tarfile.open(fileobj=bomb, mode="w:gz") as tar:
        info = tarfile.TarInfo("zeros")
        info.size = 100_000
        tar.addfile(info, io.BytesIO(bytes(100_000)))
    where = {"experimentId": run, "attribute": "bomb", "reset": "False"}
    assert len(bomb.getvalue()) < 1000
    assert api.client.post(TAR, params=where, content=bomb.getvalue()).status_code == 413
    assert len(list(store.blobs)) == 1
    assert list(store.blobs.staging.iterdir()) == []


def test_an_upload_in_parts(api: Api) -> None:
    run = api.run()
    where = {"experimentIdentifier": run, "attribute": "f"}
    parts = [b"a" * 700, b"b" * 700, b"c" * 100]
    start = api.client.post(f"{UPLOAD}/start", params={**where, "ext": "bin", "totalLength": 1500}).json()
    upload = {**where, "uploadId": start["uploadId"]}

    def send(index: int, first: int, data: bytes) -> httpx.Response:
        header = {"X-Range": f"bytes={first}-{first + len(parts[index]) - 1}/1500"}
        url = f"{UPLOAD}/part"
        return api.client.post(url, params={**upload, "uploadPartIdx": index}, headers=header, content=data)

    assert send(0, 0, parts[0][:-1]).text.count("Length of stream does not match given range")
    for index in (2, 0, 0):  # in any order; a part may come twice
        assert send(index, 700 * index, parts[index]).status_code == 200
    missing = api.client.post(f"{UPLOAD}/finish", params=upload).json()
    assert missing["errors"][0]["errorDescription"] == "parts of the upload are missing"
    send(1, 700, parts[1])
    assert api.client.post(f"{UPLOAD}/finish", params=upload).json() == {"errors": []}
    assert api.store.open_file(run, "f")[0].read() == b"".join(parts)
    assert api.client.post(f"{UPLOAD}/finish", params=upload).status_code == 404
    assert list(api.store.blobs.staging.iterdir()) == []
    other = api.run()
    start = api.client.post(f"{UPLOAD}/start", params={**where, "totalLength": 1}).json()
    stolen = {**where, "experimentIdentifier": other, "uploadId": start["uploadId"]}
    assert api.client.post(f"{UPLOAD}/finish", params=stolen).status_code == 404


# ------------------------------------------------------------------ what is wrong


def test_bad_operations_are_told_and_the_others_applied(api: Api) -> None:
    run = api.run()
    answer = api.log(
        run,
        {"path": "a", "assignInt": {"value": 1}},
        {"path": "b", "assignInt": {"value": "x"}},
        "nonsense",
        log_item("logFloats", "m", [1.0], None, 5),
    )
    assert answer.status_code == 200
    assert [item["errorDescription"] for item in answer.json()] == [
        "b: assignInt: value must be a number, got str",
        "operation must be an object, got str",
    ]
    assert {"a", "m"} <= api.store.attributes(run).keys()
    assert api.log("no-such-run").json()["errorType"] == "EXPERIMENT_NOT_FOUND"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}', b"null", b"1e999", b'"x"', b"[1, 2"]
)
def test_a_body_that_is_no_list_of_operations_is_refused_with_a_reason(api: Api, body: bytes) -> None:
    answer = api.client.post(OPERATIONS, params={"experimentId": api.run()}, content=body)
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_what_fails_inside_is_500_without_details(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: object) -> None:
        raise RuntimeError("the password is 1234")

    monkeypatch.setitem(app_module.HANDLERS, "getExperiment", fail)
    answer = api.client.get("/api/leaderboard/v1/experiments", params={"experimentId": "x"})
    assert answer.status_code == 500
    assert "1234" not in answer.text


def test_a_bad_query_is_a_syntax_error(api: Api) -> None:
    api.run("ws/p")
    url = "/api/leaderboard/v1/leaderboard/entries/search"
    params = {"projectIdentifier": "ws/p", "type": "run"}
    for body in ({"query": {"query": "a >"}}, {"query": 3}, {"pagination": {"limit": "x"}}, {"sorting": []}):
        assert api.client.post(url, params=params, json=body).status_code in (200, 400)
    answer = api.client.post(url, params=params, json={"query": {"query": "a >"}})
    assert answer.json()["title"] == "Syntax error"
