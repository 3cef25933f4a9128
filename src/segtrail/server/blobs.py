"""Content-addressed files: a local folder, or any object store that fsspec can reach."""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import fsspec


class Blobs:
    """Files named by the SHA-256 of their content.

    A key is never overwritten with other content, so writing is safe to repeat and a crash leaves at
    worst a file that nothing refers to.

    Args:
        url: fsspec URL of a folder (``s3://bucket/runs``) or a local path.
        options: arguments of the fsspec file system.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(url, **options)
        self.local = isinstance(self.fs, fsspec.implementations.local.LocalFileSystem)
        # Where uploads are collected: on the same file system as a local store, so that a rename ends them.
        self.staging = (
            Path(self.root, "tmp") if self.local else Path(tempfile.gettempdir(), "segtrail-uploads")
        )
        self.staging.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> str:
        """Returns where the blob `key` is.

        Raises:
            KeyError: `key` is not a SHA-256 in hex.
        """
        if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
            raise KeyError(f"blob key must be a SHA-256 in hex, got {key!r:.80}")
        return f"{self.root}/{key[:2]}/{key[2:]}"

    def put(self, data: bytes) -> str:
        """Stores `data` and returns its key."""
        key = hashlib.sha256(data).hexdigest()
        if not self.exists(key):
            return self.put_stream([data])[0]
        return key

    def put_stream(self, parts: Iterable[bytes]) -> tuple[str, int]:
        """Stores a stream without holding it in memory. Returns its key and size."""
        writer = BlobWriter(self)
        try:
            for part in parts:
                writer.write(part)
            return writer.close()
        except BaseException:
            writer.abort()
            raise

    def exists(self, key: str) -> bool:
        """Says whether the blob is there."""
        return os.path.exists(self.path(key)) if self.local else bool(self.fs.exists(self.path(key)))  # noqa: PTH110

    def open(self, key: str) -> IO[bytes]:
        """Opens a blob for reading.

        Raises:
            KeyError: there is none.
        """
        try:
            return cast("IO[bytes]", self.fs.open(self.path(key), "rb"))
        except FileNotFoundError:
            raise KeyError(f"blob {key} is not in {self.root}") from None

    def __iter__(self) -> Iterator[str]:
        """Iterates over the keys of all blobs."""
        for path in self.fs.find(self.root):
            head, _, rest = path[len(self.root) :].strip("/").partition("/")
            if len(head + rest) == 64:
                yield head + rest

    def modified(self, key: str) -> float:
        """Returns when a blob was written (epoch seconds)."""
        moment: float = self.fs.modified(self.path(key)).timestamp()
        return moment

    def delete(self, key: str) -> None:
        """Removes a blob."""
        self.fs.rm_file(self.path(key))


class BlobWriter:
    """Takes a blob piece by piece, next to where it will be, and gives it its name at the end."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.size = 0
        self._digest = hashlib.sha256()
        self._path = blobs.staging / uuid.uuid4().hex
        self._file = self._path.open("wb")

    def write(self, part: bytes) -> None:
        """Adds a piece."""
        self._digest.update(part)
        self._file.write(part)
        self.size += len(part)

    def close(self) -> tuple[str, int]:
        """Makes the blob durable and visible. Returns its key and size."""
        key = self._digest.hexdigest()
        target = self.blobs.path(key)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self.blobs.local:
            Path(target).parent.mkdir(exist_ok=True)
            self._path.replace(target)
        else:
            self.blobs.fs.put_file(str(self._path), target)
            self._path.unlink()
        return key, self.size

    def abort(self) -> None:
        """Leaves nothing behind."""
        self._file.close()
        self._path.unlink(missing_ok=True)


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
)


def image_type(data: bytes) -> str:
    """Returns the MIME type of an image from its first bytes (PNG where they say nothing)."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:256].lstrip().startswith((b"<svg", b"<?xml")):
        return "image/svg+xml"
    return "image/" + next((name for magic, name in _MAGIC if data.startswith(magic)), "png")
