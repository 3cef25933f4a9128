"""The part of the API about artifacts: lists of files with hashes, kept for each project."""

from __future__ import annotations

from typing import Any

from segtrail.server.artifacts import artifact_hash
from segtrail.server.call import BadRequestError, Call

_TEXTS = ("filePath", "fileHash", "type")


def _project(call: Call, role: str) -> Any:
    """Returns the project of ``parentIdentifier``: an offline log brings a made-up project id."""
    parent = call.query.get("parentIdentifier")
    if parent:
        row = call.container(role, parent)
        return call.project(role, f"{row.workspace}/{row.name}")
    return call.project(role)


def _hash(call: Call) -> str:
    value = call.text("hash")
    if len(value) != 64 or not value.isalnum():
        raise BadRequestError(f"hash must be a SHA-256 in hex, got {value!r:.80}")
    return value


def _files(call: Call) -> list[dict[str, Any]]:
    files = call.object().get("files")
    if not isinstance(files, list):
        raise BadRequestError("artifactFilesDTO needs files")
    for file in files:
        size = file.get("size") if isinstance(file, dict) else ""
        if not isinstance(file, dict) or not all(isinstance(file.get(key), str) for key in _TEXTS):
            raise BadRequestError(f"a file needs {', '.join(_TEXTS)}")
        if size is not None and (
            not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**62
        ):
            raise BadRequestError(f"size of {file['filePath']!r:.200} must be a whole number")
    return files


def _version(hash: str, files: list[dict[str, Any]] | None, size: int) -> dict[str, Any]:
    return {"artifactHash": hash, "receivedMetadata": files is not None, "size": size}


def create_new(call: Call) -> Any:
    project, hash = _project(call, "contributor"), _hash(call)
    known = call.store.artifact(project.container, hash)
    if known is not None:
        return _version(hash, *known)
    call.store.save_artifact(project.container, hash, None, call.integer("size", 0))
    return _version(hash, None, call.integer("size", 0))


def upload_metadata(call: Call) -> Any:
    hash, files = _hash(call), _files(call)
    # The hash says what the list is, whatever project id an offline log brought along.
    project = call.store.project_of_artifact(hash, call.text("projectIdentifier"))
    project = call.project("contributor", project)
    size = call.store.save_artifact(project.container, hash, files)
    return _version(hash, files, size)


def create_version(call: Call) -> Any:
    """Makes a new artifact from an old one and files that are added or replaced."""
    project = _project(call, "contributor")
    old, _ = call.store.artifact(project.container, _hash(call)) or ([], 0)
    merged = {file["filePath"]: file for file in [*(old or []), *_files(call)]}
    files = [merged[path] for path in sorted(merged)]
    hash = artifact_hash(files)
    return _version(hash, files, call.store.save_artifact(project.container, hash, files))


def list_files(call: Call) -> Any:
    project = call.project(
        "viewer", call.store.project_of_artifact(_hash(call), call.text("projectIdentifier"))
    )
    known = call.store.artifact(project.container, _hash(call))
    files = (known[0] if known else None) or []
    return {"files": [{**file, "metadata": file.get("metadata") or []} for file in files]}


HANDLERS = {
    "createNewArtifact": create_new,
    "createArtifactVersion": create_version,
    "uploadArtifactFilesMetadata": upload_metadata,
    "listArtifactFiles": list_files,
}
