"""A PostgreSQL cluster of the tests' own: on a free port, as an unprivileged user, gone at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

INSTALL = Path(__file__).parents[2] / "scripts" / "install_postgres.sh"


def binary(name: str) -> str:
    """Finds a program of PostgreSQL, also where Debian hides it."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        raise RuntimeError(f"{name} is missing: run scripts/install_postgres.sh")
    return str(Path(found).resolve())


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Starts a cluster. Yields the URL of its server, without a database."""
    if os.geteuid() == 0:
        subprocess.run(["sh", str(INSTALL)], check=True)
    # The server refuses to run as root.
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="segtrail-pg-"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    data = folder / "data"
    data.mkdir(mode=0o700)
    if user:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(data, "postgres", "postgres")
    run = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
    initialize = [binary("initdb"), "-D", str(data), "-U", "segtrail", "-A", "trust", "-N", "-E", "UTF8"]
    subprocess.run([*initialize, "--locale=C"], check=True, **run)
    settings = ["fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=100"]
    options = [part for setting in settings for part in ("-c", setting)]
    server = subprocess.Popen(
        [
            binary("postgres"),
            "-D",
            str(data),
            "-p",
            str(port),
            "-h",
            "127.0.0.1",
            "-k",
            str(folder),
            *options,
        ],
        **run,
    )
    try:
        url = f"postgresql://segtrail@127.0.0.1:{port}"
        _wait(url, server)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"{url}/postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)
