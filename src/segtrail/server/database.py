"""The database of a run store: connections, transactions, names."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from segtrail.server import schema
from segtrail.server.blobs import Blobs
from segtrail.server.schema import containers, counters, paths, projects
from segtrail.server.series import PointCache


class NotFoundError(KeyError):
    """There is no such run, project, attribute or file."""

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidNameError(ValueError):
    """A project cannot have this name."""


class ConflictError(ValueError):
    """What should be created exists already."""


def now_ms() -> int:
    """Returns the time in epoch milliseconds."""
    return int(time.time() * 1000)


class Database:
    """Connections to a store's tables, and its blobs. Safe to use from many threads and processes.

    Args:
        engine: database; use :meth:`open`.
        blobs: where files are.
    """

    def __init__(self, engine: sa.Engine, blobs: Blobs) -> None:
        self.engine = engine
        self.blobs = blobs
        self._path_ids: dict[str, int] = {}
        self._series = PointCache()
        # SQLite has one writer: waiting here is fair, waiting in the database is polling.
        self._writer = threading.Lock() if engine.dialect.name == "sqlite" else contextlib.nullcontext()

    @classmethod
    def open(cls, url: str, blobs: str | None = None, **blob_options: Any) -> Self:
        """Opens a store; creates or migrates it if need be.

        Args:
            url: a folder (SQLite inside it), or an SQLAlchemy URL (``sqlite:///runs.db``,
                ``postgresql+psycopg://user@host/db``).
            blobs: folder or fsspec URL of the files; by default ``blobs`` beside the SQLite database.
            blob_options: arguments of the fsspec file system.

        Raises:
            ValueError: no `blobs` for a database that is not a file.
        """
        if "://" not in url:
            Path(url).mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{Path(url).resolve() / 'segtrail.db'}"
        parsed = sa.make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        if blobs is None:
            if not is_sqlite or not parsed.database:
                raise ValueError(f"{parsed.render_as_string()}: say where files go (--blobs FOLDER or URL)")
            blobs = str(Path(parsed.database).parent / "blobs")
        engine = sa.create_engine(parsed, pool_size=20, max_overflow=40, pool_pre_ping=not is_sqlite)
        if is_sqlite:
            _configure_sqlite(engine)
        store = cls(engine, Blobs(blobs, **blob_options))
        with store.write() as connection:
            schema.migrate(connection)
        return store

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    # -------------------------------------------------------------- transactions

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading."""
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A connection whose statements all see one state, while others write."""
        with self.engine.connect() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction for writing; committed, durably, when the block ends without an exception."""
        with self._writer, self.engine.connect() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def touch(self, connection: sa.Connection, pks: Sequence[int], **values: Any) -> None:
        """Marks containers as changed, with a version that :meth:`changes` will tell."""
        bump = (
            counters.update()
            .where(counters.c.name == "change")
            .values(value=counters.c.value + 1)
            .returning(counters.c.value)
        )
        change = connection.scalar(bump)
        if pks:
            update = containers.update().where(containers.c.pk.in_(pks))
            connection.execute(update.values(change=change, **values))

    def resolve(self, connection: sa.Connection) -> Callable[[str], int | None]:
        """Returns a function that gives the id of an attribute path, None where there is none."""

        def find(path: str) -> int | None:
            number = self._path_ids.get(path)
            if number is None:
                number = connection.scalar(sa.select(paths.c.id).where(paths.c.path == path))
                if number is not None:
                    self._path_ids[path] = number
            return number

        return find

    def _intern(self, wanted: Iterable[str]) -> dict[str, int]:
        """Returns the ids of paths; gives ids to new ones, in a transaction of its own."""
        names = set(wanted)
        missing = sorted(name for name in names if name not in self._path_ids)
        if missing:
            insert: Any = schema.insert_for(self.engine.dialect.name, paths)
            with self.write() as connection:
                connection.execute(
                    insert.on_conflict_do_nothing(index_elements=["path"]),
                    [{"path": name} for name in missing],
                )
            with self.read() as connection:
                for first in range(0, len(missing), 1000):
                    part = missing[first : first + 1000]
                    query = sa.select(paths.c.path, paths.c.id).where(paths.c.path.in_(part))
                    self._path_ids.update((row[0], row[1]) for row in connection.execute(query))
        return {name: self._path_ids[name] for name in names}

    def project_row(self, connection: sa.Connection, name: str) -> Any:
        """Returns the row of a project by "workspace/name" or id.

        Raises:
            NotFoundError: there is none.
        """
        query = sa.select(projects, containers.c.id, containers.c.created).join(
            containers, containers.c.pk == projects.c.container
        )
        workspace, _, short = name.partition("/")
        by_name = sa.and_(projects.c.workspace == workspace, projects.c.name == short)
        row = connection.execute(query.where(by_name if short else containers.c.id == name)).first()
        if row is None:
            raise NotFoundError(f"there is no project {name}")
        return row

    def container(self, connection: sa.Connection, name: str) -> Any:
        """Returns the row of a run, model, version or project by id or "workspace/project/SYS-ID".

        Raises:
            NotFoundError: there is none.
        """
        query = sa.select(containers)
        if name.count("/") == 2:
            project, _, sys_id = name.rpartition("/")
            key = self.project_row(connection, project).container
            query = query.where(containers.c.project == key, containers.c.sys_id == sys_id)
            query = query.where(containers.c.kind != "project")
        else:
            query = query.where(containers.c.id == name)
        row = connection.execute(query).first()
        if row is None:
            raise NotFoundError(f"there is no run {name}")
        return row


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        # Transactions begin where the store says so, not where the driver guesses.
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "busy_timeout = 30000",
            "case_sensitive_like = ON",
            "cache_size = -65536",
            "mmap_size = 1073741824",
        ):
            connection.execute(f"PRAGMA {pragma}")
