"""Artifacts: lists of files with their hashes, never the files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any


def artifact_hash(files: Iterable[Mapping[str, Any]]) -> str:
    """Returns the hash of an artifact as the client computes it (API version 2: without metadata).

    Args:
        files: each with ``filePath, fileHash, size, type``.
    """
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file["filePath"]):
        path, type = file["filePath"], file["type"].encode()
        digest.update(b"#" + len(path).to_bytes(4, "big") + path.encode())
        digest.update(b"#" + file["fileHash"].encode() + b"#")
        if file.get("size") is not None:
            digest.update(int(file["size"]).to_bytes(8, "big"))
        digest.update(b"#" + len(file["type"]).to_bytes(4, "big") + type)
    return digest.hexdigest()
