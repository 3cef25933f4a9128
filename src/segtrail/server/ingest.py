"""Brings what the client left on disk into a store: incrementally, exactly once, the source untouched."""

from __future__ import annotations

import base64
import contextlib
import datetime
import glob
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from segtrail.server.artifacts import artifact_hash
from segtrail.server.operations import OperationError, wire_item
from segtrail.server.oplog import OpLog, Record, find_logs
from segtrail.server.store import Store

log = logging.getLogger(__name__)
DEFAULT_PROJECT = "local/offline"
_PIECE = 1 << 20

Item = tuple[int, dict[str, Any], int]  # version, operation in the wire form, epoch milliseconds


class Target(Protocol):
    """Where records go: a :class:`~segtrail.server.store.Store` here, or a server elsewhere."""

    def source(self, directory: str) -> tuple[str, int, str] | None:
        """Returns the run of a directory, the version up to which it is stored, and the place in the log."""

    def open_source(
        self, directory: str, origin: str, project: str, custom_id: str | None, created: int, version: int
    ) -> str:
        """Creates or finds the run that a directory belongs to. Returns its id."""

    def has_run(self, run_id: str) -> bool:
        """Says whether there is such a run."""

    def put_file(self, parts: Iterable[bytes]) -> tuple[str, int]:
        """Stores a file. Returns its blob key and size."""

    def put_artifact(self, run_id: str, hash: str, files: Sequence[dict[str, Any]]) -> None:
        """Stores the list of files of an artifact."""

    def ingest(
        self, directory: str, items: Sequence[Item], version: int, place: str
    ) -> tuple[int, list[str]]:
        """Applies the records that are new and moves the directory's version, all or nothing.

        Returns:
            How many were new, and what could not be applied.
        """


class Follower:
    """Follows the ``.neptune`` directories of programs that may still be running.

    Args:
        target: a store, or anything with the methods of :class:`Target`.
        paths: ``.neptune`` directories or single run directories; those that do not exist yet are waited for.
        project: "workspace/name" of the runs: an offline log does not know its project.
        quiet: what an asynchronous client left is taken when its process is gone and nothing was written for
            so many seconds; before, the client itself will send it.
    """

    def __init__(
        self,
        target: Target | Store,
        paths: Iterable[str | Path],
        *,
        project: str | None = None,
        quiet: float = 60.0,
    ) -> None:
        self.target = target
        self.paths = [Path(path) for path in paths]
        self.project = project or os.environ.get("NEPTUNE_PROJECT") or DEFAULT_PROJECT
        self.quiet = quiet
        self.problems: list[str] = []
        self.stopping = threading.Event()
        self._logs: dict[Path, OpLog] = {}

    def stop(self) -> None:
        """Makes :meth:`poll` return after the batch it is at; what is left is taken by a later one."""
        self.stopping.set()

    def poll(self) -> int:
        """Takes all that is new. Returns the number of new operations.

        A directory that cannot be read is reported in `problems`; the others are read.
        """
        count = 0
        for path in self.paths:
            for directory in find_logs(path):
                if self.stopping.is_set():
                    return count
                try:
                    count += self._follow(directory)
                except (OSError, OperationError) as error:
                    self._report(f"{directory.name}: {error}")
        return count

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
            log.warning("%s", problem)

    def _follow(self, directory: Path) -> int:
        oplog = self._logs.get(directory)
        if oplog is None:
            oplog = self._open(directory)
            if oplog is None:
                return 0
        count = 0
        try:
            while not self.stopping.is_set() and (records := oplog.read()) is not None:
                count += self._ingest(oplog, records)
        except BaseException:
            self._logs.pop(directory, None)  # what was read but not stored is read again
            raise
        finally:
            for problem in oplog.problems:
                self._report(problem)
            oplog.problems.clear()
        return count

    def _open(self, directory: Path) -> OpLog | None:
        """Starts where the store is, which may be in the middle of a log."""
        oplog = OpLog(directory)
        metadata = oplog.metadata()
        origin = metadata.get("containerId") or _origin(directory)
        is_async = (metadata.get("mode") or directory.parent.name) == "async"
        if not origin or (is_async and self._alive(directory)):
            return None
        known = self.target.source(directory.name)
        if known is None:
            acknowledged = _acknowledged(directory) if is_async else 0
            if acknowledged and not self.target.has_run(origin):
                self._report(f"{directory.name}: its run {origin} is on another server; sync it there")
                return None
            first = OpLog(directory).read() or []
            self.target.open_source(
                directory.name, origin, self.project, _custom_id(first), _created(metadata), acknowledged
            )
            known = self.target.source(directory.name)
        assert known is not None
        if not known[0]:
            return None  # its run was deleted
        _, oplog.version, place = known
        oplog.file, _, offset = place.rpartition(":")
        oplog.offset = int(offset or 0)
        self._logs[directory] = oplog
        return oplog

    def _alive(self, directory: Path) -> bool:
        newest = max((file.stat().st_mtime for file in directory.iterdir() if file.is_file()), default=0.0)
        if time.time() - newest < self.quiet:
            return True
        parts = directory.name.split("__")
        if len(parts) < 4 or not parts[2].isdigit():
            return False
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(PermissionError):  # alive, of another user
                os.kill(int(parts[2]), 0)
            return True
        return False

    def _ingest(self, oplog: OpLog, records: list[Record]) -> int:
        items: list[Item] = []
        run = self.target.source(oplog.path.name)
        assert run is not None
        for record in records:
            at = int((record.at if record.at is not None else time.time()) * 1000)
            try:
                items += [(record.version, item, at) for item in self._items(oplog.path, record.obj, run[0])]
            except (OperationError, OSError) as error:
                self._report(f"{oplog.path.name}: version {record.version}: {error}")
        if not records:
            return 0
        place = f"{oplog.file}:{oplog.offset}"
        count, errors = self.target.ingest(oplog.path.name, items, oplog.version, place)
        for message in errors:
            self._report(f"{oplog.path.name}: {message}")
        return count

    def _items(self, directory: Path, obj: dict[str, Any], run_id: str) -> Iterator[dict[str, Any]]:
        """Brings a record into the wire form; files are stored on the way."""
        kind = obj.get("type")
        if kind not in ("UploadFile", "UploadFileContent", "UploadFileSet", "TrackFilesToArtifact"):
            yield wire_item(obj)
            return
        try:
            path = "/".join(obj["path"])
            if kind == "UploadFileSet":
                files = self._file_set(directory, obj["file_globs"])
                yield {"path": path, "addFiles": {"files": files, "reset": str(obj["reset"]) == "True"}}
            elif kind == "TrackFilesToArtifact":
                tracked = [file for place, target in obj["entries"] for file in _tracked(place, target)]
                digest = artifact_hash(tracked)
                self.target.put_artifact(run_id, digest, tracked)
                yield {"path": path, "assignArtifact": {"hash": digest}}
            else:
                yield {"path": path, "setFile": {"file": self._file(directory, obj)}}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OperationError(f"malformed {kind}: {error!r}") from None

    def _file(self, directory: Path, obj: dict[str, Any]) -> dict[str, Any]:
        if obj["type"] == "UploadFileContent":
            key, size = self.target.put_file([base64.b64decode(obj["file_content"])])
        else:
            temporary = obj.get("tmp_file_name")
            source = directory / "upload_path" / Path(temporary).name if temporary else Path(obj["file_path"])
            with source.open("rb") as file:
                key, size = self.target.put_file(_pieces(file))
        return {"blob": key, "size": size, "ext": obj.get("ext") or ""}

    def _file_set(self, directory: Path, globs: Sequence[str]) -> dict[str, dict[str, Any]]:
        found = sorted(
            {Path(name).absolute() for pattern in globs for name in glob.glob(pattern, recursive=True)}  # noqa: PTH207
        )
        if not found:
            return {}
        # The client's rule for names: below the working directory if all is there, else the common folder.
        root = Path(os.path.commonpath(found))
        root = root.parent if root.is_file() else root
        start = next((p.parent for p in directory.absolute().parents if p.name == ".neptune"), None)
        if start is not None and start in root.parents:
            root = start
        files = {}
        below = [p for top in found for p in (sorted(top.rglob("*")) if top.is_dir() else [top])]
        for path in below:
            if path.is_file():
                with path.open("rb") as file:
                    key, size = self.target.put_file(_pieces(file))
                mtime = int(path.stat().st_mtime * 1000)
                files[path.relative_to(root).as_posix()] = {"blob": key, "size": size, "mtime": mtime}
        return files


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _origin(directory: Path) -> str | None:
    parts = directory.name.split("__")
    return parts[1] if len(parts) >= 2 else None


def _acknowledged(directory: Path) -> int:
    try:
        return int((directory / "last_ack_version").read_text().strip() or 0)
    except (OSError, ValueError):
        return 0


def _created(metadata: dict[str, Any]) -> int:
    try:
        return int(datetime.datetime.fromisoformat(metadata["createdAt"]).timestamp() * 1000)
    except (KeyError, TypeError, ValueError):
        return int(time.time() * 1000)


def _custom_id(records: Sequence[Record]) -> str | None:
    """An offline run that wrote its own ``sys/custom_run_id`` joins the run that has it."""
    for record in records:
        if record.obj.get("path") == ["sys", "custom_run_id"] and record.obj.get("type") == "AssignString":
            value = record.obj.get("value")
            return value if isinstance(value, str) and value else None
    return None


def _tracked(place: str, destination: str | None) -> Iterator[dict[str, Any]]:
    """Describes the files of a local artifact as the client does: content hash (SHA-1), size, names."""
    top = Path(place.removeprefix("file://")).expanduser()
    for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
        if not path.is_file():
            continue
        name = path.relative_to(top).as_posix() if top.is_dir() else path.name
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha1").hexdigest()
        stat = path.stat()
        modified = datetime.datetime.fromtimestamp(stat.st_mtime).strftime("%Y-%m-%d %H:%M:%S")
        yield {
            "filePath": name if destination is None else (Path(destination) / name).as_posix(),
            "fileHash": digest,
            "type": "Local",
            "size": stat.st_size,
            "metadata": [
                {"key": "file_path", "value": f"file://{path.resolve().as_posix()}"},
                {"key": "last_modified", "value": modified},
            ],
        }
