"""Downloads from a local server: resume, checksums, and archives that must not be trusted."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from segtrail.data.download import Archive, fetch, need_room, unpack
from segtrail.data.tables import table
from segtrail.data.types import DataError

CONTENT = bytes(range(256)) * 5000


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, with byte ranges; notes what was asked for."""

    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Handler.asked.append(wanted)
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()[int(wanted.removeprefix("bytes=").rstrip("-")) :]
        self.send_response(206 if content else 416)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "data.bin").write_bytes(CONTENT)
    handler = functools.partial(Handler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        Handler.asked.clear()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_download_resumes_and_is_verified(tmp_path: Path, server: str) -> None:
    archive = Archive(f"{server}/data.bin", bytes=len(CONTENT), md5=hashlib.md5(CONTENT).hexdigest())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(archive, tmp_path / "out").read_bytes() == CONTENT
    assert Handler.asked == ["bytes=1000-"]
    fetch(archive, tmp_path / "out")
    assert len(Handler.asked) == 1  # what is there is not fetched again


def test_wrong_checksum_removes_the_file(tmp_path: Path, server: str) -> None:
    with pytest.raises(DataError, match="sha256 is .*removed it"):
        fetch(Archive(f"{server}/data.bin", sha256="0" * 64), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_missing_files_and_servers_are_told(tmp_path: Path, server: str) -> None:
    with pytest.raises(DataError, match=r"none\.zip: the server answers 404"):
        fetch(Archive(f"{server}/none.zip"), tmp_path)
    with pytest.raises(DataError, match="refused.*goes on where it stopped"):
        fetch(Archive("http://127.0.0.1:9/x.zip"), tmp_path)
    with pytest.raises(DataError, match="GB needed"):
        need_room(tmp_path, 10**18)


def test_archives_stay_in_their_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as archive:
        archive.writestr("a/b.txt", "x")
    unpack(tmp_path / "good.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_text() == "x"
    (tmp_path / "out" / "a" / "b.txt").write_text("changed")
    unpack(tmp_path / "good.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_text() == "changed"  # unpacked once
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member = tarfile.TarInfo("../evil.txt")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    for name in ("bad.zip", "bad.tar"):
        with pytest.raises(DataError, match="do not trust this archive"):
            unpack(tmp_path / name, tmp_path / "out")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "good.zip").read_bytes()[:20])
    with pytest.raises(DataError, match="broken archive"):
        unpack(tmp_path / "cut.zip", tmp_path / "out")


def test_every_listed_archive_is_complete() -> None:
    for rows in table("downloads").values():
        assert rows
        for row in rows:
            assert Archive(**row).name


def test_script_gives_instructions_where_it_may_not_download(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "prepare_dataset.py"
    command = [sys.executable, str(script), "cityscapes", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "csDownload" in result.stdout
    assert not list(tmp_path.iterdir())
