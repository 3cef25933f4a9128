#!/usr/bin/env python
"""Makes the pictures of docs/ui.md from real runs: `python scripts/screenshots.py DIR`, DIR with .neptune.

Drives headless Chromium (scripts/install_browser.sh) over `segtrail ui` and writes docs/images/ui-*.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"
START = "import sys; from segtrail.ui.app import main; sys.exit(main(sys.argv[1:]))"


def wait_until_read(url: str) -> None:
    """Waits until the server has read the folder: four seconds without news."""
    version = -1
    while True:
        with urllib.request.urlopen(f"{url}ui/api/changes?since=0") as reply:
            latest = json.load(reply)["version"]
        if latest == version:
            return
        version = latest
        time.sleep(4)


def hover_chart(page: Page) -> None:
    box = page.locator(".chart .u-over").first.bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])


SHOTS = [
    ("runs", {}, None, "light"),
    ("charts", {"page": "charts"}, hover_chart, "light"),
    ("samples", {"page": "samples"}, None, "light"),
    ("samples-error", {"page": "samples", "layer": "error"}, None, "dark"),
    ("compare", {"page": "compare"}, None, "light"),
    ("diff", {"page": "diff"}, None, "light"),
    ("sweep", {"page": "sweep"}, None, "light"),
    ("weights", {"page": "weights"}, None, "dark"),
    ("run", {"page": "run"}, None, "light"),
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="holds .neptune")
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", START, str(arguments.folder), "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2]
        wait_until_read(url)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            for name, state, act, theme in SHOTS:
                page = browser.new_page(viewport={"width": 1360, "height": 850}, color_scheme=theme)
                page.goto(f"{url}?{urlencode(state)}")
                page.wait_for_selector("#rail li.on")
                page.wait_for_selector('body:not([data-ready=""])')
                page.wait_for_timeout(1500)
                if act:
                    act(page)
                    page.wait_for_timeout(200)
                page.screenshot(path=arguments.out / f"ui-{name}.png")
                print(arguments.out / f"ui-{name}.png")
                page.close()
            browser.close()
    finally:
        process.terminate()
        process.wait(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
