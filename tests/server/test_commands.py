"""The commands: server, token, backup and restore, as a user runs them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa

from segtrail.server import backup, restore, schema, token
from segtrail.server.auth import Auth, api_token
from segtrail.server.store import Store
from tests.server.operations import assign, do, floats, images, strings
from tests.server.oplog import Log, point


def fill(store: Store) -> list[str]:
    """Two runs with something of everything."""
    runs = []
    for name in ("ws/a", "ws/b"):
        store.ensure_project(name)
        run = store.create_run(name, custom_id="x")
        key, size = store.put_file([b"file of " + name.encode()])
        store.apply(
            run,
            [
                assign("Float", "f", 0.1),
                floats("m", [float(i) for i in range(500)]),
                strings("log", ["\n", "ü"]),
                images("i", [b"image"]),
                do("setFile", "file", file={"blob": key, "size": size, "ext": "txt"}),
                do("addFiles", "files", files={"a/b": {"blob": key, "size": size, "mtime": 1}}),
            ],
        )
        runs.append(run)
    return runs


def test_a_backup_is_restored_into_any_database(
    lite: Store, store: Store, open_store: Callable[[], Store]
) -> None:
    """From SQLite into SQLite and PostgreSQL; runs go on with new numbers and points afterwards."""
    runs = fill(lite)
    key = Auth(lite, required=True).create_token("ann", "owner")[1]
    archive = io.BytesIO()
    rows, blobs = backup.backup(lite, archive)
    assert blobs == 3
    archive.seek(0)
    assert restore.restore(store, archive) == (rows, blobs)
    other = open_store()
    for run in runs:
        assert other.attributes(run).keys() == lite.attributes(run).keys()
        assert other.series(run, "m")[1].tolist() == lite.series(run, "m")[1].tolist()
        assert other.open_file(run, "file")[0].read() == lite.open_file(run, "file")[0].read()
        assert other.apply(run, [floats("m", [1.0]), floats("new path", [1.0])]) == []
    assert Auth(other, required=True).exchange(api_token("http://x", key)).user == "ann"
    new = other.create_run("ws/a")
    assert other.attributes(new)["sys/id"].value.endswith("-2")
    archive.seek(0)
    with pytest.raises(ValueError, match="not empty"):
        restore.restore(other, archive)


def test_a_backup_while_others_write_is_one_state(store: Store) -> None:
    (run, _) = fill(store)
    archive = io.BytesIO()
    with store.snapshot() as connection:
        connection.execute(sa.select(schema.counters)).all()
        store.apply(run, [floats("m", [1.0])])
        counted = connection.scalar(
            sa.select(schema.attributes.c.n).where(schema.attributes.c.n > 100).limit(1)
        )
        assert counted == 500
    backup.backup(store, archive)
    assert store.attributes(run)["m"].count == 501


def test_a_damaged_archive_is_refused(
    lite: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("something"))
    command = [str(tmp_path / "x.tar.gz"), "--data", str(tmp_path / "new")]
    assert restore.main(command) == 1
    assert "no archive of `segtrail backup`" in capsys.readouterr().err
    fill(lite)
    assert backup.main([str(tmp_path / "good.tar.gz"), "--data", str(tmp_path / "lite")]) == 0
    command[0] = str(tmp_path / "good.tar.gz")
    assert restore.main(command) == 0
    assert "3 files" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.partial"))


def test_sweeping_removes_only_what_no_run_refers_to(lite: Store) -> None:
    first, second = fill(lite)
    assert backup.sweep(lite) == 0
    lite.delete([first])
    assert backup.sweep(lite) == 0  # younger than a day: an upload may be about to refer to it
    for key in lite.blobs:
        os.utime(lite.blobs.path(key), (0, 0))
    assert backup.sweep(lite) == 1
    assert lite.open_file(second, "file")[0].read() == b"file of ws/b"
    assert lite.open_blob(lite.image_series(second, "i")[0][3]).read() == b"image"


def test_tokens_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(tmp_path / "d")]
    assert token.main([*data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("export NEPTUNE_API_TOKEN=")
    assert lines[-1] == "export OAUTHLIB_INSECURE_TRANSPORT=1"
    url = ["--url", "https://runs.example"]
    assert token.main(["create", "bob", "--project", "ws/p", "--role", "viewer", *url, *data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "export NEPTUNE_PROJECT=ws/p"
    id = lines[0].split()[2]
    token.main(["list", *data])
    assert f"{id}  bob" in capsys.readouterr().out
    assert token.main(["revoke", id, *data]) == 0
    token.main(["list", *data])
    assert "revoked" in capsys.readouterr().out
    assert token.main(["revoke", "nothing", *data]) == 1
    assert "there is no token nothing" in capsys.readouterr().err


def test_the_server_as_a_process(tmp_path: Path) -> None:
    """It says where it is, follows a folder, logs JSON, and SIGTERM ends it with status 0."""
    log = Log(tmp_path / ".neptune")
    log.write(point("m", 1))
    command = [sys.executable, "-m", "segtrail.server.app", "--data", str(tmp_path / "data"), "--port", "0"]
    command += ["--follow", str(tmp_path / ".neptune"), "--project", "ws/followed", "--log-level", "debug"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    url = process.stdout.readline().split()[-1]
    assert url.startswith("http://127.0.0.1:")
    end = time.monotonic() + 60
    while "segtrail_ingested_total 1" not in requests.get(f"{url}/metrics", timeout=30).text:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert requests.get(f"{url}/healthz", timeout=30).json() == {"status": "ok"}
    assert requests.get(f"{url}/api/backend/v1/clients/config", timeout=30).json()["apiUrl"] == url
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)
    entries = [json.loads(line) for line in errors.splitlines()]
    requested = [entry for entry in entries if entry["event"] == "request"]
    assert requested[0]["operation"] == "getClientConfig"
    assert requested[0]["status"] == 200
    store = Store.open(str(tmp_path / "data"))
    assert store.series(log.container, "m")[1].tolist() == [1]
    store.close()


def test_the_examples_of_deployment_name_options_that_exist() -> None:
    folder = Path(__file__).parents[2] / "docs" / "deploy"
    text = (folder / "segtrail.service").read_text() + (folder / "Containerfile").read_text()
    help_text = subprocess.run(
        [sys.executable, "-m", "segtrail.server.app", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--data", "--require-token", "--host", "--port"):
        assert option in text
        assert option in help_text
