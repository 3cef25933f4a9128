"""Stores on both databases, operations in short, and a server in a thread."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import uvicorn

from segtrail.server.app import create_app
from segtrail.server.auth import Auth, api_token
from segtrail.server.schema import metadata
from segtrail.server.store import Store
from tests.server.postgres import cluster

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A cluster for this worker's tests, started when the first of them needs it."""
    with cluster() as url:
        yield url


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database; the tests that use it run on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'segtrail.db'}"
    return new_database(request.getfixturevalue("postgres_url"))


def new_database(server: str) -> str:
    """Makes an empty database in a cluster. Returns its URL."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server.replace('postgresql://', 'postgresql+psycopg://')}/{name}"


@pytest.fixture
def open_store(database_url: str, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same store as often as it is called, as another process would."""
    (tmp_path / "store").mkdir()
    with contextlib.ExitStack() as stack:

        def opening() -> Store:
            store = Store.open(database_url, str(tmp_path / "store" / "blobs"))
            stack.callback(store.close)
            return store

        yield opening


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """An empty store on each database."""
    return open_store()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Store]:
    """An empty store on SQLite, for what has nothing to do with the database."""
    store = Store.open(str(tmp_path / "lite"))
    yield store
    store.close()


def dump(store: Store) -> dict[str, list[Any]]:
    """Returns all rows of all tables."""
    with store.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table))))
            for table in metadata.sorted_tables
        }


@pytest.fixture
def run(store: Store) -> str:
    """A new run."""
    store.ensure_project("ws/project")
    return store.create_run("ws/project")


class Server:
    """A server in a thread of this process."""

    def __init__(self, store: Store, **options: Any) -> None:
        self.store = store
        self.app = create_app(store, **options)
        config = uvicorn.Config(self.app, port=0, log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    def token(self, user: str = "tester", role: str = "owner", project: str = "*") -> str:
        """Returns a ``NEPTUNE_API_TOKEN``."""
        auth: Auth = self.app.state.auth
        return api_token(self.url, auth.create_token(user, role, project)[1])
