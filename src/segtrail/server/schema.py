"""The tables of the run store and their migrations, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, String, Text
from sqlalchemy.dialects import postgresql, sqlite

metadata = sa.MetaData()
_Double = Float(53)
# SQLite numbers rows by itself only where the type is spelled INTEGER.
_Key = BigInteger().with_variant(Integer, "sqlite")

meta = sa.Table("meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text))

counters = sa.Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# A project is a container too: runs, models and model versions live in it, and it has attributes.
projects = sa.Table(
    "projects",
    metadata,
    Column("container", _Key, primary_key=True, autoincrement=False),
    Column("workspace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("visibility", Text, nullable=False, default="priv"),
    Column("next_number", Integer, nullable=False, default=1),
    sa.UniqueConstraint("workspace", "name"),
    sa.UniqueConstraint("workspace", "key"),
)

containers = sa.Table(
    "containers",
    metadata,
    Column("pk", _Key, primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("project", _Key, nullable=False),
    Column("parent", _Key),
    Column("next_number", Integer, nullable=False, default=1),
    Column("sys_id", Text, nullable=False),
    Column("custom_id", Text),
    Column("created", BigInteger, nullable=False),
    Column("modified", BigInteger, nullable=False),
    Column("pinged", BigInteger, nullable=False),
    Column("running", BigInteger, nullable=False, default=0),
    Column("size", BigInteger, nullable=False, default=0),
    Column("trashed", Boolean, nullable=False, default=False),
    Column("change", BigInteger, nullable=False, default=0),
    sa.UniqueConstraint("project", "sys_id"),
    sa.UniqueConstraint("project", "kind", "custom_id"),
)
sa.Index("containers_by_change", containers.c.change)

paths = sa.Table(
    "paths",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("path", Text, nullable=False, unique=True),
)

# One row an attribute; a series keeps its summary here, so that lists never touch points.
attributes = sa.Table(
    "attributes",
    metadata,
    Column("container", _Key, primary_key=True, autoincrement=False),
    Column("path", _Key, primary_key=True, autoincrement=False),
    Column("type", String(16), nullable=False),
    Column("num", _Double),
    Column("text", Text),
    Column("extra", Text),
    Column("n", BigInteger, nullable=False, default=0),
    Column("last_step", _Double),
    Column("min", _Double),
    Column("max", _Double),
    Column("mean", _Double, nullable=False, default=0.0),
    Column("m2", _Double, nullable=False, default=0.0),
    Column("settled", BigInteger, nullable=False, default=0),
    Column("tail", Integer, nullable=False, default=0),
    sqlite_with_rowid=False,
)
# Neither key changes when a series grows, so appending does not touch the index.
sa.Index("attributes_by_path", attributes.c.path, attributes.c.container)

# Points `start` to `start + n` of a series. `values` comes first: a view over steps that are
# regular reads nothing else.
chunks = sa.Table(
    "chunks",
    metadata,
    Column("container", _Key, primary_key=True, autoincrement=False),
    Column("path", _Key, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
    Column("first_step", _Double, nullable=False),
    Column("last_step", _Double, nullable=False),
    Column("points", LargeBinary, nullable=False),
    Column("steps", LargeBinary, nullable=False),
    Column("times", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

files = sa.Table(
    "files",
    metadata,
    Column("container", _Key, primary_key=True, autoincrement=False),
    Column("path", _Key, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("blob", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    Column("project", _Key, primary_key=True, autoincrement=False),
    Column("hash", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("files", Text),
)

# How far each offline directory has been read: moved in the transaction that applies its records.
sources = sa.Table(
    "sources",
    metadata,
    Column("directory", Text, primary_key=True),
    Column("origin", String(64), nullable=False, index=True),  # the container id in its metadata
    Column("container", _Key, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("position", Text, nullable=False, default=""),
)

# The last batch that each client session sent to a container: what recognizes a batch sent again.
batches = sa.Table(
    "batches",
    metadata,
    Column("container", _Key, primary_key=True, autoincrement=False),
    Column("session", String(512), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("series", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

uploads = sa.Table(
    "uploads",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("container", _Key, nullable=False),
    Column("path", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("user", Text, nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
    Column("revoked", BigInteger),
)

roles = sa.Table(
    "roles",
    metadata,
    Column("user", Text, primary_key=True),
    Column("project", Text, primary_key=True),  # workspace/name, workspace/* or *
    Column("role", String(16), nullable=False),
)


def _create(connection: sa.Connection) -> None:
    metadata.create_all(connection)
    connection.execute(counters.insert(), {"name": "change", "value": 0})


# Migration n brings a store from version n to n + 1. A new one is appended; none is ever edited.
MIGRATIONS: list[Callable[[sa.Connection], None]] = [_create]


def migrate(connection: sa.Connection) -> None:
    """Brings the tables to the current version, in the caller's transaction.

    Raises:
        RuntimeError: the store was written by a newer segtrail.
    """
    if connection.dialect.name == "postgresql":  # two servers may start at once
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7236283)"))
    version = 0
    if sa.inspect(connection).has_table("meta"):
        version = int(connection.scalar(sa.select(meta.c.value).where(meta.c.key == "version")) or 0)
    if version > len(MIGRATIONS):
        raise RuntimeError(
            f"the store has schema version {version}, this segtrail knows {len(MIGRATIONS)}: update segtrail"
        )
    for step in MIGRATIONS[version:]:
        step(connection)
    if version < len(MIGRATIONS):
        upsert(connection, meta, [{"key": "version", "value": str(len(MIGRATIONS))}])


def insert_for(dialect: str, table: sa.Table) -> Any:
    """Returns the INSERT of a dialect, the form that has ON CONFLICT."""
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)


def upsert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Inserts `rows`, each with the same columns, and overwrites those whose primary key exists."""
    insert = insert_for(connection.dialect.name, table)
    keys = [column.name for column in table.primary_key]
    changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changed), rows)
