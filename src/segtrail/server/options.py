"""The options that say where a store is, the same for every command."""

from __future__ import annotations

import argparse
from pathlib import Path

from segtrail.server.store import Store


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where the store is."""
    parser.add_argument("--data", default="segtrail-data", help="folder of the store (default: %(default)s)")
    parser.add_argument("--database", help="SQLAlchemy URL (default: SQLite in the folder)")
    parser.add_argument("--blobs", help="folder or fsspec URL of the files (default: blobs in the folder)")


def open_store(arguments: argparse.Namespace) -> Store:
    """Opens the store that the options name."""
    if arguments.database is None:
        return Store.open(arguments.data, arguments.blobs)
    return Store.open(arguments.database, arguments.blobs or str(Path(arguments.data) / "blobs"))
