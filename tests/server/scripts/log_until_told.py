"""Logs while the server comes and goes; ends when a file appears. Uses nothing but neptune."""

import os
import time
from pathlib import Path

import neptune
from neptune.common.backends import utils


def main(folder: str, token: str, name: str) -> None:
    """Logs 0, 1, 2, ... to a series of its own and to one that all writers share, then writes how many."""
    os.chdir(folder)
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    utils.MAX_RETRY_MULTIPLIER = -4  # asks again after 1/16 second: twenty deaths in seconds, not minutes
    run = neptune.init_run(
        project="ws/killed",
        api_token=token,
        custom_run_id="writers",
        flush_period=0.05,
        capture_stdout=False,
        capture_stderr=False,
        capture_hardware_metrics=False,
        git_ref=False,
        source_files=[],
    )
    Path(f"{name}.started").touch()
    number = 0
    while not Path("stop").exists():
        run[f"{name}/value"].append(number)
        run[f"{name}/text"].append(f"{name} {number}")
        run["together"].append(f"{name} {number}")
        number += 1
        time.sleep(0.03)
    run.stop()
    Path(f"{name}.count").write_text(str(number))
