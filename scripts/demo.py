#!/usr/bin/env python
"""Trains two models on the embedded satellite images and predicts with one of them: `python scripts/demo.py`.

Everything runs through the commands of the README; nothing is downloaded, and the runs are recorded
offline under ./.neptune. Exits non-zero if a command fails.
"""

from __future__ import annotations

import argparse
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


def run(folder: Path, script: str, *arguments: str) -> None:
    """Runs one of the repository's scripts in a folder, showing the command first."""
    print(f"\n$ {shlex.join(['python', script, *arguments])}", flush=True)
    subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=folder, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT, help="where runs and predictions go")
    options, overrides = parser.parse_known_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    folders = {}
    for name, choices in RUNS.items():
        folder = Path("outputs") / "demo" / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{name}"
        choice = [*choices, "experiment=demo", *overrides]
        run(options.folder, "train.py", *choice, "tags=[demo]", f"hydra.run.dir={folder}")
        folders[name] = folder
    chips, predictions = Path("predictions/demo/chips"), Path("predictions/demo")
    write_test_chips(options.folder / chips)
    checkpoint = folders["deeplab-lovasz"]
    run(options.folder, "predict.py", f"checkpoint={checkpoint}", f"source={chips}", f"output={predictions}")
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
