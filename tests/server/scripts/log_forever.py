"""Logs until it is killed, and notes up to where it was told that all is safe. Uses nothing but neptune."""

import os
from pathlib import Path

import neptune


def main(folder: str, token: str, name: str, delay: float = 0.0) -> None:
    """Logs 0, 1, 2, ... to two series without steps; `name`.acknowledged gets the last safe number."""
    os.chdir(folder)
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    run = neptune.init_run(
        project="ws/killed",
        api_token=token,
        custom_run_id=name,
        flush_period=0.05,
        capture_stdout=False,
        capture_stderr=False,
        capture_hardware_metrics=False,
        git_ref=False,
        source_files=[],
    )
    with Path(f"{name}.acknowledged").open("w") as note:
        number = 0
        while True:
            run["m/value"].append(number)
            run["m/text"].append(f"line {number}")
            number += 1
            if number % 20 == 0:
                run.wait(disk_only=number % 40 == 0)  # now on disk, now at the server
                note.write(f"{number}\n")
                note.flush()
