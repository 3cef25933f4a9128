"""Access for browsers: a login page, and the two guards around what is not the client's API."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from segtrail.server.auth import REFRESH_SECONDS, Auth, AuthError

COOKIE = "segtrail_session"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})
_PAGE = """<!doctype html><html lang="en"><title>segtrail: log in</title>
<style>body{font:16px system-ui;max-width:24rem;margin:20vh auto}input{width:100%%;margin:.5rem 0}</style>
<h1>segtrail</h1><form method="post"><label>API token
<input name="token" type="password" autocomplete="current-password" autofocus></label>
<button>Log in</button><p role="alert">%s</p></form></html>"""


async def login(request: Request) -> Response:
    """Exchanges an API token for a session cookie."""
    auth: Auth = request.app.state.auth
    if request.method == "GET":
        return HTMLResponse(_PAGE % "")
    async with request.form(max_fields=4) as form:
        token = str(form.get("token") or "")
    try:
        caller = await run_in_threadpool(auth.exchange, token.strip())
    except AuthError as error:
        return HTMLResponse(_PAGE % str(error), 401)
    response = RedirectResponse("/", 303)
    base = f"{request.url.scheme}://{request.headers.get('host', '')}"
    # Strict: no other site's page can make the browser use this session.
    response.set_cookie(
        COOKIE,
        auth.issue(caller, base, "browser"),
        max_age=REFRESH_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


class Guard:
    """Lets only those through who are logged in or send a bearer token; tells the application who it is."""

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self.app = app
        self.auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request = Request({**scope, "type": "http", "method": scope.get("method", "GET")})
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() == "bearer":
                caller = await run_in_threadpool(self.auth.verify, bearer)
            else:
                cookie = request.cookies.get(COOKIE, "")
                caller = await run_in_threadpool(self.auth.verify, cookie, "browser")
        except AuthError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            elif "text/html" in request.headers.get("accept", ""):
                await RedirectResponse("/login", 303)(scope, receive, send)
            else:
                await PlainTextResponse(str(error), 401)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)


class LoopbackOnly:
    """Guards a server without tokens against pages on the web: requests that another page makes are refused,
    and requests under a host name that is not this machine's, since anybody can point a name here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1")
            origin = headers.get(b"origin", b"").decode("latin-1")
            if origin and origin.partition("://")[2] != host:
                await PlainTextResponse("requests from other pages are refused", 403)(scope, receive, send)
                return
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in _LOCAL_NAMES:
                answer = PlainTextResponse(f"{host!r} is not this machine; see --require-token", 421)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)
