"""`segtrail ui` and `segtrail report` from the command line's side, and roles on a server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from segtrail.server.app import create_app as create_server
from segtrail.server.auth import Auth
from segtrail.server.ingest import Follower
from segtrail.server.store import Store
from segtrail.ui import app, report, routes
from tests.ui.offline import OfflineRun, training_run


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_serves_a_folder_and_stops(tmp_path: Path) -> None:
    OfflineRun(tmp_path, "one").close()
    code = "import sys; from segtrail.ui.app import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert process.stdout is not None
    url = re.search(r"http://\S+", process.stdout.readline()).group()
    with urllib.request.urlopen(url) as reply:
        assert b"segtrail" in reply.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    process.stdout.close()


def test_reading_stops_between_batches_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segtrail.server.oplog.READ_BYTES", 10_000)
    run = OfflineRun(tmp_path, "one")
    for start in range(0, 2000, 20):
        run.floats("train/loss", range(20), range(start, start + 20))
    run.close()
    store = Store.open(str(tmp_path / "store"))
    follower = Follower(store, [tmp_path])
    ingest = store.ingest

    def once(*batch):
        follower.stop()
        return ingest(*batch)

    monkeypatch.setattr(store, "ingest", once)
    count = follower.poll()
    assert 0 < count < run.version
    assert follower.poll() == 0
    monkeypatch.undo()
    assert Follower(store, [tmp_path]).poll() == run.version - count
    (found,) = store.runs().runs
    assert store.attribute(found["id"], "train/loss").count == 2000
    store.close()


def test_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.main([str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    monkeypatch.setattr(routes, "STATIC", tmp_path)
    assert app.main([]) == 1
    assert "scripts/build_ui.py" in capsys.readouterr().err


def test_cache_forgets_deleted_runs(tmp_path: Path) -> None:
    for name in ("stays", "goes"):
        OfflineRun(tmp_path, name).close()
    folders = [app.neptune_folder(tmp_path)]
    assert folders == [tmp_path / ".neptune"]
    store = app.cached_store(folders)
    Follower(store, folders).poll()
    assert store.runs().total == 2
    store.close()
    gone = next(d for d in folders[0].glob("offline/*") if "goes" in (d / "data-1.log").read_text())
    shutil.rmtree(gone)
    store = app.cached_store(folders)
    Follower(store, folders).poll()
    assert store.runs().total == 1
    store.close()


def test_report_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for seed in range(2):
        training_run(tmp_path, f"run{seed}", seed=seed, samples=2, epochs=1).close()
    output = tmp_path / "out.html"
    assert report.main(["run0", "run1", "-o", str(output), "--dir", str(tmp_path)]) == 0
    assert output.read_text().startswith("<!doctype html>")
    assert report.main(["absent", "--dir", str(tmp_path)]) == 1
    assert "there is no run absent" in capsys.readouterr().err


def test_server_shows_each_user_only_their_projects(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    auth = Auth(store, required=True)
    runs = {}
    for project in ("team/open", "team/closed"):
        store.ensure_project(project)
        runs[project] = store.create_run(project)
    _, key = auth.create_token("viewer", "viewer", "team/open")
    pages = app.create_app(store, hosts=["*"], auth=auth)
    client = TestClient(create_server(store, require_token=True, ui=pages), base_url="http://server")
    assert client.get("/ui/api/projects").status_code == 401
    assert client.post("/login", data={"token": key}).status_code == 200
    assert client.get("/ui/api/projects").json() == {"projects": ["team/open"]}

    def ask(project: str) -> list[int]:
        run = runs[project]
        return [
            client.get("/ui/api/runs", params={"project": project}).status_code,
            client.get("/ui/api/attributes", params={"run": run}).status_code,
            client.get("/ui/file", params={"run": run, "path": "x"}).status_code,
            client.post("/ui/api/series", json={"runs": [run], "path": "x"}).status_code,
            client.post("/ui/api/labels", json={"cells": [[run, "x", 0]], "size": 9}).status_code,
            client.post("/ui/api/tags", json={"run": run, "tags": ["t"]}).status_code,
        ]

    assert ask("team/open") == [200, 200, 404, 200, 200, 403]
    assert ask("team/closed") == [403] * 6
    store.close()
