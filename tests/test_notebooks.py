"""The notebooks run from top to bottom, offline, as plain Python in a process of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def script_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_all_three_are_here() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_quickstart", "02_mask_rcnn", "03_compare_runs"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(notebook: Path, tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    script.write_text(script_of(notebook), encoding="utf-8")
    environment = {**os.environ, "SEGTRAIL_QUICK": "1", "OMP_NUM_THREADS": "1", "NEPTUNE_MODE": "offline"}
    process = subprocess.Popen(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=540)
    finally:  # with whatever the notebook has started
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-3000:]
