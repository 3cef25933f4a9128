"""Runs the real command line in processes that are forked from one with everything imported."""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import torch

from tests.tracking.operations import records

HERE = Path(__file__).parent
SMALL = [
    "--config-dir", str(HERE / "conf"),
    "model=tiny", "dataset=shapes", "dataset.num_samples=24", "dataset.size=16",
    "loader.batch_size=4", "loader.num_workers=0", "optimizer.lr=0.02",
    "trainer=cpu", "trainer.max_epochs=3", "trainer.log_every_n_steps=1",
    "callbacks.progress_bar=null", "trainer.enable_progress_bar=false",
    "callbacks.weight_histograms.figure=false", "callbacks.prediction_images.num_samples=2",
]  # fmt: skip

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.training.preload"])


def _job(folder, arguments, environment, verb):
    os.chdir(folder)
    os.environ.update(environment)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # a terminal's job is not a daemon: it may start ranks
    multiprocessing.current_process()._config["daemon"] = False
    from segtrail import cli

    if verb == "train":
        sys.argv = ["train.py", *arguments]
        cli.train()
    else:
        sys.argv = ["segtrail", verb, *arguments]
        cli.main()


def start(folder, *arguments, verb="train", **environment):
    folder.mkdir(parents=True, exist_ok=True)
    repository = str(HERE.parents[1])
    settings = {"PYTHONPATH": repository, "OMP_NUM_THREADS": "1", "NEPTUNE_API_TOKEN": "", "NEPTUNE_MODE": ""}
    process = _context.Process(target=_job, args=(str(folder), arguments, settings | environment, verb))
    process.start()
    return process


def seconds_of(folder, *arguments, after=".neptune/offline/*"):
    """Runs a command undisturbed; seconds from the first file like ``after`` to its end."""
    process = start(folder, *arguments)
    while process.is_alive() and not list(folder.glob(after)):
        time.sleep(0.01)
    begin = time.monotonic()
    process.join()
    assert process.exitcode == 0, output(folder)
    return time.monotonic() - begin


def run(folder, *arguments, kill=None, after=".neptune/offline/*", timeout=240, **options):
    """Exit status of a command; ``kill`` is (signal, seconds after another file like ``after`` appears)."""
    process = start(folder, *arguments, **options)
    if kill is not None:
        wanted, seconds = kill
        before = len(list(folder.glob(after)))
        while process.is_alive() and len(list(folder.glob(after))) == before:
            time.sleep(0.01)
        process.join(seconds)
        if process.is_alive():
            os.kill(process.pid, wanted)
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise TimeoutError(output(folder))
    return process.exitcode


def output(folder):
    return (folder / "output.txt").read_text()


def tracked(folder):
    """Every point of the folder's runs by series, over all processes, without measured times."""
    points = {}
    for log in sorted(folder.glob(".neptune/offline/*")):
        for record in records(log):
            operation = record["obj"]
            if operation["type"].startswith("Log"):
                series = points.setdefault("/".join(operation["path"]), [])
                series += [(entry["step"], str(entry["value"])) for entry in operation["values"]]
    points.pop("train/images_per_second", None)
    return {name: sorted(series) for name, series in points.items()}


def checkpoint(folder, name="last"):
    (file,) = folder.glob(f"outputs/*/*/checkpoints/{name}.ckpt")
    return torch.load(file, weights_only=True)


def same_weights(first, second):
    states = first["state_dict"], second["state_dict"]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][k], states[1][k]) for k in states[0]
    )


__all__ = ["SMALL", "checkpoint", "output", "run", "same_weights", "seconds_of", "signal", "start", "tracked"]
