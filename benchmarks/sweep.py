"""Optuna with pruning against random search of full trials: score reached and optimizer steps spent.

python benchmarks/sweep.py            # architecture, loss and rate on the embedded dataset, 24 trials each
python benchmarks/sweep.py --small    # the same on drawn shapes with a short network: minutes on a CPU
python benchmarks/sweep.py --quick    # a few trials, to see that it runs
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
COMMON = [
    "tracker=none", "trainer.enable_progress_bar=false", "callbacks.progress_bar=null",
    "callbacks.weight_histograms=null", "callbacks.prediction_images=null",
]  # fmt: skip
LOSSES = "loss=choice(cross_entropy,dice,lovasz,focal)"
EARTH = [
    "dataset=earth", "dataset.limit_samples=96", "loader.batch_size=8", "trainer.max_epochs=10",
    "model=choice(unet,fpn,linknet,deeplab)", LOSSES, "optimizer.lr=tag(log,interval(0.0001,0.03))",
]  # fmt: skip
SHAPES = [
    "dataset=shapes", "dataset.num_samples=32", "dataset.size=32",
    "loader.batch_size=8", "loader.num_workers=0", "model.encoder_name=resnet18",
    "model.encoder_weights=null", "trainer=cpu", "trainer.max_epochs=8",
    "model=choice(unet,linknet)", LOSSES, "optimizer.lr=tag(log,interval(0.0001,0.1))",
]  # fmt: skip


def search(folder: Path, seed: int, trials: int, settings: list[str], *sweep: str) -> list[dict]:
    """Runs one sweep in a folder of its own and returns its trials."""
    folder.mkdir(parents=True)
    command = [sys.executable, str(TRAIN), "-m", *COMMON, *settings, *sweep]
    command += [f"hydra.sweeper.trials={trials}", f"hydra.sweeper.sampler.seed={seed}", f"seed={seed}"]
    command += ["hydra.sweeper.space=null"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
    (file,) = folder.glob("outputs/*/*/trials.json")
    return json.loads(file.read_text())


def steps(trials: list[dict]) -> int:
    """Optimizer steps that a sweep took: the last report of each trial."""
    return sum(max((int(step) for step in trial["reports"]), default=0) for trial in trials)


def best(trials: list[dict]) -> float:
    return max(value for trial in trials for value in trial["reports"].values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    trials = 3 if options.quick else 24
    # optimizer steps of two epochs: the score after one says little
    settings, warm_up = (SHAPES, 8) if options.small or options.quick else (EARTH, 24)
    if options.quick:
        settings = [*settings, "trainer.max_epochs=2"]
    header = ("seed", "search", "trials", "pruned", "failed", "best", "steps", "steps/random")
    print("{:>4}  {:<8} {:>6} {:>6} {:>6} {:>7} {:>7} {:>12}".format(*header))
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            full = search(
                Path(temporary, f"random{seed}"), seed, trials, settings,
                "sweep=random", "hydra.sweeper.pruner=null",
            )  # fmt: skip
            pruned = search(
                Path(temporary, f"optuna{seed}"), seed, trials, settings,
                "sweep=optuna", "pruner=halving", f"hydra.sweeper.pruner.min_resource={warm_up}",
            )  # fmt: skip
            for name, found in (("random", full), ("optuna", pruned)):
                states = [trial["state"] for trial in found]
                counts = len(found), states.count("pruned"), states.count("fail")
                ratio = steps(found) / steps(full)
                row = (seed, name, *counts, best(found), steps(found), ratio)
                print("{:>4}  {:<8} {:>6} {:>6} {:>6} {:>7.4f} {:>7} {:>12.2f}".format(*row), flush=True)


if __name__ == "__main__":
    main()
