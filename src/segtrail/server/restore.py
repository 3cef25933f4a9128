"""``segtrail restore``: a new store from an archive of ``segtrail backup``."""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from segtrail.server import schema
from segtrail.server.backup import FORMAT
from segtrail.server.options import add_store_arguments, open_store
from segtrail.server.store import Store


def _decode(value: Any) -> Any:
    return b64decode(value["b"]) if isinstance(value, dict) else value


def restore(store: Store, source: IO[bytes]) -> tuple[int, int]:
    """Fills an empty store from an archive of :func:`backup`.

    Returns:
        Numbers of rows and blobs.

    Raises:
        ValueError: the store is not empty, or the archive is not one of ours.
    """
    with store.read() as connection:
        if connection.scalar(sa.select(schema.containers.c.pk).limit(1)) is not None:
            raise ValueError("the store is not empty; restore into a new one")
    count = blobs = 0
    tables = schema.metadata.tables
    with tarfile.open(fileobj=source, mode="r|*") as archive, store.write() as connection:
        first = archive.next()
        content = archive.extractfile(first) if first and first.name == "format.json" else None
        if content is None or json.load(content).get("format") != FORMAT:
            raise ValueError("this is no archive of `segtrail backup`, or one of a newer segtrail")
        for table in tables.values():
            connection.execute(table.delete())
        for member in archive:
            file = archive.extractfile(member)
            if file is None:
                continue
            kind, _, rest = member.name.partition("/")
            if kind == "blobs":
                key, _ = store.blobs.put_stream(_pieces(file))
                if key != rest:
                    raise ValueError(f"blob {rest} is damaged")
                blobs += 1
            elif kind == "tables":
                table = tables[rest.partition("/")[0]]
                names = table.columns.keys()
                lines = file.read().decode().splitlines()
                rows = [dict(zip(names, map(_decode, json.loads(line)), strict=True)) for line in lines]
                connection.execute(table.insert(), rows)
                count += len(rows)
        _continue_numbers(connection)
    return count, blobs


def _continue_numbers(connection: sa.Connection) -> None:
    """PostgreSQL numbers rows by sequences, which do not notice rows that came with a number."""
    if connection.dialect.name == "postgresql":
        for table, column in (("containers", "pk"), ("paths", "id")):
            connection.execute(
                sa.text(
                    f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'),"
                    f" COALESCE((SELECT MAX({column}) FROM {table}), 0) + 1, false)"
                )
            )


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece


def main(argv: Sequence[str]) -> int:
    """Runs ``segtrail restore``."""
    parser = argparse.ArgumentParser("segtrail restore", description="Fill a new store from an archive.")
    parser.add_argument("archive", type=Path, help="a .tar.gz file of segtrail backup")
    add_store_arguments(parser)
    arguments = parser.parse_args(argv)
    store = open_store(arguments)
    try:
        with arguments.archive.open("rb") as file:
            rows, blobs = restore(store, file)
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f"segtrail restore: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    print(f"restored {rows} rows and {blobs} files")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
