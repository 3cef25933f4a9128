"""The unmodified Neptune client against a server: what it pushes is what it fetches again."""

from __future__ import annotations

import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import neptune
import numpy as np
import pytest
from neptune import management
from neptune.exceptions import NeptuneException
from neptune.types import File

from segtrail.server import nql
from segtrail.server import sync as sync_module
from segtrail.server.store import Store
from tests.server.conftest import DATABASES, Server, new_database
from tests.server.oplog import Log, point

QUIET: dict[str, Any] = {
    "capture_stdout": False,
    "capture_stderr": False,
    "capture_hardware_metrics": False,
    "capture_traceback": False,
    "git_ref": False,
    "source_files": [],
}


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("client")
    url = f"sqlite:///{folder}/segtrail.db"
    if request.param == "postgresql":
        url = new_database(request.getfixturevalue("postgres_url"))
    store = Store.open(url, str(folder / "blobs"))
    with Server(store, require_token=True) as running:
        yield running
    store.close()


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.token()


@pytest.fixture(autouse=True)
def environment(server: Server, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEPTUNE_API_TOKEN", token)
    monkeypatch.setenv("NEPTUNE_PROJECT", "ws/client")
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


Start = Callable[..., neptune.Run]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts runs that are stopped at the end."""
    runs: list[neptune.Run] = []

    def starting(**options: Any) -> neptune.Run:
        runs.append(neptune.init_run(**QUIET | options))
        return runs[-1]

    yield starting
    for run in runs:
        run.stop()


def test_atoms_sets_and_namespaces(start: Start) -> None:
    run = start(name="night run", description="words", tags=["x"])
    now = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
    run["a"] = {"int": 3, "float": 0.1, "text": "grün", "yes": True, "deep": {"er": 1}}
    run["a/time"] = now
    run["sys/tags"].add(["y", "z"])
    run["sys/tags"].remove("x")
    run["sys/group_tags"].add("sweep/1")
    run["gone"] = 1
    del run["gone"]
    run.wait()
    assert run["a"].fetch() == {"int": 3, "float": 0.1, "text": "grün", "yes": True, "deep": {"er": 1}} | {
        "time": run["a/time"].fetch()
    }
    assert run["a/time"].fetch().astimezone(UTC).replace(microsecond=0) == now.replace(microsecond=0)
    assert run["sys/tags"].fetch() == {"y", "z"}
    assert run["sys/name"].fetch() == "night run"
    assert run["sys/failed"].fetch() is False
    assert not run.exists("gone")
    run["a/int"] = 4
    run["copy"] = run["a/int"]
    run.wait()
    assert run["copy"].fetch() == 4


def test_series(start: Start) -> None:
    run = start()
    for i in range(5):
        run["m/loss"].append(1 / (i + 1), step=10 * i)
    run["m/loss"].extend(list(range(2500)), steps=list(range(100, 2600)))
    run["m/log"].extend(["one", "two"])
    run["m/image"].append(File.as_image(np.zeros((4, 4, 3))), name="n", description="d")
    run.wait()
    values = run["m/loss"].fetch_values(progress_bar=False)
    assert len(values) == 2505
    assert values["step"].tolist()[:6] == [0, 10, 20, 30, 40, 100]
    assert run["m/loss"].fetch_last() == 2499
    assert run["m/log"].fetch_values(progress_bar=False)["value"].tolist() == ["one", "two"]
    run["m/image"].download("images", progress_bar=False)
    assert Path("images/0.png").read_bytes().startswith(b"\x89PNG")
    run["m/loss"].append(0.5, step=7)  # behind: refused, the client only prints it
    run.wait()
    assert len(run["m/loss"].fetch_values(progress_bar=False)) == 2505


def test_files_and_file_sets(start: Start) -> None:
    run = start()
    big = os.urandom(6 << 20)  # more than one part
    Path("big.bin").write_bytes(big)
    Path("folder/deep").mkdir(parents=True)
    Path("folder/a.txt").write_text("a")
    Path("folder/deep/b.txt").write_text("bb")
    run["big"].upload("big.bin")
    run["text"].upload(File.from_content("in memory"))
    run["set"].upload_files("folder/**/*.txt")
    run["set2"].upload_files("big.bin")
    run.wait()
    run["big"].download("back.bin", progress_bar=False)
    assert Path("back.bin").read_bytes() == big
    assert run["big"].fetch_extension() == "bin"
    run["text"].download("t.txt", progress_bar=False)
    assert Path("t.txt").read_text() == "in memory"
    assert {entry.name for entry in run["set"].list_fileset_files()} == {"folder"}
    assert {entry.name for entry in run["set"].list_fileset_files("folder")} == {"a.txt", "deep"}
    run["set"].download("set.zip", progress_bar=False)
    with zipfile.ZipFile("set.zip") as archive:
        assert archive.read("folder/deep/b.txt") == b"bb"
        assert "/" in archive.namelist()
    run["set"].delete_files("folder/deep")
    run["set2"].upload_files("folder/a.txt")
    run.wait()
    assert [entry.name for entry in run["set"].list_fileset_files("folder")] == ["a.txt"]
    assert {entry.name for entry in run["set2"].list_fileset_files()} == {"big.bin", "folder"}
    with pytest.raises(NeptuneException):
        run["set"].list_fileset_files("nothing")


def test_artifacts(start: Start) -> None:
    run = start()
    Path("data").mkdir()
    Path("data/a.csv").write_text("1,2")
    run["train"].track_files("data")
    run.wait()
    first = run["train"].fetch_hash()
    assert [file.file_path for file in run["train"].fetch_files_list()] == ["a.csv"]
    Path("more.csv").write_text("3")
    run["train"].track_files("more.csv", destination="data")
    run.wait()
    assert run["train"].fetch_hash() != first
    assert [file.file_path for file in run["train"].fetch_files_list()] == ["a.csv", "data/more.csv"]
    run["again"] = run["train"].fetch()
    run.wait()
    assert run["again"].fetch_hash() == run["train"].fetch_hash()


def test_resuming_and_joining(start: Start) -> None:
    first = start(custom_run_id="joined")
    second = start(custom_run_id="joined")
    first["rank/0"] = 0
    second["rank/1"] = 1
    first.wait()
    second.wait()
    third = start(with_id=first["sys/id"].fetch(), mode="read-only")
    assert third["rank"].fetch() == {"0": 0, "1": 1}
    assert third["sys/custom_run_id"].fetch() == "joined"
    with pytest.raises(NeptuneException):
        start(with_id="CLI-9999")


def test_four_ranks_write_one_series_each_and_one_together(start: Start) -> None:
    ranks = [start(custom_run_id="ddp") for _ in range(4)]

    def work(rank: int) -> None:
        for i in range(30):
            ranks[rank][f"rank/{rank}"].append(i)
            ranks[rank]["together"].append(rank)
        ranks[rank].wait()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ranks[0].sync()
    for rank in range(4):
        assert ranks[0][f"rank/{rank}"].fetch_values(progress_bar=False)["value"].tolist() == list(range(30))
    together = ranks[0]["together"].fetch_values(progress_bar=False)["value"]
    assert sorted(together) == sorted([0, 1, 2, 3] * 30)


def test_models_and_their_stages() -> None:
    with neptune.init_model(key="NET", name="net", project="ws/models") as model:
        model["size"] = 7
        model.wait()
        model_id = model["sys/id"].fetch()
        with pytest.raises(NeptuneException):
            neptune.init_model(key="NET", project="ws/models")
        versions = []
        for _ in range(2):
            with neptune.init_model_version(model=model_id, project="ws/models") as version:
                version["score"] = len(versions)
                versions.append(version["sys/id"].fetch())
        assert versions == [f"{model_id}-1", f"{model_id}-2"]
        table = model.fetch_model_versions_table(progress_bar=False).to_pandas()
        assert sorted(table["sys/id"]) == versions
    with neptune.init_model_version(with_id=versions[0], project="ws/models") as version:
        assert version["sys/stage"].fetch() == "none"
        version.change_stage("staging")
        version.wait()
        assert version["sys/stage"].fetch() == "staging"
    with neptune.init_project("ws/models", mode="read-only") as project:
        assert project.fetch_models_table(progress_bar=False).to_pandas()["size"].tolist() == [7]


def test_tables_queries_trash_and_restore(
    start: Start, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nql, "IDLE_AFTER_MS", 10**9)
    for i in range(4):
        with neptune.init_run(project="ws/table", custom_run_id=f"r{i}", **QUIET) as run:
            run["score"] = i / 10
            run["kind"] = "even" if i % 2 == 0 else "odd"
            run["loss"].append(1.0 - i)
            run["sys/tags"].add(f"t{i}")
    with neptune.init_project("ws/table") as project:
        project["note"] = "kept"
        project.wait()
        assert project["note"].fetch() == "kept"

        def ids(**options: Any) -> list[str]:
            table = project.fetch_runs_table(progress_bar=False, **options).to_pandas()
            return list(table.get("sys/custom_run_id", []))

        assert ids() == ["r3", "r2", "r1", "r0"]
        assert ids(sort_by="score", ascending=True, limit=2) == ["r0", "r1"]
        assert ids(query='(score:float > 0.05) AND (kind:string = "odd")') == ["r3", "r1"]
        assert ids(tag=["t2"]) == ["r2"]
        assert ids(state="active") == ["r3", "r2", "r1", "r0"]
        assert ids(state="inactive") == []
        columns = project.fetch_runs_table(columns=["score", "loss"], progress_bar=False).to_pandas()
        assert set(columns.columns) == {"score", "loss", "sys/creation_time", "sys/id"}
        assert columns["loss"].tolist() == [-2, -1, 0, 1]
        for options in ({"query": "score:float >"}, {"sort_by": "no such column"}):
            with pytest.raises((NeptuneException, ValueError)):
                ids(**options)
        management.trash_objects("ws/table", ["TAB-2"])
        assert ids() == ["r3", "r2", "r0"]
        assert ids(trashed=True) == ["r1"]
        run_id = server.store.runs("ws/table", query="sys/id = 'TAB-2'").runs[0]["id"]
        server.store.restore([run_id])
        assert ids() == ["r3", "r2", "r1", "r0"]
        management.trash_objects("ws/table", ["TAB-2"])
        management.delete_objects_from_trash("ws/table", ["TAB-2"])
        assert server.store.runs("ws/table").total == 3


def test_a_stop_signal_reaches_the_client(
    start: Start, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = threading.Event()
    monkeypatch.setattr(
        "neptune.internal.websockets.websocket_signals_background_job.process_killer.kill_me", killed.set
    )
    run = start()
    run_id = str(run._id)
    end = time.monotonic() + 20
    while time.monotonic() < end and not server.app.state.signals._connections.get(run_id):
        time.sleep(0.02)
    server.app.state.signals.send(run_id, "abort")
    assert killed.wait(20)
    assert server.store.attributes(run_id)["sys/failed"].value is True


def test_what_offline_runs_left_is_synced_once_by_our_sync(
    server: Server, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(mode="offline", custom_run_id="away")
    run["note"] = "from afar"
    run["m"].extend([1.0, 2.0, 3.0])
    run["f"].upload(File.from_content("file"))
    Path("code").mkdir()
    Path("code/a.py").write_text("a")
    run["set"].upload_files("code/*.py")
    run["copy"] = run["note"]
    run.stop()
    before = {path: path.read_bytes() for path in Path(".neptune").rglob("*") if path.is_file()}
    # one more where the client knows the script that it runs in
    for expected in (r"^(9|10) new operations$", r"^0 new operations$"):
        assert sync_module.main([]) == 0
        assert re.search(expected, capsys.readouterr().out, re.MULTILINE)
    assert {path: path.read_bytes() for path in Path(".neptune").rglob("*") if path.is_file()} == before
    found = server.store.runs("ws/client", query="note = 'from afar'").runs
    assert len(found) == 1
    run_id = found[0]["id"]
    assert server.store.series(run_id, "m")[1].tolist() == [1, 2, 3]
    assert server.store.open_file(run_id, "f")[0].read() == b"file"
    assert found[0]["attributes"]["copy"]["value"] == "from afar"
    assert set(server.store.file_set(run_id, "set")) == {"code/a.py"}


def test_the_clients_own_sync_and_status(server: Server) -> None:
    from click.testing import CliRunner
    from neptune.cli.commands import status, sync

    log = Log(Path(".neptune"), "offline")
    log.write(point("m", 1), point("m", 2))
    (log.path / "last_put_version").write_text("2")
    (log.path / "last_ack_version").write_text("0")
    assert "Unsynchronized offline objects" in CliRunner().invoke(status, ["--path", "."]).output
    result = CliRunner().invoke(sync, ["--path", ".", "-p", "ws/clisync"], catch_exceptions=False)
    assert result.exit_code == 0
    runs = server.store.runs("ws/clisync").runs
    assert [run["attributes"]["m"]["count"] for run in runs] == [2]


def test_sync_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", "nonsense")
    assert sync_module.main([]) == 1
    monkeypatch.delenv("NEPTUNE_API_TOKEN")
    assert sync_module.main([]) == 2
    Log(Path(".neptune")).write(point("m", 1))
    assert sync_module.main(["--data", str(tmp_path / "local")]) == 0
    assert "1 new operations" in capsys.readouterr().out


def test_a_revoked_token_is_refused_by_the_client(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    token = server.token("eve")
    server.app.state.auth.revoke(server.app.state.auth.tokens()[-1]["id"])
    with pytest.raises(NeptuneException):
        neptune.init_run(api_token=token, **QUIET)


def test_debug_mode_and_git_facts(start: Start) -> None:
    start(mode="debug")["a"] = 1
    run = start(mode="sync")
    run["a"] = 1
    assert run["a"].fetch() == 1
    with pytest.raises(NeptuneException):
        run["a"].append("text")  # a type conflict is raised at once in sync mode
