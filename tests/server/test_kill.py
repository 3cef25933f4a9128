"""SIGKILL at random points, of clients and of the server: every operation arrives exactly once."""

from __future__ import annotations

import multiprocessing
import random
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from segtrail.server.app import main as serve
from segtrail.server.auth import Auth, api_token
from segtrail.server.store import Store
from segtrail.server.sync import main as segtrail_sync
from tests.server.conftest import Server
from tests.server.scripts import log_forever, log_until_told

# One process imports all that is needed, once; the programs are forked from it.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["segtrail.server.app", "tests.server.scripts.log_forever", "tests.server.scripts.log_until_told"]
)


def spawn(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    process = FORKS.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def neptune_sync() -> None:
    """The client's own sync of what is in the working directory."""
    from click.testing import CliRunner
    from neptune.cli.commands import sync

    result = CliRunner().invoke(sync, ["--path", "."], catch_exceptions=False)
    assert result.exit_code == 0


def our_sync() -> None:
    assert segtrail_sync([]) == 0


@pytest.mark.parametrize("sync", [neptune_sync, our_sync])
def test_a_client_killed_at_a_random_point_and_synced(
    sync: Callable[[], None], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten deaths for each way to sync; what was acknowledged is in the store, once and in order."""
    folder = tmp_path / "work"
    folder.mkdir()
    chance = random.Random(sync.__name__)
    with Server(store) as server:
        token = server.token()
        for attempt in range(0, 10, 2):
            names = [f"run-{attempt}", f"run-{attempt + 1}"]
            children = [spawn(log_forever.main, str(folder), token, name) for name in names]
            for child, name in zip(children, names, strict=True):
                wait_for(folder / f"{name}.acknowledged", child)
            for child in children:
                time.sleep(chance.uniform(0.02, 0.3))
                child.kill()
                child.join()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("NEPTUNE_API_TOKEN", token)
        monkeypatch.setenv("NEPTUNE_PROJECT", "ws/killed")
        monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
        sync()
    runs = store.runs("ws/killed", columns=["sys/custom_run_id"]).runs
    assert len(runs) == 10
    for run in runs:
        name = run["attributes"]["sys/custom_run_id"]["value"]
        acknowledged = int("0" + (folder / f"{name}.acknowledged").read_text().strip().rpartition("\n")[2])
        found = store.attributes(run["id"])
        values = store.series(run["id"], "m/value")[1].tolist() if "m/value" in found else []
        texts = store.series(run["id"], "m/text")[1] if "m/text" in found else []
        assert values == list(range(len(values)))
        assert texts == [f"line {i}" for i in range(len(texts))]
        assert min(len(values), len(texts)) >= acknowledged


def test_the_server_killed_at_random_points_under_four_writers(
    open_store: Callable[[], Store], database_url: str, tmp_path: Path
) -> None:
    """Twenty deaths; after the last start the clients catch up by themselves."""
    folder = tmp_path / "work"
    folder.mkdir()
    data = str(tmp_path / "store")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    store = open_store()
    key = Auth(store, required=True).create_token("writer", "owner")[1]
    store.close()
    token = api_token(f"http://127.0.0.1:{port}", key)
    arguments = ["--data", data, "--database", database_url, "--port", str(port)]
    arguments += ["--require-token", "--log-level", "error"]
    chance = random.Random(3)
    server = spawn(serve, arguments)
    wait_for_port(port, server)
    names = [f"writer-{i}" for i in range(4)]
    writers = [spawn(log_until_told.main, str(folder), token, name) for name in names]
    for writer, name in zip(writers, names, strict=True):
        wait_for(folder / f"{name}.started", writer)
    for _ in range(20):
        time.sleep(chance.uniform(0.05, 0.35))
        server.kill()
        server.join()
        server = spawn(serve, arguments)
        wait_for_port(port, server)
    (folder / "stop").touch()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    server.kill()
    server.join()
    store = open_store()
    (run,) = store.runs("ws/killed", columns=[]).runs
    together = store.series(run["id"], "together")[1]
    for name in names:
        count = int((folder / f"{name}.count").read_text())
        assert count > 20
        assert store.series(run["id"], f"{name}/value")[1].tolist() == list(range(count))
        expected = [f"{name} {i}" for i in range(count)]
        assert store.series(run["id"], f"{name}/text")[1] == expected
        assert [text for text in together if text.startswith(f"{name} ")] == expected


def wait_for(path: Path, process: BaseProcess) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert process.is_alive(), f"process ended with {process.exitcode}"
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for_port(port: int, process: BaseProcess) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.is_alive(), f"the server ended with {process.exitcode}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the server did not start")
