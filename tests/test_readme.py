"""Every command and every snippet of the README runs, in a folder of its own, at small size."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python|yaml)\n(.*?)```", README, flags=re.DOTALL)

# What makes a real command a quick one.
QUICK_TRAINING = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "loader.batch_size=2",
    "loader.num_workers=0",
]


def commands() -> list[str]:
    lines = [line for kind, body in BLOCKS if kind == "bash" for line in body.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def environment() -> dict[str, str]:
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT / "src"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout's scripts beside what the README talks of: a folder of images, photographs, own code."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("train.py", "evaluate.py", "predict.py", "Makefile"):
        (folder / name).write_text((ROOT / name).read_text())
    generator = np.random.default_rng(0)
    for kind in ("my_data/images", "my_data/masks", "photos"):
        (folder / kind).mkdir(parents=True)
    for index in range(6):
        image = Image.fromarray(generator.integers(0, 256, (128, 128, 3), dtype=np.uint8))
        image.save(folder / f"my_data/images/{index}.png")
        image.save(folder / f"photos/{index}.png")
        mask = generator.integers(0, 3, (128, 128), dtype=np.uint8)
        Image.fromarray(mask).save(folder / f"my_data/masks/{index}.png")
    for kind, body in BLOCKS:
        first = body.splitlines()[0]
        if kind in ("python", "yaml") and first.startswith("# "):
            path = folder / first[2:].strip()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
    return folder


def run(command: str, folder: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        executable="/bin/bash",
    )


def quickened(command: str) -> str:
    if command.startswith("python train.py") and not {"--help", "--cfg"} & set(shlex.split(command)):
        return " ".join([command, *QUICK_TRAINING])
    if command.startswith("python evaluate.py"):
        return f"{command} num_workers=0"
    return command


def test_the_readme_has_its_commands() -> None:
    assert len(commands()) >= 20
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "yaml"}


def test_all_commands_run_in_the_order_of_the_readme(folder: Path) -> None:
    ran = 0
    for command in commands():
        if command.startswith(("make ", "source ", "segtrail ui")):
            continue
        result = run(quickened(command), folder)
        assert result.returncode == 0, f"$ {command}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
        ran += 1
    assert ran >= 14
    assert list((folder / "predictions").glob("label_maps/*.png"))
    assert list((folder / "predictions/windows").glob("label_maps/*.png"))


def test_make_knows_the_targets(folder: Path) -> None:
    targets = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert set(targets) == {"setup", "demo", "test", "lint", "bench"}
    for target in targets:
        result = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


def test_the_demo_script_runs(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts/demo.py"), "--folder", str(tmp_path), *QUICK_TRAINING],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Where to look" in result.stdout
    assert len(list(tmp_path.glob(".neptune/offline/*"))) >= 2
    assert list(tmp_path.glob("predictions/demo/label_maps/*.png"))


def test_segtrail_ui_serves_the_runs(folder: Path) -> None:
    process = subprocess.Popen(
        ["segtrail", "ui", "--no-browser", "--port", "0"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = ""
        started = time.monotonic()
        while "http://127.0.0.1" not in said and time.monotonic() - started < 60:
            said += process.stdout.readline()  # type: ignore[union-attr]
        assert "http://127.0.0.1" in said
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 0


def test_the_python_snippet_runs(folder: Path) -> None:
    (snippet,) = [body for kind, body in BLOCKS if kind == "python" and "segtrail.compose" in body]
    script = snippet.replace('"trainer=debug"', '"trainer=debug", "loader.num_workers=0", "tracker=none"')
    result = run(f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}", folder)
    assert result.returncode == 0, result.stderr[-3000:]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
