"""The server: the API of the Neptune client over a run store, and whatever is mounted beside it."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import ipaddress
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

import sqlalchemy as sa
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from segtrail.server import api_artifacts, api_files, api_projects, api_runs, api_sync
from segtrail.server.announced import AnnouncedServer
from segtrail.server.api_files import TooLargeError
from segtrail.server.auth import Auth, AuthError, Caller, ForbiddenError
from segtrail.server.call import BadRequestError, Call, MissingRunError
from segtrail.server.database import ConflictError, InvalidNameError, NotFoundError
from segtrail.server.ingest import Follower
from segtrail.server.login import Guard, LoopbackOnly, login
from segtrail.server.logs import set_up_logging
from segtrail.server.metrics import Metrics
from segtrail.server.nql import QuerySyntaxError
from segtrail.server.operations import OperationError
from segtrail.server.options import add_store_arguments, open_store
from segtrail.server.signals import Signals
from segtrail.server.store import Store
from segtrail.server.swagger import DOCUMENTS, Endpoint, document

log = logging.getLogger("segtrail.server")
MAX_BODY = 512 << 20
MAX_UPLOAD = 1 << 40

HANDLERS: dict[str, Callable[[Call], Any]] = {
    **api_projects.HANDLERS,
    **api_runs.HANDLERS,
    **api_files.HANDLERS,
    **api_artifacts.HANDLERS,
    **api_sync.HANDLERS,
}
STREAMS: dict[str, Callable[[Call, AsyncIterator[bytes]], Awaitable[Any]]] = {
    **api_files.STREAMS,
    **api_sync.STREAMS,
}
_STATUS: tuple[tuple[type[Exception], int, dict[str, str]], ...] = (
    (AuthError, 401, {}),
    (ForbiddenError, 403, {}),
    (MissingRunError, 404, {"errorType": "EXPERIMENT_NOT_FOUND"}),
    (NotFoundError, 404, {}),
    (ConflictError, 409, {}),
    (TooLargeError, 413, {}),
    (QuerySyntaxError, 400, {"title": "Syntax error"}),
    (BadRequestError, 400, {}),
    (OperationError, 400, {}),
    (InvalidNameError, 400, {}),
)
# How the client asks whether a project that it wants to create exists.
_NOT_UNIQUE = {"validationErrors": [{"path": "name", "errors": [{"errorCode": {"name": "ERR_NOT_UNIQUE"}}]}]}


def create_app(
    store: Store,
    *,
    require_token: bool = False,
    ui: ASGIApp | None = None,
    max_body: int = MAX_BODY,
    max_upload: int = MAX_UPLOAD,
) -> Starlette:
    """Makes the application.

    Args:
        store: run store.
        require_token: every caller needs a token with a role in the project. Without, every caller on this
            machine may do everything, and requests under another host name are refused.
        ui: application for all other paths. With `require_token` it is behind a login page; who is logged
            in is ``request.state.caller``, what they may read ``app.state.auth.visible(caller, names)``.
        max_body: largest JSON body in bytes.
        max_upload: largest file in bytes.
    """
    auth = Auth(store, required=require_token)
    routes: list[BaseRoute] = [
        Route("/healthz", _health),
        Route("/metrics", _metrics),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/auth/realms/segtrail/protocol/openid-connect/token", _refresh, methods=["POST"]),
        WebSocketRoute("/api/notifications/v1/runs/{project}/{run}/signal", _signal),
    ]
    for name, endpoints in {**DOCUMENTS, "segtrail": api_sync.ENDPOINTS}.items():
        if name in DOCUMENTS:
            routes.append(Route(f"/api/{name}/swagger.json", _document(name)))
        routes += [Route(e.path, _endpoint(e), methods=[e.method]) for e in endpoints]
    if ui is not None:
        routes.append(Mount("/", Guard(ui, auth) if require_token else ui))
    app = Starlette(routes=routes)
    if not require_token:
        app.add_middleware(LoopbackOnly)
    app.state.store, app.state.auth = store, auth
    app.state.metrics, app.state.signals = Metrics(), Signals()
    app.state.workspaces, app.state.service_accounts = set(), set()
    app.state.max_body, app.state.max_upload = max_body, max_upload
    return app


# ------------------------------------------------------------------ plumbing


def _base(request: Request) -> str:
    """Returns the URL under which the caller reaches us: a proxy passes its own host name on."""
    return f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc}"


async def _read(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLargeError(f"the body is larger than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


def bearer(header: str) -> str:
    """Returns the token of an Authorization header.

    Raises:
        AuthError: there is none.
    """
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise AuthError("send a bearer token; exchange an API token for one first")
    return token.strip()


def _call(endpoint: Endpoint, request: Request) -> Call:
    state = request.app.state
    caller = Caller("", "", "")
    if not endpoint.public:
        caller = state.auth.verify(bearer(request.headers.get("authorization", "")))
    query: dict[str, str] = dict(request.query_params) | dict(request.path_params)
    query = {key: value.replace("\x00", "\ufffd") for key, value in query.items()}
    query |= {name: request.headers[name] for name in endpoint.headers if name in request.headers}
    lists = {key: request.query_params.getlist(key) for key in request.query_params}
    return Call(
        endpoint.name,
        state.store,
        state.auth,
        caller,
        _base(request),
        query,
        lists,
        None,
        "",
        state,
    )


def storable(value: Any) -> Any:
    """Returns JSON without what no database holds as text: NUL and lone surrogates."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def _run(endpoint: Endpoint, request: Request, raw: bytes) -> Any:
    call = _call(endpoint, request)
    if raw and endpoint.body:
        try:
            call.body = json.loads(raw)
            if b"\\u" in raw:
                call.body = storable(call.body)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"the body is not JSON: {error}") from None
        call.digest = hashlib.sha256(raw).hexdigest()
    return HANDLERS[endpoint.name](call)


def _endpoint(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        start = time.perf_counter()
        metrics: Metrics = request.app.state.metrics
        try:
            if endpoint.name in STREAMS:
                call = await run_in_threadpool(_call, endpoint, request)
                result = await STREAMS[endpoint.name](call, request.stream())
            else:
                raw = await _read(request, request.app.state.max_body)
                result = await run_in_threadpool(_run, endpoint, request, raw)
            response = result if isinstance(result, Response) else _json(result)
        except ClientDisconnect:
            response = Response(status_code=400)
        except Exception as error:
            response = _failure(endpoint, error)
        seconds = time.perf_counter() - start
        metrics.count("segtrail_requests_total", operation=endpoint.name, status=str(response.status_code))
        metrics.count("segtrail_request_seconds_total", seconds, operation=endpoint.name)
        level = logging.DEBUG if response.status_code < 400 else logging.INFO
        if log.isEnabledFor(level):
            extra = {"operation": endpoint.name, "status": response.status_code}
            log.log(level, "request", extra={"fields": {**extra, "ms": round(seconds * 1000, 1)}})
        return response

    return handle


def _json(result: Any, status: int = 200) -> Response:
    content = b"" if result is None else json.dumps(result, separators=(",", ":")).encode()
    return Response(content, status, media_type="application/json")


def _failure(endpoint: Endpoint, error: Exception) -> Response:
    for kind, status, extra in _STATUS:
        if isinstance(error, kind):
            if status == 409 and endpoint.name == "createProject":
                return _json({"code": 400, "message": str(error), **_NOT_UNIQUE}, 400)
            return _json({"code": status, "message": str(error), "title": str(error), **extra}, status)
    log.exception("failed", exc_info=error, extra={"fields": {"operation": endpoint.name}})
    message = "internal error; the server's log has the details"
    return _json({"code": 500, "message": message, "title": message}, 500)


def _document(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = json.dumps(document(name)).encode()

    async def handle(request: Request) -> Response:
        return Response(content, media_type="application/json")

    return handle


async def _refresh(request: Request) -> Response:
    endpoint = Endpoint("refresh", "POST", "", public=True)
    try:
        form = dict(parse_qsl((await _read(request, 1 << 20)).decode("latin-1")))
        call = _call(endpoint, request)
        call.query = form
        return _json(await run_in_threadpool(api_projects.refresh, call))
    except Exception as error:
        return _failure(endpoint, error)


async def _health(request: Request) -> Response:
    def check() -> None:
        with request.app.state.store.read() as connection:
            connection.execute(sa.text("SELECT 1"))

    try:
        await run_in_threadpool(check)
    except sa.exc.SQLAlchemyError as error:
        return JSONResponse({"status": "database unreachable", "error": type(error).__name__}, 503)
    return JSONResponse({"status": "ok"})


async def _metrics(request: Request) -> Response:
    return PlainTextResponse(request.app.state.metrics.render())


async def _signal(socket_: WebSocket) -> None:
    state, run_id = socket_.app.state, socket_.path_params["run"]
    endpoint = Endpoint("signal", "GET", "")
    request = Request({**socket_.scope, "type": "http", "method": "GET"})
    try:
        call = await run_in_threadpool(_call, endpoint, request)
        await run_in_threadpool(call.container, "contributor", run_id)
    except (AuthError, ForbiddenError, NotFoundError):
        await socket_.close(1008)
        return
    await state.signals.serve(socket_, run_id)


# ------------------------------------------------------------------ command line


def is_loopback(host: str) -> bool:
    """Says whether only this machine reaches a server that listens on `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _follow(follower: Follower, metrics: Metrics, stopping: threading.Event) -> None:
    while not stopping.wait(1.0):
        try:
            metrics.count("segtrail_ingested_total", follower.poll())
        except Exception:
            log.exception("following failed; it goes on")


def _pages(store: Store) -> ASGIApp | None:
    """Returns the comparison UI, or None with a line in the log where its libraries are missing."""
    from segtrail.ui.app import create_app as create_ui
    from segtrail.ui.routes import BUILD_HINT, vendor_is_built

    if not vendor_is_built():
        log.warning("no pages: %s", BUILD_HINT)
        return None
    return create_ui(store, hosts=["*"], auth=Auth(store, required=True))


def main(argv: Sequence[str]) -> int:
    """Runs ``segtrail server``."""
    parser = argparse.ArgumentParser("segtrail server", description="Serve runs to the Neptune client.")
    add_store_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--require-token", action="store_true", help="also on this machine (elsewhere always)"
    )
    parser.add_argument(
        "--follow", action="append", default=[], metavar="DIR", help="take in a .neptune folder"
    )
    parser.add_argument("--project", help="workspace/name for followed folders")
    parser.add_argument("--workspace", action="append", default=[], help="offer this workspace to clients")
    parser.add_argument("--service-account", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--max-upload", type=int, default=MAX_UPLOAD, help="largest file in bytes")
    parser.add_argument("--certificate", help="PEM file; serves https together with --key")
    parser.add_argument("--key", help="PEM file of the certificate's key")
    parser.add_argument("--log-level", default="info", help="debug logs every request (default: %(default)s)")
    arguments = parser.parse_args(argv)
    set_up_logging(arguments.log_level)
    store = open_store(arguments)
    require_token = arguments.require_token or not is_loopback(arguments.host)
    app = create_app(store, require_token=require_token, ui=_pages(store), max_upload=arguments.max_upload)
    app.state.workspaces |= set(arguments.workspace)
    app.state.service_accounts |= set(arguments.service_account)
    listener = socket.create_server(
        (arguments.host, arguments.port), family=socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    )
    stopping = threading.Event()
    if arguments.follow:
        follower = Follower(store, arguments.follow, project=arguments.project)
        threading.Thread(
            target=_follow, args=(follower, app.state.metrics, stopping), name="follow", daemon=True
        ).start()
    scheme = "https" if arguments.certificate else "http"
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    line = f"segtrail server at {scheme}://{host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
        ssl_certfile=arguments.certificate,
        ssl_keyfile=arguments.key,
    )
    with contextlib.suppress(KeyboardInterrupt):
        AnnouncedServer(config, line).run(sockets=[listener])
    stopping.set()
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
