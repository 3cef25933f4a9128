#!/usr/bin/env python
"""Runs every benchmark in turn: `python scripts/bench.py [--quick]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    failed = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        print(f"\n== {path.stem} ==", flush=True)
        if subprocess.run([sys.executable, str(path), *sys.argv[1:]], cwd=ROOT).returncode:
            failed.append(path.stem)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
