"""The server under load, against the MLflow tracking server on SQLite, in one run.

``python benchmarks/server.py`` starts both servers, each one process with its SQLite database on disk, and
measures with each one's own client the points logged per second: by 1, 4 and 16 client processes in batches
of 1,000, and by 1 and 4 point by point, asynchronously. Then listing 10,000 runs with 50 columns and a
series of 1,000,000 points as 2,000, each one HTTP request; and offline ingest against MLflow's client writing
to SQLite without a server, the nearest that it has. Rounds alternate; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
PROJECT = "bench/load"
SERIES = [f"metric/{i}" for i in range(10)]
COLUMNS = [f"parameters/p{i}" for i in range(25)] + [f"val/m{i}" for i in range(25)]
FORKS = multiprocessing.get_context("forkserver")


@contextmanager
def server(command: Sequence[str], url: str, log: Path) -> Iterator[None]:
    """Runs a server until the block ends."""
    # MLflow's default of 15 connections to its database fails sixteen clients.
    pool = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "40", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "40"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **pool})
    try:
        end = time.monotonic() + 180
        while True:
            try:
                requests.get(url, timeout=2)
                break
            except requests.RequestException:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server did not start; see {log}") from None
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# ------------------------------------------------------------------ writers


def write_segtrail(url: str, points: int, batch: int, barrier: Any, done: Any) -> None:
    """Logs `points` to ten series with the Neptune client."""
    import neptune

    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
    os.chdir(tempfile.mkdtemp(dir=os.environ["BENCH_FOLDER"]))
    run = neptune.init_run(
        project=PROJECT,
        api_token=os.environ["BENCH_TOKEN"],
        capture_stdout=False,
        capture_stderr=False,
        capture_hardware_metrics=False,
        capture_traceback=False,
        git_ref=False,
        source_files=[],
    )
    run.wait()
    barrier.wait()
    for call in range(points // batch):
        name, step = SERIES[call % len(SERIES)], call // len(SERIES) * batch
        if batch == 1:
            run[name].append(0.5, step=step)
        else:
            run[name].extend([0.5] * batch, steps=list(range(step, step + batch)))
    run.wait()
    done.wait()
    run.stop()


def write_mlflow(url: str, points: int, batch: int, barrier: Any, done: Any) -> None:
    """Logs `points` to ten series with MLflow's client."""
    import mlflow
    from mlflow.entities import Metric

    logging.disable(logging.WARNING)
    mlflow.set_tracking_uri(url)
    client = mlflow.MlflowClient(url)
    experiment = mlflow.set_experiment(PROJECT)
    run_id = client.create_run(experiment.experiment_id).info.run_id
    barrier.wait()
    waiting = []
    now = int(time.time() * 1000)
    for call in range(points // batch):
        name, step = SERIES[call % len(SERIES)], call // len(SERIES) * batch
        if batch == 1:
            waiting.append(client.log_metric(run_id, name, 0.5, now, step, synchronous=False))
        else:
            client.log_batch(run_id, [Metric(name, 0.5, now, i) for i in range(step, step + batch)])
    for operation in waiting:
        operation.wait()
    done.wait()


def load(writer: Callable[..., None], url: str, clients: int, total: int, batch: int) -> float:
    """Returns the points per second that `clients` processes bring in together."""
    each = total // clients // batch * batch
    barrier, done = FORKS.Barrier(clients + 1), FORKS.Barrier(clients + 1)
    processes = [FORKS.Process(target=writer, args=(url, each, batch, barrier, done)) for _ in range(clients)]
    for process in processes:
        process.start()
    barrier.wait(600)
    start = time.perf_counter()
    done.wait(600)
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a client ended with {process.exitcode}")
    return each * clients / seconds


# ------------------------------------------------------------------ offline


def offline_segtrail(folder: Path, points: int) -> float:
    """Returns the operations per second taken from an operation log."""
    from segtrail.server.ingest import Follower
    from segtrail.server.store import Store

    run = str(uuid.uuid4())
    directory = folder / f"log-{run}" / "offline" / f"run__{run}__4194305__abcdefgh"
    directory.mkdir(parents=True)
    (directory / "metadata.json").write_text(json.dumps({"mode": "offline", "containerId": run}))
    with (directory / "data-1.log").open("w") as log:
        for i in range(points):
            value = {"value": 0.5, "step": i // len(SERIES), "ts": 1.7e9 + i}
            obj = {"type": "LogFloats", "path": SERIES[i % 10].split("/"), "values": [value]}
            log.write(json.dumps({"obj": obj, "version": i + 1, "at": 1.7e9}) + "\n")
    store = Store.open(str(folder / f"store-{run}"))
    start = time.perf_counter()
    count = Follower(store, [directory.parent]).poll()
    seconds = time.perf_counter() - start
    store.close()
    assert count == points
    return points / seconds


def offline_mlflow(folder: Path, points: int) -> float:
    """Returns the points per second of MLflow's client writing batches straight into SQLite."""
    import mlflow
    from mlflow.entities import Metric

    client = mlflow.MlflowClient(f"sqlite:///{folder}/offline-{uuid.uuid4().hex}.db")
    run_id = client.create_run(client.create_experiment("offline")).info.run_id
    start = time.perf_counter()
    for first in range(0, points, 1000):
        steps = range(first // 10, first // 10 + 100)
        client.log_batch(run_id, [Metric(name, 0.5, 1, step) for step in steps for name in SERIES])
    return points / (time.perf_counter() - start)


# ------------------------------------------------------------------ reading


def fill_segtrail(data: Path, runs: int, points: int) -> str:
    """Writes runs with 50 columns and one long series. Returns the id of the run that has it."""
    from segtrail.server import schema
    from segtrail.server.operations import Attribute, parse
    from segtrail.server.rows import to_row
    from segtrail.server.store import Store

    store = Store.open(str(data))
    store.ensure_project("bench/table")
    ids = store._intern(COLUMNS)
    with store.write() as connection:
        project = store.project_row(connection, "bench/table").container
        common = {"kind": "run", "project": project, "modified": 1, "pinged": 1}
        rows = [
            {"pk": 10**6 + i, "id": str(uuid.uuid4()), "sys_id": f"T-{i}", "created": i, **common}
            for i in range(runs)
        ]
        connection.execute(schema.containers.insert(), rows)
        for i in range(runs):
            values = [Attribute(c, "string", f"v{i % 7}") for c in COLUMNS[:25]]
            values += [
                Attribute(c, "floatSeries", i / 7, None, 1, 0.0, i / 7, i / 7, i / 7) for c in COLUMNS[25:]
            ]
            connection.execute(
                schema.attributes.insert(), [to_row(10**6 + i, ids[v.path], v) for v in values]
            )
    run = store.create_run("bench/table")
    for first in range(0, points, 10_000):
        entries = [
            {"value": (i * 7919 % 1000) / 1000, "step": i, "timestampMilliseconds": i}
            for i in range(first, first + 10_000)
        ]
        store.apply(run, [parse({"path": "long", "logFloats": {"entries": entries}})])
    store.close()
    return run


def fill_mlflow(database: Path, runs: int, points: int) -> tuple[str, str]:
    """The same rows for MLflow, put straight into its tables. Returns experiment and run."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{database}")
    experiment = client.create_experiment("table")
    long = client.create_run(experiment).info.run_id
    with sqlite3.connect(database) as connection:
        ids = [uuid.uuid4().hex for _ in range(runs)]
        connection.executemany(
            "INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, artifact_uri,"
            " experiment_id, source_type, user_id)"
            " VALUES (?, ?, 'FINISHED', ?, 'active', '', ?, 'LOCAL', 'u')",
            [(id, f"T-{i}", i, experiment) for i, id in enumerate(ids)],
        )
        for i, id in enumerate(ids):
            connection.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
                [(c, f"v{i % 7}", id) for c in COLUMNS[:25]],
            )
            latest = [(c, i / 7, 0, 0, 0, id) for c in COLUMNS[25:]]
            names = "(key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)"
            connection.executemany(f"INSERT INTO latest_metrics {names}", latest)
            connection.executemany(f"INSERT INTO metrics {names}", latest)
        connection.executemany(
            f"INSERT INTO metrics {names}",
            (("long", (i * 7919 % 1000) / 1000, i, i, 0, long) for i in range(points)),
        )
        connection.execute(
            f"INSERT INTO latest_metrics {names}", ("long", 0.5, points - 1, points - 1, 0, long)
        )
    return experiment, long


def timed(ask: Callable[[], requests.Response], check: Callable[[Any], int], expected: int) -> float:
    """Returns the seconds of one request, its answer read."""
    start = time.perf_counter()
    answer = ask()
    answer.raise_for_status()
    found = check(answer)
    seconds = time.perf_counter() - start
    assert found >= expected, (found, answer.text[:500])
    return seconds


# ------------------------------------------------------------------ all


def alternate(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """Runs the measures in turn. Returns the median of each."""
    results = [[measure() for measure in measures] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


def show(name: str, ours: float, theirs: float, unit: str) -> None:
    """Prints one row; the ratio says how many times faster segtrail is."""
    ratio = theirs / ours if unit == "ms" else ours / theirs
    print(f"{name:<46} {ours:>11,.0f} {theirs:>11,.0f} {unit:<5} {ratio:>7.1f}x", flush=True)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and inexact, to see that it runs")
    quick = parser.parse_args().quick
    rounds, total = (1, 16_000) if quick else (3, 16_000)
    runs, points, logged = (300, 20_000, 5_000) if quick else (10_000, 1_000_000, 100_000)
    with tempfile.TemporaryDirectory(prefix="segtrail-bench-") as folder:
        measure(Path(folder), rounds, total, runs, points, logged)


def measure(folder: Path, rounds: int, total: int, runs: int, points: int, logged: int) -> None:
    """Starts both servers on new stores in `folder` and prints a row for each measurement."""
    os.environ["BENCH_FOLDER"] = str(folder)
    data, database = folder / "segtrail", folder / "mlflow.db"
    long = fill_segtrail(data, runs, points)
    experiment, mlflow_long = fill_mlflow(database, runs, points)
    from segtrail.server.auth import Auth, api_token
    from segtrail.server.store import Store

    store = Store.open(str(data))
    ours, theirs = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    os.environ["BENCH_TOKEN"] = api_token(ours, Auth(store, required=True).create_token("bench", "owner")[1])
    with store.read() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
    store.close()
    FORKS.set_forkserver_preload(["neptune", "mlflow"])
    segtrail = [sys.executable, "-m", "segtrail.server.app", "--data", str(data), "--log-level", "error"]
    mlflow = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    mlflow += [
        "--backend-store-uri",
        f"sqlite:///{database}",
        "--default-artifact-root",
        str(folder / "files"),
    ]
    print(f"{'':<46} {'segtrail':>11} {'MLflow':>11} {'':<5} {'ratio':>8}")
    with (
        server([*segtrail, "--port", ours.rpartition(":")[2]], f"{ours}/healthz", folder / "ours.log"),
        server([*mlflow, "--port", theirs.rpartition(":")[2]], f"{theirs}/health", folder / "theirs.log"),
    ):
        for clients, batch in ((1, 1000), (4, 1000), (16, 1000), (1, 1), (4, 1)):
            amount = total if batch > 1 else total // 16
            result = alternate(
                rounds,
                lambda n=clients, a=amount, b=batch: load(write_segtrail, ours, n, a, b),  # type: ignore[misc]
                lambda n=clients, a=amount, b=batch: load(write_mlflow, theirs, n, a, b),  # type: ignore[misc]
            )
            show(f"points/s over HTTP, {clients} clients, {batch:,} a call", *result, "1/s")
        read(ours, theirs, experiment, long, mlflow_long, rounds, runs, points)
    result = alternate(
        rounds, lambda: offline_segtrail(folder, logged), lambda: offline_mlflow(folder, logged // 5)
    )
    show("offline points/s into SQLite, no server", *result, "1/s")


def read(
    ours: str, theirs: str, experiment: str, long: str, mlflow_long: str, rounds: int, runs: int, points: int
) -> None:
    """Measures the two kinds of reading."""
    session = requests.Session()
    token = session.get(
        f"{ours}/api/backend/v1/authorization/oauth-token",
        headers={"X-Neptune-Api-Token": os.environ["BENCH_TOKEN"]},
        timeout=60,
    ).json()["accessToken"]
    session.headers["Authorization"] = f"Bearer {token}"
    plain = requests.Session()
    search = {
        "query": {"query": "(`sys/trashed`:bool = false)"},
        "pagination": {"limit": 10_000, "offset": 0},
        "sorting": {"dir": "descending", "sortBy": {"name": COLUMNS[-1], "type": "floatSeries"}},
        "attributeFilters": [{"path": column} for column in COLUMNS],
    }
    wanted = {
        "experiment_ids": [experiment],
        "max_results": 10_000,
        "order_by": [f"metrics.`{COLUMNS[-1]}` DESC"],
    }

    def list_ours() -> float:
        return timed(
            lambda: session.post(
                f"{ours}/api/leaderboard/v1/leaderboard/entries/search",
                params={"projectIdentifier": "bench/table", "type": "run"},
                json=search,
                timeout=600,
            ),
            lambda answer: sum(len(entry["attributes"]) for entry in answer.json()["entries"]),
            runs * 49,
        )

    def list_theirs() -> float:
        return timed(
            lambda: plain.post(f"{theirs}/api/2.0/mlflow/runs/search", json=wanted, timeout=600),
            lambda answer: sum(
                len(run["data"].get("metrics", [])) + len(run["data"].get("params", []))
                for run in answer.json()["runs"]
            ),
            runs * 49,
        )

    result = alternate(rounds, list_ours, list_theirs)
    show(f"list {runs:,} runs x 50 columns", *(seconds * 1000 for seconds in result), "ms")
    if requests.post(f"{ours}/ui/api/series", json={}, timeout=60).status_code == 404:
        raise SystemExit("the pages are not built: run scripts/build_ui.py")

    def view_ours() -> float:
        body = {"runs": [long], "path": "long", "buckets": 2000}
        return timed(
            lambda: session.post(f"{ours}/ui/api/series", json=body, timeout=600),
            lambda answer: len(answer.content),
            2000 * 4,
        )

    def view_theirs() -> float:
        url = f"{theirs}/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
        query = {"run_ids": mlflow_long, "metric_key": "long", "max_results": 2000}
        return timed(
            lambda: plain.get(url, params=query, timeout=600), lambda answer: len(answer.content), 2000 * 4
        )

    result = alternate(2 * rounds + 1, view_ours, view_theirs)
    show(f"{points:,} points as 2,000", *(seconds * 1000 for seconds in result), "ms")


if __name__ == "__main__":
    main()
