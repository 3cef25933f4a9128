"""Runs of strangers and broken runs: nothing of them is executed, and every page still says what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from segtrail.tracking import names
from tests.browser.conftest import Site, visit
from tests.ui.offline import OfflineRun, training_run

pytestmark = pytest.mark.browser

ATTACK = "<img src=x onerror=alert(1)>"
PAGES = ("runs", "charts", "samples", "compare", "diff", "sweep", "weights", "run")


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("hostile")
    for seed in range(2):
        run = training_run(
            folder,
            f"{ATTACK}{seed}",
            quality=0.9 - 0.3 * seed,
            seed=seed,
            samples=3,
            epochs=2,
            classes=(ATTACK, "sky", f"{ATTACK} road", "car"),
            tags=(ATTACK,),
            model=ATTACK if seed else "unet",
        )
        run.assign(f"parameters/{ATTACK}/key", f"{ATTACK} value {seed}")
        run.assign("environment/hardware/gpu", f"{ATTACK}{seed}")
        run.floats(f"val/{ATTACK}", [0.1, 0.5 + seed / 10], [49, 99])
        run.strings("monitoring/stderr", [f"{ATTACK} printed\n"])
        page = f"<script>top.document.title='owned'; alert(2)</script><b id=inside>{seed}</b>"
        run.upload("artifacts/page", page.encode(), "html")
        run.upload("artifacts/picture", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(3)'/>", "svg")
        run.close()
    site = Site(folder, folder / "store")
    yield site
    site.close()


@pytest.mark.parametrize("name", PAGES)
def test_hostile_text_stays_text(page: Page, hostile_site: Site, name: str) -> None:
    visit(page, hostile_site.address(page=name, group="sys/name" if name == "runs" else ""))
    expect(page.locator("body")).to_contain_text(ATTACK)
    page.wait_for_timeout(150)  # an image that fails to load would have called by now
    assert page.locator('img[src="x"], svg[onload], #page script').count() == 0
    # The fixture fails the test if a dialog opened.


def test_hostile_names_in_menus_and_tooltips(page: Page, hostile_site: Site) -> None:
    visit(page, hostile_site.address(metric=f"val/{ATTACK}", group=f"parameters/{ATTACK}/key"))
    expect(page.locator(".tabulator-group").first).to_contain_text(ATTACK)
    expect(page.locator(".tabulator-header")).to_contain_text(ATTACK)
    page.get_by_role("button", name="Columns").click()
    expect(page.locator(".pop").first).to_contain_text(ATTACK)
    visit(page, hostile_site.address(page="charts", metric=f"val/{ATTACK}"))
    page.locator(".chart .u-over").first.hover()
    expect(page.locator(".chart .tip").first).to_contain_text(ATTACK)
    visit(page, hostile_site.address(page="samples", layer="error"))
    page.locator(".cell canvas").first.click()
    expect(page.locator("dialog")).to_contain_text(ATTACK)
    assert page.locator('img[src="x"]').count() == 0


def test_uploaded_pages_never_run_in_the_origin_of_the_ui(page: Page, hostile_site: Site) -> None:
    run = hostile_site.ids()[f"{ATTACK}0"]
    visit(page, hostile_site.address(page="run", run=run, tab="files", file="artifacts/page"))
    frame = page.frame_locator("iframe.preview")
    expect(frame.locator("#inside")).to_have_text("0")
    assert "owned" not in page.title()
    for path, extra in (
        ("artifacts/page", ""),
        ("artifacts/page", "&preview=true"),
        ("artifacts/picture", ""),
    ):
        reply = page.request.get(f"{hostile_site.url}/ui/file?run={run}&path={path}{extra}")
        assert reply.headers["content-security-policy"].startswith("sandbox;")
        assert reply.headers["x-content-type-options"] == "nosniff"
        if not extra:
            assert reply.headers["content-disposition"].startswith("attachment") or "svg" in path
    assert page.request.get(f"{hostile_site.url}/ui/image?run={run}&path=artifacts/picture").status == 415


@pytest.fixture(scope="module")
def broken_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("broken")
    training_run(folder, "whole", samples=3, epochs=2).close()
    training_run(
        folder, "other classes", samples=3, epochs=2, classes=("ground", "sky", "road", "car"), seed=1
    ).close()
    OfflineRun(folder, "empty").close()

    torn = training_run(folder, "torn", samples=3, epochs=2, seed=2)
    torn.close()
    text = torn.log.read_text()
    torn.log.write_text(text + text.splitlines()[-1][:40])
    numbers = OfflineRun(folder, "not finite")
    numbers.floats("val/mIoU", [0.2, float("nan"), 0.4], [0, 1, 2])
    numbers.floats("train/loss", [1.0, float("inf"), float("nan"), float("-inf"), 0.5])
    numbers.close()
    wide = OfflineRun(folder, "wide")
    for index in range(20_000):
        wide.assign(f"parameters/many/key_{index:05d}", index)
    wide.floats("val/mIoU", np.linspace(0, 0.5, 10))
    wide.close()
    site = Site(folder, folder / "store")
    ids = site.ids()
    # Two files of one run vanish from the store: an image and the evaluation.
    for path in ("samples/street_00/prediction", names.per_image("val")):
        attribute = site.store.attribute(ids["torn"], path)
        for blob in {attribute.value["blob"]}:
            Path(site.store.blobs.path(blob)).unlink()
    (folder / "ids.json").write_text(json.dumps(ids))
    yield site
    site.close()


@pytest.mark.parametrize("name", PAGES)
def test_every_page_shows_broken_runs(page: Page, broken_site: Site, name: str) -> None:
    ids = broken_site.ids()
    chosen = [ids[n] for n in ("whole", "other classes", "torn", "empty", "not finite", "wide")]
    visit(page, broken_site.address(page=name, runs=",".join(chosen), run=ids["wide"]))
    expect(page.locator("#page .notice")).to_have_count(0)
    text = page.locator("#page")
    if name == "samples":
        expect(text).to_contain_text("missing from the store")
        expect(text).to_contain_text("no prediction of this sample")
    elif name == "compare":
        expect(text).to_contain_text("missing from the store")
        expect(text).to_contain_text("no per-image evaluation")
        expect(text).to_contain_text("class lists differ")
        expect(page.locator("#classes")).to_contain_text("n/a")
    elif name == "diff":
        expect(page.locator(".warning").first).to_contain_text("class lists differ")
    elif name == "charts":
        expect(page.locator('.chart[data-path="val/mIoU"] header')).to_contain_text("1 NaN or infinite")
        card = page.locator('.chart[data-path="train/loss"]')
        card.scroll_into_view_if_needed()
        expect(card.locator("header")).to_contain_text("3 NaN or infinite")
    elif name == "weights":
        expect(page.locator("#ridges")).to_contain_text("did not log this layer")
    elif name == "run":
        page.locator('button[data-value="attributes"]').click()
        expect(page.locator("#count")).to_contain_text("200")
        expect(page.locator("#attributes tr")).to_have_count(300)
    elif name == "runs":
        expect(page.locator("#runs-table .tabulator-row")).to_have_count(6)


def test_an_empty_folder_says_what_to_do(page: Page, tmp_path: Path) -> None:
    site = Site(tmp_path, tmp_path / "store")
    visit(page, site.url)
    expect(page.locator("#page")).to_contain_text("python train.py")
    training_run(tmp_path, "first", samples=2, epochs=2).close()
    site.follower.poll()
    expect(page.locator("#runs-table .tabulator-row")).to_have_count(1)
    page.goto("about:blank")
    site.close()
