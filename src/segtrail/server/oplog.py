"""Reads the operation log that the Neptune client writes offline, while it is still being written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READ_BYTES = 4 << 20
# No record is shorter, so damaged bytes tell how many records they can have been.
SHORTEST_RECORD = 40
_START = re.compile(rb'\{"obj"')
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Record:
    """One operation of the log: its number, what it is, and when it was logged (epoch seconds)."""

    version: int
    obj: dict[str, Any]
    at: float | None


@dataclass
class OpLog:
    """One directory of a run, read incrementally by version.

    The log may be torn at its end (read again later), damaged in the middle (that record is lost, those
    after it are not), and may hold records twice (forked processes flush the parent's buffer: a version that
    was seen is skipped). Nothing here writes to the directory.

    Attributes:
        path: the directory.
        version: the last version that was returned.
        file: name of the file that is being read, and the offset in it.
        problems: what was damaged, in words.
    """

    path: Path
    version: int = 0
    file: str = ""
    offset: int = 0
    problems: list[str] = field(default_factory=list)
    _hidden: int = 0

    def metadata(self) -> dict[str, Any]:
        """Reads ``metadata.json``; empty if it is not (yet) readable."""
        try:
            found = json.loads((self.path / "metadata.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def files(self) -> list[Path]:
        """Lists the log files in the order in which they were written."""
        found = [(int(match[1]), path) for path, match in self._candidates() if match]
        return [path for _, path in sorted(found)]

    def _candidates(self) -> Iterator[tuple[Path, re.Match[str] | None]]:
        for path in self.path.glob("data-*.log"):
            yield path, re.fullmatch(r"data-(\d+)\.log", path.name)

    def read(self) -> list[Record] | None:
        """Returns the next records, at most some megabytes of them; None at the end of what is there."""
        files = self.files()
        number = _number(self.file)
        # The client removes files whose records the server has.
        index = next((i for i, path in enumerate(files) if _number(path.name) >= number), None)
        if index is None:
            return None
        if files[index].name != self.file:
            self.file, self.offset = files[index].name, 0
        data = self._bytes(files[index])
        if not data:
            if index + 1 == len(files):
                return None
            self.file, self.offset = files[index + 1].name, 0
            return []
        end = data.rfind(b"\n") + 1
        complete, torn = data[:end], data[end:]
        is_last_part = len(data) < READ_BYTES
        records = [record for line in complete.splitlines() for record in self._parse(line)]
        self.offset += end
        if torn and is_last_part:
            if index + 1 < len(files):  # the client went on in another file: this will never be completed
                records += self._parse(torn)
                self.offset += len(torn)
            elif (whole := _whole(torn)) is not None:
                records += self._accept(whole)
                self.offset += len(torn)
            elif not complete:
                return None
        elif torn and not complete:  # one record larger than what is read at once
            data = self._bytes(files[index], unlimited=True)
            end = data.find(b"\n", READ_BYTES) + 1
            if not end:
                return None if index + 1 == len(files) else self._skip(files[index + 1].name)
            records = self._parse(data[:end])
            self.offset += end
        return records

    def _skip(self, name: str) -> list[Record]:
        self.problems.append(f"{self.path.name}/{self.file}: damaged from byte {self.offset} to its end")
        self.file, self.offset = name, 0
        return []

    def _bytes(self, path: Path, *, unlimited: bool = False) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(self.offset)
                return file.read(-1 if unlimited else READ_BYTES)
        except FileNotFoundError:
            return b""

    def _parse(self, line: bytes) -> list[Record]:
        if not line.strip():
            return []
        whole = _whole(line)
        if whole is not None:
            return self._accept(whole)
        # Damaged, or several records without a newline: resume at whatever begins like a record.
        records: list[Record] = []
        text = line.decode("latin-1")
        end = at = 0
        while (match := _START.search(line, at)) is not None:
            try:
                value, at = _DECODER.raw_decode(text, match.start())
            except (ValueError, RecursionError):
                at = match.end()
                continue
            self._lose(match.start() - end)
            end = at
            records += self._accept(value)
        self._lose(len(line) - end)
        return records

    def _lose(self, size: int) -> None:
        if size >= SHORTEST_RECORD // 2:
            self._hidden += size // SHORTEST_RECORD + 1
            self.problems.append(f"{self.path.name}/{self.file}: {size} damaged bytes after {self.version}")

    def _accept(self, value: Any) -> list[Record]:
        version = value.get("version") if isinstance(value, dict) else None
        obj = value.get("obj") if isinstance(value, dict) else None
        if not isinstance(obj, dict) or not isinstance(version, int) or isinstance(version, bool):
            self._hidden += 1
            self.problems.append(f"{self.path.name}/{self.file}: no record after version {self.version}")
            return []
        if version > self.version + 1 + self._hidden and self.version:
            # Versions have no gaps, so the number itself is damaged; trusted, it would hide all that follow.
            self.problems.append(f"{self.path.name}/{self.file}: version {version} after {self.version}")
            version = self.version + 1
        if version <= self.version:
            return []
        self.version, self._hidden = version, 0
        at = value.get("at")
        return [Record(version, obj, at if isinstance(at, int | float) else None)]


def _number(name: str) -> int:
    match = re.fullmatch(r"data-(\d+)\.log", name)
    return int(match[1]) if match else 0


def _whole(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def find_logs(path: Path) -> list[Path]:
    """Lists the directories that hold an operation log under a ``.neptune`` directory (or are one)."""
    found = {
        file.parent for pattern in ("", "*/", "*/*/", "*/*/*/") for file in path.glob(f"{pattern}data-*.log")
    }
    return sorted(found)
