#!/usr/bin/env python
"""Trains two models on the embedded satellite images, predicts with the better one: `python scripts/demo.py`.

Everything runs through the commands of the README; nothing is downloaded, and the runs are recorded
offline under ./.neptune. Exits non-zero if a command fails.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = {
    "deeplab-lovasz": ["model=deeplab", "loss=lovasz"],
    "unet-ce_dice": ["model=unet", "loss=ce_dice"],
}
RECIPE = ["experiment=demo"]


def run(*command: str) -> None:
    """Runs a command in the repository's root, showing it first."""
    print(f"\n$ {shlex.join(['python', *command])}", flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def main() -> int:
    started = time.monotonic()
    folders = {}
    for name, overrides in RUNS.items():
        folder = Path("outputs") / "demo" / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{name}"
        run("train.py", *overrides, *RECIPE, f"hydra.run.dir={folder}", "tags=[demo]")
        folders[name] = folder
    chips, predictions = ROOT / "predictions/demo/chips", Path("predictions/demo")
    write_test_chips(chips)
    run("predict.py", f"checkpoint={folders['deeplab-lovasz']}", f"source={chips}", f"output={predictions}")
    minutes = (time.monotonic() - started) / 60
    print(f"\nDone in {minutes:.1f} minutes. Where to look:")
    print("  compare both runs in the browser:   .venv/bin/segtrail ui")
    print("  the operation logs of the runs:     .neptune/offline/")
    for name, folder in folders.items():
        print(f"  checkpoints of {name + ':':<20} {folder}/checkpoints/")
    print(f"  predicted label maps and overlays:  {predictions}/")
    return 0


def write_test_chips(folder: Path, number: int = 8) -> None:
    """Writes images of the embedded dataset's test split, which no model has seen, as files."""
    from PIL import Image

    from segtrail.data.datasets.earth import EarthDataset

    folder.mkdir(parents=True, exist_ok=True)
    dataset = EarthDataset("test", limit_samples=number)
    for index in range(len(dataset)):
        sample = dataset[index]
        Image.fromarray(sample.image).save(folder / f"{sample.id.replace('/', '-')}.png")


if __name__ == "__main__":
    sys.exit(main())
