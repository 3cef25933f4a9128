"""Archives of data sets: fetched with resume and checksum, unpacked without leaving their folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segtrail.data.types import DataError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A file on a server.

    Attributes:
        url: where it is.
        into: sub-folder that it is unpacked to.
        bytes: its size, if known.
        md5, sha256: its checksums, as far as known.
    """

    url: str
    into: str = ""
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """File name."""
        return PurePosixPath(self.url).name


def fetch(
    archive: Archive, folder: Path, progress: Callable[[int, int | None], None] = lambda *_: None
) -> Path:
    """Download into ``folder``, going on where an earlier attempt stopped.

    Args:
        archive: what to get.
        folder: where to put it.
        progress: called with bytes so far and in all.

    Raises:
        DataError: no room, no connection, or a wrong checksum (then the file is removed).
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / archive.name, folder / f"{archive.name}.part"
    if target.is_file():
        verify(archive, target)
        return target
    have = part.stat().st_size if part.is_file() else 0
    need_room(folder, (archive.bytes or 0) - have)
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            resumed = answer.status == 206
            done = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length else archive.bytes
            with part.open("ab" if resumed else "wb") as file:
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    progress(done, total)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is already whole
            raise DataError(f"{archive.url}: the server answers {error.code} {error.reason}") from error
    except (OSError, urllib.error.URLError) as error:
        raise DataError(f"{archive.url}: {error}; run again, it goes on where it stopped") from error
    verify(archive, part)
    part.rename(target)
    return target


def verify(archive: Archive, path: Path) -> None:
    """Compare size and checksums.

    Raises:
        DataError: they differ; the file is removed unless it is merely short.
    """
    size = path.stat().st_size
    if archive.bytes is not None and size < archive.bytes:
        raise DataError(f"{path}: {size} of {archive.bytes} bytes; run again, it goes on where it stopped")
    for kind, expected in (("sha256", archive.sha256), ("md5", archive.md5)):
        if expected is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected:
            path.unlink()
            raise DataError(f"{path}: {kind} is {found}, not {expected}; removed it, run again")
        return


def need_room(folder: Path, size: int) -> None:
    """Raise unless the disk of ``folder`` has ``size`` bytes free.

    Raises:
        DataError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{folder}: {size / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; choose another disk"
        )


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip or tar archive, once; nothing may land outside of ``folder``.

    Raises:
        DataError: a member that would leave the folder, no room, or a broken archive.
    """
    stamp = folder / f".{path.name}.unpacked"
    if stamp.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                need_room(folder, sum(member.file_size for member in archive.infolist()))
                for member in archive.infolist():
                    _inside(folder, member.filename, path)
                archive.extractall(folder)
        else:
            with tarfile.open(path) as tar:
                need_room(folder, sum(member.size for member in tar))
                tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise DataError(f"{path}: {error}; do not trust this archive") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: broken archive ({error}); remove it and run again") from error
    stamp.touch()


def _inside(folder: Path, member: str, path: Path) -> None:
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(folder / member)]) != root:
        raise DataError(f"{path}: member {member!r} would leave {folder}; do not trust this archive")
