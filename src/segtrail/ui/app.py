"""`segtrail ui`: the pages over `.neptune` folders, live, or over a store."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from segtrail.server.announced import AnnouncedServer
from segtrail.server.auth import Auth
from segtrail.server.ingest import Follower
from segtrail.server.oplog import find_logs
from segtrail.server.schema import sources
from segtrail.server.store import Store
from segtrail.ui.routes import BUILD_HINT, create_router, vendor_is_built

POLL_SECONDS = 1.0
_LOCAL = ["localhost", "127.0.0.1", "[::1]", "testserver"]


def create_app(
    store: Store,
    follower: Follower | None = None,
    hosts: Iterable[str] = _LOCAL,
    auth: Auth | None = None,
) -> FastAPI:
    """The pages as an application of their own.

    Args:
        store: where the runs are.
        follower: what brings new records into the store while the application runs.
        hosts: names under which it may be reached; others are refused, so that no site can reach it by
            pointing a name of its own at this machine.
        auth: roles of the callers, where the server asks them to log in.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if follower is None:
            yield
            return
        thread = threading.Thread(target=_follow, args=(follower, app.state.read_once), daemon=True)
        thread.start()
        yield
        follower.stop()
        thread.join(timeout=1)  # a batch that is cut off was not stored, and is read again by the next start

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.read_once = threading.Event()  # set when the follower has been through its folders once
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.include_router(create_router(store, auth))
    return app


def _follow(follower: Follower, read_once: threading.Event) -> None:
    while not follower.stopping.is_set():
        started = time.perf_counter()
        follower.poll()
        read_once.set()
        # A folder on a slow file system is not asked again and again.
        follower.stopping.wait(max(POLL_SECONDS, 4 * (time.perf_counter() - started)))


def _open_browser(app: FastAPI, follower: Follower | None, url: str) -> None:
    """Opens the page once there is something to see, or after five seconds."""
    if follower is not None:
        app.state.read_once.wait(5)
    webbrowser.open(url)


def neptune_folder(folder: Path) -> Path:
    """The `.neptune` folder that a user means: the folder itself, or the one inside it."""
    return folder if folder.name == ".neptune" or not folder.is_dir() else _inner(folder)


def _inner(folder: Path) -> Path:
    inner = folder / ".neptune"
    return inner if inner.exists() or not any(folder.glob("*/data-*.log")) else folder


def cached_store(folders: list[Path]) -> Store:
    """The store that keeps what was read from these folders, so that the next start reads only news.

    It is built anew when a run directory that it knows has been deleted.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segtrail/ui"
    key = hashlib.sha256("\n".join(sorted(str(folder.resolve()) for folder in folders)).encode()).hexdigest()
    place = base / key[:16]
    store = Store.open(str(place))
    with store.read() as connection:
        known = set(connection.scalars(sa.select(sources.c.directory)))
    if known <= {log.name for folder in folders for log in find_logs(folder)}:
        return store
    store.close()
    shutil.rmtree(place)
    return Store.open(str(place))


def main(argv: list[str] | None = None) -> int:
    """Runs `segtrail ui`."""
    parser = argparse.ArgumentParser(prog="segtrail ui", description="Look at runs and compare them.")
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="folders with .neptune (default .)"
    )
    parser.add_argument("--store", help="a store of `segtrail server`: its folder or database URL")
    parser.add_argument("--blobs", help="where that store's files are, if not beside the database")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8650, help="0 takes a free one (default 8650)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    arguments = parser.parse_args(argv)
    if not vendor_is_built():
        print(f"segtrail ui: {BUILD_HINT}", file=sys.stderr)
        return 1
    if arguments.store and arguments.folders:
        parser.error("give folders or --store, not both")
    follower = None
    if arguments.store:
        store = Store.open(arguments.store, arguments.blobs)
    else:
        folders = [neptune_folder(folder) for folder in arguments.folders or [Path.cwd()]]
        absent = [str(folder) for folder in arguments.folders if not folder.exists()]
        if absent:
            print(f"segtrail ui: there is no folder {', '.join(absent)}", file=sys.stderr)
            return 1
        store = cached_store(folders)
        follower = Follower(store, folders)
    try:
        listener = socket.create_server((arguments.host, arguments.port))
    except OSError as error:
        print(
            f"segtrail ui: cannot listen on {arguments.host}:{arguments.port} ({error.strerror}); "
            "choose another --port",
            file=sys.stderr,
        )
        return 1
    url = f"http://{arguments.host}:{listener.getsockname()[1]}/"
    hosts = _LOCAL if arguments.host in ("127.0.0.1", "localhost", "::1") else ["*"]
    app = create_app(store, follower, hosts)
    if not arguments.no_browser:
        threading.Thread(target=_open_browser, args=(app, follower, url), daemon=True).start()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    with contextlib.suppress(KeyboardInterrupt):
        AnnouncedServer(config, f"segtrail ui: {url} (Ctrl+C stops it)").run(sockets=[listener])
    store.close()
    return 0
