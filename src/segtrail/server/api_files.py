"""The part of the API that moves files: uploads are streamed to disk, downloads from it."""

from __future__ import annotations

import base64
import json
import re
import tarfile
import tempfile
import time
import uuid
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from segtrail.server.api_runs import error_item
from segtrail.server.blobs import BlobWriter
from segtrail.server.call import BadRequestError, Call, iso
from segtrail.server.database import NotFoundError
from segtrail.server.operations import AddFiles, OperationError, SetFile, file_name, text

_PIECE = 1 << 20
# Files are user content, HTML among it: a browser must neither guess their type nor run them as ours.
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
}


class TooLargeError(ValueError):
    """The body is larger than the server accepts (answered with 413)."""


# ------------------------------------------------------------------ uploads


async def receive(stream: AsyncIterator[bytes], writer: Any, limit: int) -> int:
    """Writes a body piece by piece. Returns its size.

    Raises:
        TooLargeError: more than `limit` bytes.
    """
    size = 0
    pending: list[bytes] = []
    async for part in stream:
        size += len(part)
        if size > limit:
            raise TooLargeError(f"the body is larger than {limit} bytes")
        pending.append(part)
        if sum(map(len, pending)) >= _PIECE:
            await run_in_threadpool(writer.write, b"".join(pending))
            pending.clear()
    await run_in_threadpool(writer.write, b"".join(pending))
    return size


async def receive_blob(call: Call, stream: AsyncIterator[bytes]) -> tuple[str, int]:
    """Stores a body as a blob. Returns its key and size."""
    writer = BlobWriter(call.store.blobs)
    try:
        await receive(stream, writer, call.shared.max_upload)
        return await run_in_threadpool(writer.close)
    except BaseException:
        writer.abort()
        raise


def _uploaded(errors: list[str]) -> dict[str, Any]:
    return {"errors": [error_item(error) for error in errors]}


def _attach(call: Call, run_id: str, target: dict[str, str], key: str, size: int) -> dict[str, Any]:
    """Makes a stored blob the file attribute, or a file of the set, that `target` says."""
    path = call.text("attribute").strip("/")
    file: dict[str, Any] = {"blob": key, "size": size}
    operation: SetFile | AddFiles
    if "subPath" in target:
        file["mtime"] = int(time.time() * 1000)
        operation = AddFiles(path, {target["subPath"]: file})
    else:
        operation = SetFile(path, {**file, "ext": target["ext"]})
    return _uploaded(call.store.apply(run_id, [operation]))


def _target(call: Call) -> dict[str, str]:
    if call.name.startswith("fileSet"):
        return {"subPath": file_name(call.text("subPath"))}
    return {"ext": text(call.query.get("ext") or "", "ext", 64)}


async def upload(call: Call, stream: AsyncIterator[bytes]) -> Any:
    row = await run_in_threadpool(call.container, "contributor")
    try:
        target = _target(call)
    except OperationError as error:
        return _uploaded([str(error)])
    key, size = await receive_blob(call, stream)
    return await run_in_threadpool(_attach, call, row.id, target, key, size)


def start_upload(call: Call) -> Any:
    row = call.container("contributor")
    total = call.integer("totalLength", 0)
    if total > call.shared.max_upload:
        raise TooLargeError(f"{total} bytes are more than this server takes ({call.shared.max_upload})")
    try:
        target = _target(call)
    except OperationError as error:
        return {"uploadId": None, **_uploaded([str(error)])}
    id = uuid.uuid4().hex
    call.store.start_upload(id, row.pk, call.text("attribute"), json.dumps(target), total)
    return {"uploadId": id, "errors": []}


_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})/(\d{1,18})")


async def upload_part(call: Call, stream: AsyncIterator[bytes]) -> Any:
    row = await run_in_threadpool(call.container, "contributor")
    pending = await run_in_threadpool(call.store.pending_upload, call.text("uploadId"), row.pk)
    match = _RANGE.fullmatch(call.query.get("X-Range") or "")
    if match is None:
        raise BadRequestError("header X-Range must be bytes=first-last/total")
    first, last, _ = (int(group) for group in match.groups())
    index = call.integer("uploadPartIdx", 0)
    staging = call.store.blobs.staging
    temporary = staging / f"{uuid.uuid4().hex}.part"
    try:
        with temporary.open("wb") as file:
            size = await receive(stream, file, pending.total)
        if size != last - first + 1:
            # The client knows this text: the file changed under it, and it begins anew.
            raise BadRequestError("Length of stream does not match given range")
        temporary.replace(staging / f"{pending.id}.{index}.part")
    finally:
        temporary.unlink(missing_ok=True)
    return _uploaded([])


def finish_upload(call: Call) -> Any:
    row = call.container("contributor")
    pending = call.store.pending_upload(call.text("uploadId"), row.pk)
    staging = call.store.blobs.staging
    found = staging.glob(f"{pending.id}.*.part")
    parts = sorted(found, key=lambda path: int(path.name.split(".")[1]))
    size = sum(part.stat().st_size for part in parts)
    if [part.name.split(".")[1] for part in parts] != [str(i) for i in range(len(parts))]:
        return _uploaded(["parts of the upload are missing"])
    if size != pending.total:
        return _uploaded([f"the upload has {size} bytes, {pending.total} were announced"])
    key, size = call.store.blobs.put_stream(_pieces(parts))
    answer = _attach(call, row.id, json.loads(pending.target), key, size)
    call.store.end_upload(pending.id)
    for part in parts:
        part.unlink()
    return answer


def _pieces(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            yield from _read_all(file)


def _read_all(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


async def upload_tar(call: Call, stream: AsyncIterator[bytes]) -> Any:
    row = await run_in_threadpool(call.container, "contributor")
    with tempfile.TemporaryFile(dir=call.store.blobs.staging) as file:
        await receive(stream, file, call.shared.max_upload)
        return await run_in_threadpool(_unpack, call, row.id, file)


def _unpack(call: Call, run_id: str, file: IO[bytes]) -> Any:
    file.seek(0)
    files: dict[str, dict[str, Any]] = {}
    errors = []
    total = 0
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            for member in archive:
                if not member.isfile():  # folders follow from names; links could point anywhere
                    continue
                total += member.size
                if total > call.shared.max_upload:
                    raise TooLargeError(
                        f"unpacked, the archive is larger than {call.shared.max_upload} bytes"
                    )
                try:
                    name = file_name(member.name)
                except OperationError as error:
                    errors.append(str(error))
                    continue
                content = archive.extractfile(member)
                assert content is not None
                key, size = call.store.blobs.put_stream(_read_all(content))
                files[name] = {"blob": key, "size": size, "mtime": int(member.mtime * 1000)}
    except (tarfile.TarError, EOFError, OSError) as error:
        return _uploaded([f"not a readable tar archive: {error}"])
    operation = AddFiles(call.text("attribute").strip("/"), files, call.query.get("reset") == "True")
    return _uploaded(errors + call.store.apply(run_id, [operation]))


# ------------------------------------------------------------------ downloads


def stream_file(
    file: IO[bytes], name: str, size: int | None, mime: str = "application/octet-stream"
) -> Response:
    """Returns an answer that streams an open file."""
    headers = {**SAFE_HEADERS, "Content-Disposition": disposition(name)}
    if size is not None:
        headers["Content-Length"] = str(size)

    def pieces() -> Iterator[bytes]:
        with file:
            yield from _read_all(file)

    return StreamingResponse(pieces(), media_type=mime, headers=headers)


def disposition(name: str) -> str:
    """Returns a Content-Disposition for any file name.

    The client takes what follows the last ``filename=``, so the plain form comes last.
    """
    plain = re.sub(r'[^\x20-\x7e]|["\\/]', "_", name)
    star = "" if plain == name else f"filename*=UTF-8''{quote(name, safe='')}; "
    return f'attachment; {star}filename="{plain}"'


def download_attribute(call: Call) -> Any:
    row = call.container("viewer")
    file, info = call.store.open_file(row.id, call.text("attribute").strip("/"))
    return stream_file(file, info["name"], info["size"])


def image_value(call: Call) -> Any:
    row = call.container("viewer")
    index = call.integer("index", 0)
    page = call.store.series_page(row.id, call.text("attribute").strip("/"), "imageSeries", index, 1)
    if not page["values"]:
        raise NotFoundError(f"the series has no image {index}")
    image = page["values"][0]
    # The client makes the file's extension from the subtype.
    return stream_file(call.store.open_blob(image["blob"]), f"{index}", image["size"], image["mime"])


def prepare_zip(call: Call) -> Any:
    row = call.container("viewer")
    path = call.text("attribute").strip("/")
    call.store.file_set(row.id, path)
    id = base64.urlsafe_b64encode(json.dumps([row.id, path]).encode()).decode()
    return {"id": id, "downloadUrl": _download_url(call, id)}


def _download_url(call: Call, id: str) -> str:
    return f"{call.base}/api/leaderboard/v1/download/downloadFile?id={quote(id)}"


def download_request(call: Call) -> Any:
    return {"id": call.text("id"), "downloadUrl": _download_url(call, call.text("id"))}


def download_zip(call: Call) -> Any:
    try:
        run_id, path = json.loads(base64.urlsafe_b64decode(call.text("id")))
    except (ValueError, TypeError, RecursionError):
        raise BadRequestError("id is not one that this server gave") from None
    row = call.container("viewer", str(run_id))
    files = call.store.file_set(row.id, str(path))
    archive = tempfile.TemporaryFile(dir=call.store.blobs.staging)  # noqa: SIM115 - streamed, then closed
    folders = {"/"} | {
        "/".join(name.split("/")[:i]) + "/" for name in files for i in range(1, name.count("/") + 1)
    }
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for folder in sorted(folders):
            target.writestr(zipfile.ZipInfo(folder), b"")
        for name, file in files.items():
            with (
                call.store.open_blob(file["blob"]) as source,
                target.open(name, "w", force_zip64=True) as entry,
            ):
                while piece := source.read(_PIECE):
                    entry.write(piece)
    size = archive.tell()
    archive.seek(0)
    return stream_file(archive, str(path).rpartition("/")[2] + ".zip", size, "application/zip")


def list_files(call: Call) -> Any:
    """Lists one folder of a file set."""
    row = call.container("viewer")
    files = call.store.file_set(row.id, call.text("attribute").strip("/"))
    folder = (call.query.get("path") or "").strip("/.")
    prefix = folder + "/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        if not name.startswith(prefix):
            continue
        head, _, rest = name[len(prefix) :].partition("/")
        entry = entries.setdefault(
            head, {"name": head, "size": 0, "mtime": 0, "fileType": "directory" if rest else "file"}
        )
        entry["size"] += file["size"]
        entry["mtime"] = max(entry["mtime"], file["mtime"])
    if folder and not entries:
        raise NotFoundError(f"the file set has no folder {folder}")
    return [{**entry, "mtime": iso(entry["mtime"])} for entry in entries.values()]


HANDLERS = {
    "fileAtomMultipartUploadStart": start_upload,
    "fileAtomMultipartUploadFinish": finish_upload,
    "fileSetFileMultipartUploadStart": start_upload,
    "fileSetFileMultipartUploadFinish": finish_upload,
    "downloadAttribute": download_attribute,
    "getImageSeriesValue": image_value,
    "prepareForDownloadFileSetAttributeZip": prepare_zip,
    "getDownloadPrepareRequest": download_request,
    "download": download_zip,
    "lsFileSetAttribute": list_files,
}
STREAMS = {
    "fileAtomUpload": upload,
    "fileAtomMultipartUploadPart": upload_part,
    "fileSetFileUpload": upload,
    "fileSetFileMultipartUploadPart": upload_part,
    "uploadFileSetAttributeTar": upload_tar,
}
