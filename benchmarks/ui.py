"""The comparison UI in headless Chromium beside MLflow's UI and TensorBoard, in one run.

``python benchmarks/ui.py`` logs the same runs to all three (RUNS runs of metrics, images), and to segtrail a
hundred times as many runs and points on top. Every page load is a fresh browser; wall time ends when the page
shows its data, CPU is that of the whole browser and server process trees until then. Tools take turns.
``--quick`` is a smoke test with little data and one repeat.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RUNS, METRICS, POINTS, SAMPLES, STEPS = 10, 20, 100, 8, 10
CLASSES = 8


@dataclass
class Scale:
    """How much segtrail holds."""

    runs: int = 1000
    long_runs: int = 50
    points: int = 100_000
    repeats: int = 3


def metric_values(run: int, metric: int, points: int) -> np.ndarray:
    rng = np.random.default_rng(1000 * run + metric)
    return 1 - np.exp(-np.linspace(0, 3, points)) + rng.normal(0, 0.05, points)


def label_map(run: int, sample: int, step: int, size: int = 256) -> np.ndarray:
    """Blobs of classes that settle with the steps."""
    rng = np.random.default_rng(sample)
    y, x = np.mgrid[:size, :size]
    centers = rng.uniform(0, size, (CLASSES, 2)) + np.random.default_rng([run, sample, step]).normal(
        0, 30 / (step + 1), (CLASSES, 2)
    )
    distance = (y[None] - centers[:, 0, None, None]) ** 2 + (x[None] - centers[:, 1, None, None]) ** 2
    return distance.argmin(axis=0).astype(np.uint8)


# ---------------------------------------------------------------- logging


def log_segtrail(folder: Path, scale: Scale) -> dict[str, list[str]]:
    """Fills a store; returns the ids of the short, the long and all runs."""
    from segtrail.server.operations import parse
    from segtrail.server.store import Store
    from segtrail.tracking.label_map import encode_image, encode_label_map

    store = Store.open(str(folder))
    store.ensure_project("bench/ui")
    palette = (np.random.default_rng(0).uniform(40, 220, (CLASSES, 3))).astype(np.uint8)
    ids = []

    def floats(path: str, values: np.ndarray) -> dict:
        entries = [
            {"value": float(v), "step": i, "timestampMilliseconds": 10**12 + 1000 * i}
            for i, v in enumerate(values)
        ]
        return {"path": path, "logFloats": {"entries": entries}}

    for run in range(scale.runs):
        run_id = store.create_run("bench/ui")
        ids.append(run_id)
        items: list[dict] = [{"path": "sys/name", "assignString": {"value": f"run {run:04d}"}}]
        for key in range(20):
            items.append(
                {
                    "path": f"parameters/group{key % 4}/key{key}",
                    "assignFloat": {"value": (run * 31 % (key + 2)) / 10},
                }
            )
        count = METRICS if run < RUNS else 4
        for metric in range(count):
            name = "val/mIoU" if metric == 0 else f"val/metric{metric:02d}"
            items.append(floats(name, metric_values(run, metric, POINTS if run < RUNS else 10)))
        store.apply(run_id, [parse(item) for item in items])
    long_runs = ids[RUNS : RUNS + scale.long_runs] or ids
    for run, run_id in enumerate(long_runs):
        values = metric_values(run, 99, scale.points)
        values[:: max(scale.points // 7, 1)] += 3  # spikes
        store.apply(run_id, [parse(floats("train/loss", values))])
    for run_id, run in zip(ids[:4], range(4), strict=False):
        operations = []
        for sample in range(SAMPLES):
            truth = label_map(0, sample, 10**6)
            for name, data in (
                ("image", encode_image(palette[truth])),
                ("target", encode_label_map(truth, palette, 255)),
            ):
                key, size = store.put_file([data])
                operations.append(
                    parse(
                        {
                            "path": f"samples/s{sample}/{name}",
                            "setFile": {"file": {"blob": key, "size": size, "ext": "png"}},
                        }
                    )
                )
            for step in range(STEPS):
                data = encode_label_map(label_map(run, sample, step), palette, 255)
                entry = {
                    "value": {"data": base64.b64encode(data).decode()},
                    "step": step,
                    "timestampMilliseconds": 10**12,
                }
                operations.append(
                    parse({"path": f"samples/s{sample}/prediction", "logImages": {"entries": [entry]}})
                )
        store.apply(run_id, operations)
    store.close()
    return {"short": ids[:RUNS], "long": long_runs, "all": ids}


def picture(run: int, sample: int, step: int) -> np.ndarray:
    """What the peers get: the overlay itself, for they cannot show a label map."""
    palette = (np.random.default_rng(0).uniform(40, 220, (CLASSES, 3))).astype(np.uint8)
    return palette[label_map(run, sample, step)]


def log_mlflow(folder: Path) -> None:
    import mlflow
    from mlflow.entities import Metric, Param

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("ui", artifact_location=str(folder / "artifacts"))
    for run in range(RUNS):
        created = client.create_run(experiment, run_name=f"run {run:04d}")
        metrics = [
            Metric("val_mIoU" if m == 0 else f"val_metric{m:02d}", float(v), 10**12 + 1000 * i, i)
            for m in range(METRICS)
            for i, v in enumerate(metric_values(run, m, POINTS))
        ]
        params = [Param(f"key{k}", str((run * 31 % (k + 2)) / 10)) for k in range(20)]
        for first in range(0, len(metrics), 1000):
            client.log_batch(
                created.info.run_id,
                metrics=metrics[first : first + 1000],
                params=params if first == 0 else [],
            )
        client.set_terminated(created.info.run_id)
    # Its page of charts puts images below those of metrics: in an experiment of their own they come first.
    experiment = client.create_experiment("samples", artifact_location=str(folder / "artifacts"))
    for run in range(4):
        created = client.create_run(experiment, run_name=f"run {run:04d}")
        for sample in range(SAMPLES):
            for step in range(STEPS):
                client.log_image(
                    created.info.run_id,
                    Image.fromarray(picture(run, sample, step)),
                    key=f"s{sample}",
                    step=step,
                )
        client.set_terminated(created.info.run_id)


def log_tensorboard(folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for run in range(RUNS):
        with SummaryWriter(str(folder / f"run {run:04d}")) as writer:
            for m in range(METRICS):
                name = "val/mIoU" if m == 0 else f"val/metric{m:02d}"
                for i, v in enumerate(metric_values(run, m, POINTS)):
                    writer.add_scalar(name, v, i)
            for sample in range(SAMPLES if run < 4 else 0):
                for step in range(STEPS):
                    writer.add_image(f"s{sample}", picture(run, sample, step), step, dataformats="HWC")


# ---------------------------------------------------------------- measuring


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def server(command: list[str], url: str, folder: Path) -> Iterator[psutil.Process]:
    """A server process, until it answers."""
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"{command[0]} did not start: {(folder / 'server.log').read_text()[-500:]}"
                    ) from None
                time.sleep(0.3)
        yield psutil.Process(process.pid)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_of(root: psutil.Process) -> float:
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextlib.contextmanager
def chromium(playwright) -> Iterator[tuple[Page, Callable[[], float]]]:
    """A page of a fresh browser, and what tells the CPU-seconds of that browser's processes."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    page = browser.new_page(viewport={"width": 1500, "height": 950})
    page.set_default_timeout(60_000)

    def cpu() -> float:
        total = 0.0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.pid not in before and "chrom" in process.name():
                    times = process.cpu_times()
                    total += times.user + times.system
        return total

    try:
        yield page, cpu
    finally:
        browser.close()


def load(playwright, root: psutil.Process, url: str, ready: Callable[[Page], None]) -> tuple[float, float]:
    """Wall seconds of one page in a new, open browser, and CPU-seconds of server and whole browser."""
    served = cpu_of(root)
    with chromium(playwright) as (page, browser_cpu):
        page.wait_for_timeout(500)  # the browser itself has started: its user's is open too
        started = time.perf_counter()
        page.goto(url, wait_until="commit")
        ready(page)
        wall = time.perf_counter() - started
        return wall, browser_cpu() + cpu_of(root) - served


def table_ready(page: Page) -> None:
    page.wait_for_selector('body[data-ready="runs"]')
    page.wait_for_selector("#runs-table .tabulator-row")


def charts_ready(page: Page) -> None:
    page.wait_for_selector('body[data-ready="charts"]')
    page.wait_for_selector(".chart[data-drawn] canvas")


def samples_ready(page: Page) -> None:
    page.wait_for_selector('body[data-ready="samples"]')
    page.wait_for_selector(".cell .score span")


def image_ready(page: Page) -> None:
    """Until the first image of MLflow's charts is loaded."""
    page.wait_for_function(
        "[...document.querySelectorAll('img[src*=\"get-artifact\"]')].some((image) => image.naturalWidth)"
    )


def in_page(
    playwright,
    root: psutil.Process,
    url: str,
    ready: Callable[[Page], None],
    act: Callable[[Page], float],
    repeats: int,
) -> tuple[float, float]:
    """An action repeated in one page after a warm-up: median milliseconds, mean CPU-seconds of everything."""
    with chromium(playwright) as (page, browser_cpu):
        page.goto(url)
        ready(page)
        page.wait_for_timeout(500)
        act(page)
        before = browser_cpu() + cpu_of(root)
        times = [act(page) for _ in range(max(repeats, 3))]
        cpu = browser_cpu() + cpu_of(root) - before
    return statistics.median(times), cpu / len(times)


def drag_zoom(page: Page) -> float:
    """From letting go of the mouse until the finer curve is drawn."""
    card = page.locator('.chart[data-path="train/loss"]')
    box = card.locator(".u-over").bounding_box()
    if page.locator("#unzoom").count():
        page.locator("#unzoom").click()
        page.wait_for_selector('.chart[data-path="train/loss"][data-drawn="step all"]')
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 60, steps=3)
    started = time.perf_counter()
    page.mouse.up()
    page.wait_for_selector('.chart[data-path="train/loss"]:not([data-drawn="step all"])')
    return 1000 * (time.perf_counter() - started)


def slide(page: Page) -> float:
    """One step of the slider, its images read before; measured inside the page."""
    slider = page.locator("#slider")
    for value in ("3", "4", "3"):
        slider.evaluate(f"node => {{ node.value = '{value}'; node.dispatchEvent(new Event('input')); }}")
        page.wait_for_timeout(300)
    page.locator("#page").evaluate("node => { delete node.dataset.drawn; }")
    slider.evaluate("node => { node.value = '4'; node.dispatchEvent(new Event('input')); }")
    page.wait_for_selector("#page[data-drawn]")
    return float(page.locator("#page").get_attribute("data-drawn"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="little data, one repeat")
    parser.add_argument("--no-peers", action="store_true", help="segtrail alone")
    arguments = parser.parse_args()
    scale = Scale(runs=30, long_runs=5, points=5_000, repeats=1) if arguments.quick else Scale()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for tool in ("segtrail", "mlflow", "tensorboard"):
            (folder / tool).mkdir()
        ids = log_segtrail(folder / "segtrail/store", scale)
        urls = {tool: f"http://127.0.0.1:{free_port()}/" for tool in ("segtrail", "mlflow", "tensorboard")}

        def port(tool: str) -> str:
            return urls[tool].rsplit(":", 1)[1].strip("/")

        python = [sys.executable, "-m"]
        start = "import sys; from segtrail.ui.app import main; sys.exit(main(sys.argv[1:]))"
        roots = {}
        command = [
            sys.executable,
            "-c",
            start,
            "--store",
            str(folder / "segtrail/store"),
            "--port",
            port("segtrail"),
            "--no-browser",
        ]
        roots["segtrail"] = stack.enter_context(server(command, urls["segtrail"], folder / "segtrail"))
        if not arguments.no_peers:
            log_mlflow(folder / "mlflow")
            log_tensorboard(folder / "tensorboard")
            command = [
                *python,
                "mlflow",
                "server",
                "--backend-store-uri",
                f"sqlite:///{folder / 'mlflow/mlflow.db'}",
                "--artifacts-destination",
                str(folder / "mlflow/artifacts"),
                "--port",
                port("mlflow"),
                "--workers",
                "1",
            ]
            roots["mlflow"] = stack.enter_context(server(command, urls["mlflow"], folder / "mlflow"))
            command = [
                *python,
                "tensorboard.main",
                "--logdir",
                str(folder / "tensorboard"),
                "--port",
                port("tensorboard"),
                "--samples_per_plugin",
                "images=100",
            ]
            roots["tensorboard"] = stack.enter_context(
                server(command, urls["tensorboard"], folder / "tensorboard")
            )

        def ours(**state: object) -> str:
            return f"{urls['segtrail']}?{urlencode(state)}"

        short, long_runs = ",".join(ids["short"]), ids["long"]
        pages: dict[str, dict[str, tuple[str, Callable[[Page], None]]]] = {
            "runs": {
                f"segtrail, {scale.runs} runs": (ours(), table_ready),
                f"mlflow, {RUNS} runs": (
                    urls["mlflow"] + "#/experiments/1/runs",
                    lambda p: p.get_by_text("run 0000").first.wait_for(),
                ),
            },
            "curves": {
                f"segtrail, 10 runs × {scale.points:,} points": (
                    ours(page="charts", find="train/loss", runs=",".join(long_runs[:10])),
                    charts_ready,
                ),
                f"segtrail, {len(long_runs)} runs × {scale.points:,} points": (
                    ours(page="charts", find="train/loss", runs=",".join(long_runs)),
                    charts_ready,
                ),
                f"segtrail, {RUNS} runs × {METRICS} metrics × {POINTS} points": (
                    ours(page="charts", runs=short),
                    charts_ready,
                ),
                f"mlflow, {RUNS} runs × {METRICS} metrics × {POINTS} points": (
                    urls["mlflow"] + "#/experiments/1/runs?compareRunsMode=CHART",
                    lambda p: p.locator(".js-plotly-plot .scatterlayer path").first.wait_for(
                        state="attached"
                    ),
                ),
                f"tensorboard, {RUNS} runs × {METRICS} metrics × {POINTS} points": (
                    urls["tensorboard"] + "#scalars",
                    lambda p: p.locator("tf-scalar-card path.line").nth(19).wait_for(state="attached"),
                ),
            },
            "images": {
                f"segtrail, {SAMPLES} × 4 matrix": (
                    ours(page="samples", runs=",".join(ids["short"][:4])),
                    samples_ready,
                ),
                f"mlflow, {SAMPLES} images × 4 runs": (
                    urls["mlflow"] + "#/experiments/2/runs?compareRunsMode=CHART",
                    image_ready,
                ),
                f"tensorboard, {SAMPLES} images × 4 runs": (
                    urls["tensorboard"] + "#images",
                    lambda p: p.locator(
                        "tf-image-loader img, image-card img, .image-container img, img#main-image"
                    ).first.wait_for(state="attached"),
                ),
            },
        }
        with sync_playwright() as playwright:
            empty = [
                load(playwright, roots["segtrail"], "about:blank", lambda p: None)[1]
                for _ in range(scale.repeats)
            ]
            print(f"an empty page: {statistics.median(empty):.2f} CPU-s, included below")
            print(f"{'page':<8} {'':<62} {'wall s':>8} {'CPU-s':>8}")
            for title, tools in pages.items():
                measured: dict[str, list[tuple[float, float]]] = {label: [] for label in tools}
                for _ in range(scale.repeats):
                    for label, (url, ready) in tools.items():
                        tool = label.split(",")[0]
                        if tool not in roots:
                            continue
                        try:
                            measured[label].append(load(playwright, roots[tool], url, ready))
                        except Exception as error:  # a peer that never shows its data
                            print(f"{title:<8} {label}: {str(error).splitlines()[0]}")
                for label, values in measured.items():
                    if values:
                        wall, cpu = (statistics.median(v[i] for v in values) for i in (0, 1))
                        print(f"{title:<8} {label:<62} {wall:>8.2f} {cpu:>8.2f}", flush=True)
            print(f"{'action':<8} {'in an open page':<62} {'ms':>8} {'CPU-s':>8}")
            actions: list[tuple[str, str, str, Callable[[Page], None], Callable[[Page], float]]] = [
                (
                    "zoom",
                    f"segtrail, {count} runs × {scale.points:,} points (CPU: there and back)",
                    ours(page="charts", find="train/loss", runs=",".join(long_runs[:count])),
                    charts_ready,
                    drag_zoom,
                )
                for count in (10, len(long_runs))
            ]
            url = ours(page="samples", runs=",".join(ids["short"][:4]), mode="step", at=3)
            actions.append(
                (
                    "slider",
                    f"segtrail, {SAMPLES} × 4 cells, warm (CPU: four steps)",
                    url,
                    samples_ready,
                    slide,
                )
            )
            for title, label, url, ready, act in actions:
                ms, cpu = in_page(playwright, roots["segtrail"], url, ready, act, scale.repeats)
                print(f"{title:<8} {label:<62} {ms:>8.0f} {cpu:>8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
