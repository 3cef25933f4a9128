"""``segtrail backup``: a store in one archive, taken while it is in use."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import sys
import tarfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from segtrail.server import schema
from segtrail.server.options import add_store_arguments, open_store
from segtrail.server.store import Store

FORMAT = 1
_ROWS = 1000
_SWEEP_SECONDS = 24 * 3600


def backup(store: Store, target: IO[bytes]) -> tuple[int, int]:
    """Writes all tables, from one consistent snapshot, and all blobs to a tar archive.

    Tables are JSON lines, the same whatever the database is: an archive taken from SQLite is restored into
    PostgreSQL, and back. It holds the hashes of tokens and the key that signs sessions: keep it as you keep
    the store.

    Returns:
        Numbers of rows and blobs.
    """
    count = 0
    with (
        gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        _add(
            archive, "format.json", json.dumps({"format": FORMAT, "schema": len(schema.MIGRATIONS)}).encode()
        )
        with store.snapshot() as connection:
            for table in schema.metadata.sorted_tables:
                for part, lines in enumerate(_lines(connection, table)):
                    count += len(lines)
                    _add(archive, f"tables/{table.name}/{part:08d}.jsonl", "\n".join(lines).encode())
        # Blobs never change, so they may be read after the snapshot: what it refers to is still there.
        blobs = 0
        for key in store.blobs:
            with store.blobs.open(key) as file:
                info = tarfile.TarInfo(f"blobs/{key}")
                info.size = file.seek(0, io.SEEK_END)
                file.seek(0)
                archive.addfile(info, file)
            blobs += 1
    return count, blobs


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), int(time.time())
    archive.addfile(info, io.BytesIO(data))


def _lines(connection: sa.Connection, table: sa.Table) -> Iterator[list[str]]:
    result = connection.execution_options(yield_per=_ROWS).execute(sa.select(table))
    for rows in result.partitions(_ROWS):
        yield [json.dumps([_encode(value) for value in row]) for row in rows]


def _encode(value: Any) -> Any:
    return {"b": b64encode(value).decode()} if isinstance(value, bytes | memoryview) else value


def sweep(store: Store) -> int:
    """Removes blobs that no run refers to and that are older than a day. Returns how many."""
    used = store.blobs_in_use()
    limit = time.time() - _SWEEP_SECONDS
    unused = [key for key in store.blobs if key not in used and store.blobs.modified(key) < limit]
    for key in unused:
        store.blobs.delete(key)
    return len(unused)


def main(argv: Sequence[str]) -> int:
    """Runs ``segtrail backup``."""
    parser = argparse.ArgumentParser("segtrail backup", description="Save a store, also while it is served.")
    parser.add_argument("archive", type=Path, help="a .tar.gz file to write")
    parser.add_argument("--sweep", action="store_true", help="first remove files of deleted runs")
    add_store_arguments(parser)
    arguments = parser.parse_args(argv)
    store = open_store(arguments)
    try:
        if arguments.sweep:
            print(f"removed {sweep(store)} unused files")
        partial = arguments.archive.with_name(arguments.archive.name + ".partial")
        with partial.open("wb") as file:
            rows, blobs = backup(store, file)
        partial.replace(arguments.archive)
    except (OSError, tarfile.TarError) as error:
        print(f"segtrail backup: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    print(f"saved {rows} rows and {blobs} files in {arguments.archive}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
