"""``segtrail reproduce RUN``: runs a tracked run again and says whether the figures are the same."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf, open_dict

from segtrail.training.resume import find_run

RECORD = "result.json"  # in the run's folder


class ReproduceError(Exception):
    """A run that cannot be run again; one line that says why and what to do."""


def fingerprint(dataset: Any, most: int = 16) -> str:
    """Identifies a dataset: all sample ids, and the pixels of some samples spread over it.

    Args:
        dataset: of one split.
        most: samples whose pixels are read.
    """
    digest = hashlib.sha256("\n".join(dataset.ids).encode())
    count = min(most, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int) if count else ():
        sample = dataset[int(index)]
        digest.update(np.ascontiguousarray(sample.image).tobytes())
        digest.update(np.ascontiguousarray(sample.mask).tobytes())
    return digest.hexdigest()[:16]


def record(folder: Path, metrics: Mapping[str, Any], datamodule: Any) -> None:
    """Writes down what a finished run reached, and with which data and code, for a later comparison."""
    evaluated = {name: float(v) for name, v in metrics.items() if name.startswith(("val/", "test/"))}
    result = {
        "metrics": evaluated,
        "data": {split: fingerprint(datamodule.dataset(split)) for split in datamodule.splits},
        "commit": commit(),
    }
    (folder / RECORD).write_text(json.dumps(result, indent=1), encoding="utf-8")


def commit() -> str:
    """The commit of the working directory, with ``+changes`` if files differ from it; empty without git."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD")
    changed = head and git("status", "--porcelain", "--untracked-files=no")
    return head + "+changes" * bool(changed)


def compare(
    first: Mapping[str, float], second: Mapping[str, float], tolerance: float
) -> tuple[list[str], bool]:
    """Lines of a table of two runs' metrics, and whether all agree within the tolerance."""
    lines, same = [f"{'metric':<28} {'then':>12} {'now':>12}  difference"], True
    for name in sorted(first.keys() | second.keys()):
        then, now = first.get(name, math.nan), second.get(name, math.nan)
        equal = then == now or (math.isnan(then) and math.isnan(now))
        close = equal or abs(then - now) <= tolerance
        same &= close
        verdict = "equal" if equal else f"{now - then:+.3g}" + ("" if close else "  DIFFERS")
        lines.append(f"{name:<28} {then:>12.6f} {now:>12.6f}  {verdict}")
    return lines, same


def main(argv: list[str]) -> int:
    """Runs the command; returns 0 if the figures agree, 1 if not."""
    parser = argparse.ArgumentParser(prog="segtrail reproduce", description=__doc__)
    parser.add_argument("run", help="run folder, id of a tracked run, or last")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="largest difference that counts as equal"
    )
    parser.add_argument("--folder", type=Path, help="of the new run; by default beside the old one")
    options = parser.parse_args(argv)
    old = find_run(options.run)
    if not (old / RECORD).is_file():
        raise ReproduceError(f"{old} has no {RECORD}: it did not finish, so there is nothing to compare with")
    then = json.loads((old / RECORD).read_text(encoding="utf-8"))
    config = OmegaConf.load(old / "config.yaml")
    assert isinstance(config, DictConfig)
    new = options.folder or old.with_name(f"{old.name}-again")
    with open_dict(config):
        config.resume = None
        config.run_dir = str(new)
        for key in ("run_id", "custom_run_id"):
            if key in config.tracker:
                config.tracker[key] = None
        config.tags = [*config.tags, f"reproduces/{old.name}"]
    now_commit = commit()
    if then["commit"] != now_commit:
        print(f"The code differs: then {then['commit'] or 'no commit'}, now {now_commit or 'no commit'}.")
    _train(config)
    now = json.loads((new / RECORD).read_text(encoding="utf-8"))
    for split in then["data"]:
        if now["data"].get(split) != then["data"][split]:
            print(f"The data of the split '{split}' differ from those of the first run.")
    lines, same = compare(then["metrics"], now["metrics"], options.tolerance)
    print("\n".join(lines))
    print("Reproduced." if same else "Not reproduced.")
    return 0 if same else 1


def _train(config: DictConfig) -> None:
    import logging

    from segtrail.config.compose import register

    register()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    from segtrail.training.run import train

    train(config)
