"""One server and one Chromium for all browser tests of a worker; every page is watched for trouble."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from segtrail.server.ingest import Follower
from segtrail.server.store import Store
from segtrail.ui.app import create_app
from segtrail.ui.routes import BUILD_HINT, vendor_is_built
from tests.ui.offline import training_run

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=20_000)  # machines that test are busy
READY = 'body:not([data-ready=""])'


class Site:
    """The UI over the runs of a folder, on a free port, in a thread."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.store = Store.open(str(store))
        self.follower = Follower(self.store, [folder / ".neptune"])
        self.follower.poll()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(create_app(self.store), log_level="error"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def address(self, **state: object) -> str:
        return f"{self.url}/?{urlencode(state)}"

    def ids(self) -> dict[str, str]:
        """Run ids by name."""
        page = self.store.runs(columns=["sys/name"])
        return {run["attributes"].get("sys/name", {}).get("value", ""): run["id"] for run in page.runs}

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.store.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), "no Chromium: run scripts/install_browser.sh"
    assert vendor_is_built(), BUILD_HINT
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield instance
        instance.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh browser profile. A console error, an exception or a foreign request fails the test."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    trouble: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # That the browser refused to run an uploaded page's script is what is wanted.
        if message.type == "error" and not message.text.startswith("Blocked script execution"):
            trouble.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: trouble.append(f"exception: {error}"))
    page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            trouble.append(f"foreign request: {request.url}")
            if not request.url.startswith(("http://127.0.0.1:", "blob:", "data:"))
            else None
        ),
    )
    yield page
    context.close()
    assert not trouble, "\n".join(trouble)


def visit(page: Page, address: str) -> None:
    """Opens an address and waits until the page has drawn itself."""
    page.goto(address)
    page.wait_for_selector(READY)


def settle(page: Page) -> None:
    page.wait_for_selector(READY)


def shared_once(tmp_path_factory: pytest.TempPathFactory, worker: str, name: str, make) -> Path:
    """A folder that one of the workers makes and all of them use."""
    if worker == "master":
        folder = tmp_path_factory.mktemp(name)
        make(folder)
        return folder
    folder = tmp_path_factory.getbasetemp().parent / name
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 500
        while not (folder / "made").exists():
            assert time.monotonic() < deadline, f"the other worker did not make {name}"
            time.sleep(0.2)
        return folder
    make(folder)
    (folder / "made").touch()
    return folder


def _train(folder: Path) -> None:
    """Two short runs of train.py."""
    for loss in ("cross_entropy", "dice"):
        result = subprocess.run(
            [
                sys.executable,
                str(ROOT / "train.py"),
                "dataset=shapes",
                "dataset.num_samples=16",
                "dataset.size=64",
                "model=unet_original",
                "model.base_channels=8",
                f"loss={loss}",
                "optimizer=adamw",
                "trainer=cpu",
                "trainer.max_epochs=2",
                "loader.num_workers=0",
                "loader.batch_size=8",
                "test_after_fit=false",
                "callbacks.weight_histograms.figure=false",
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="package")
def real_site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Site]:
    """The UI over runs that train.py made."""
    folder = shared_once(tmp_path_factory, worker_id, "real_runs", _train)
    site = Site(folder, tmp_path_factory.mktemp("store"))
    yield site
    site.close()


NAMES = ("good", "fair", "poor")


def _fake(folder: Path) -> None:
    for index, quality in enumerate((0.9, 0.75, 0.5)):
        run = training_run(
            folder,
            NAMES[index],
            quality=quality,
            seed=index,
            samples=5,
            model="unet" if index else "deeplab",
            loss="dice" if index == 2 else "lovasz",
            created=1.76e9 + 3600 * index,
            tags=("baseline",) if index == 0 else (),
        )
        run.close()


@pytest.fixture
def site(page: Page, tmp_path: Path) -> Iterator[Site]:
    """The UI over three small written runs, which the test may change."""
    _fake(tmp_path)
    site = Site(tmp_path, tmp_path / "store")
    yield site
    page.goto("about:blank")  # before the server goes away under it
    site.close()


@pytest.fixture(scope="package")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same for tests that only look."""
    folder = tmp_path_factory.mktemp("runs")
    _fake(folder)
    site = Site(folder, folder / "store")
    yield site
    site.close()
