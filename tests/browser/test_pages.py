"""What a person sees on each page, over runs that train.py made."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from segtrail.tracking import names
from tests.browser.conftest import Site, settle, visit
from tests.ui.offline import log_objects, training_run

pytestmark = pytest.mark.browser


def test_opens_populated(page: Page, real_site: Site) -> None:
    visit(page, real_site.url)
    expect(page.locator("#runs-table .tabulator-row")).to_have_count(2)
    expect(page.locator("#rail li.on")).to_have_count(2)
    expect(page.locator("#metric")).to_have_value("val/mIoU")
    expect(page.locator(".tabulator-header")).to_contain_text("loss")
    expect(page.locator("#rail li.on").first).to_contain_text(re.compile(r"0\.\d+"))


def test_all_pages_over_real_runs(page: Page, real_site: Site) -> None:
    visit(page, real_site.url)
    page.keyboard.press("2")
    expect(page.locator('.chart[data-path="val/mIoU"]')).to_have_attribute("data-lines", "2")
    page.keyboard.press("3")
    expect(page.locator(".cell[data-sample] canvas")).to_have_count(8 * 3)
    expect(page.locator(".cell .score").nth(1)).to_contain_text(re.compile(r"\d+\.\d"))
    page.keyboard.press("4")
    expect(page.locator("#verdicts")).to_contain_text("mIoU")
    expect(page.locator("#classes tbody tr")).to_have_count(5)  # four classes and the mean
    expect(page.locator("#confusions table")).to_have_count(3)
    expect(page.locator("#scatter")).to_have_attribute("data-points", "16")
    page.keyboard.press("5")
    expect(page.locator('#differences tr[data-path="parameters/loss/_target_"]')).to_contain_text("dice")
    expect(page.locator('pre[data-path="config/yaml"]')).to_contain_text("+")
    page.keyboard.press("6")
    expect(page.locator("#parallel")).to_have_attribute("data-lines", "2")
    page.keyboard.press("7")
    expect(page.locator("#ridges [data-ridge] svg path").first).to_be_attached()
    page.keyboard.press("8")
    expect(page.locator("#reproduce")).to_contain_text("train.py")
    expect(page.locator("#resume")).to_contain_text("resume=")
    expect(page.locator("#checkpoints")).to_contain_text("best.ckpt")
    page.locator('button[data-value="files"]').click()
    expect(page.locator("#preview")).to_contain_text("_target_")
    page.locator('button[data-value="attributes"]').click()
    page.locator("#find").fill("val/IoU")
    expect(page.locator("#count")).to_have_text("4 attributes")


def test_runs_table(page: Page, site: Site) -> None:
    visit(page, site.url)
    rows = page.locator("#runs-table .tabulator-row:not(.tabulator-group)")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("good")  # best first
    page.locator("#search").fill("model = unet and mIoU > 0")
    expect(rows).to_have_count(2)
    page.locator("#search").fill("nonsense >")
    expect(page.locator("#rail .error")).to_contain_text("no value")
    page.locator("#search").fill("")
    expect(page.locator("#rail .error")).to_have_count(0)  # the rows alone do not tell: an error shows all
    expect(rows).to_have_count(3)
    page.locator("#group").select_option("parameters/model/_target_")
    expect(page.locator(".tabulator-group")).to_have_count(2)
    expect(page.locator(".tabulator-group").last).to_contain_text("±")
    page.locator("#group").select_option("")
    expect(page.locator(".tabulator-group")).to_have_count(0)  # the table is drawn anew
    expect(rows).to_have_count(3)
    page.get_by_label("Edit tags of poor").click()
    page.get_by_label("Tags, separated by commas").fill("draft, later")
    page.keyboard.press("Enter")
    expect(page.locator("#runs-table .chip", has_text="draft")).to_be_visible()
    assert site.store.attribute(site.ids()["poor"], "sys/tags").value == ["draft", "later"]
    page.get_by_role("button", name="Columns").click()
    page.get_by_label("Search attributes").fill("val/IoU/car")
    expect(page.locator(".pop label", has_text="max")).to_have_count(1)
    page.locator(".pop label", has_text="max").locator("input").check()
    expect(page.locator(".pop").first).to_be_visible()
    expect(page.locator(".tabulator-header", has_text="IoU car")).to_be_visible()
    with page.expect_download() as download:
        page.locator("#csv").click()
    text = download.value.path().read_text()
    assert "val/IoU/car#max" in text.splitlines()[0]
    assert len(text.splitlines()) == 4


def test_an_open_tag_editor_survives_live_updates(page: Page, site: Site) -> None:
    visit(page, site.url)
    rows = page.locator("#runs-table .tabulator-row")
    expect(rows).to_have_count(3)
    page.get_by_label("Edit tags of poor").click()
    editor = page.get_by_label("Tags, separated by commas")
    editor.fill("half wri")
    training_run(site.folder, "new", quality=0.8, seed=9, samples=1, created=1.77e9).close()
    site.follower.poll()
    expect(rows).to_have_count(4)  # the table goes on
    expect(editor).to_be_focused()
    page.keyboard.type("tten")
    page.keyboard.press("Enter")
    expect(page.locator("#runs-table .chip", has_text="half written")).to_be_visible()
    expect(editor).to_have_count(0)
    assert site.store.attribute(site.ids()["poor"], "sys/tags").value == ["half written"]


def test_trash_and_restore(page: Page, site: Site) -> None:
    visit(page, site.address(runs=site.ids()["poor"]))
    page.get_by_role("button", name="Trash", exact=True).click()
    expect(page.locator("#runs-table .tabulator-row")).to_have_count(2)
    page.locator("#show-trash").click()
    expect(page.locator(".trash")).to_contain_text("poor")
    page.get_by_role("button", name="Restore").click()
    page.locator("#show-trash").click()
    expect(page.locator("#runs-table .tabulator-row")).to_have_count(3)


def test_a_run_has_one_color_everywhere(page: Page, shared_site: Site) -> None:
    visit(page, shared_site.url)
    run = shared_site.ids()["fair"]
    dot = page.locator(f'#rail li[data-run="{run}"] .dot')
    color = dot.evaluate("node => getComputedStyle(node).color")
    row = page.locator("#runs-table .tabulator-row", has_text="fair").locator(".dot")
    assert row.evaluate("node => getComputedStyle(node).color") == color
    visit(page, shared_site.address(page="compare"))
    key = page.locator(f'[data-run="{run}"] .key').first
    assert key.evaluate("node => getComputedStyle(node).borderTopColor") == color
    visit(page, shared_site.address(page="weights"))
    key = page.locator(f'[data-ridge="{run}"] .key')
    assert key.evaluate("node => getComputedStyle(node).borderTopColor") == color


def test_charts(page: Page, shared_site: Site) -> None:
    visit(page, shared_site.address(page="charts"))
    card = page.locator('.chart[data-path="train/loss"]')
    card.scroll_into_view_if_needed()
    expect(card).to_have_attribute("data-lines", "3")
    over = card.locator(".u-over")
    box = over.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 60)
    expect(card.locator(".tip")).to_contain_text("good")
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 70, steps=4)
    page.mouse.up()
    expect(page.locator("#unzoom")).to_be_visible()
    expect(card).to_have_attribute("data-drawn", re.compile(r"step \d"))
    zoomed = page.url
    page.locator("#unzoom").click()
    expect(page.locator("#unzoom")).to_have_count(0)
    page.get_by_role("group", name="x axis").get_by_text("Epoch").click()
    expect(card).to_have_attribute("data-drawn", "epoch all")
    page.locator("#cgroup").select_option("parameters/model/_target_")
    expect(card).to_have_attribute("data-lines", "2")
    page.locator("#log").check()
    page.locator("#find").fill("IoU/car")
    expect(page.locator(".chart")).to_have_count(1)
    visit(page, zoomed)
    expect(page.locator("#unzoom")).to_be_visible()


def test_zooming_again_cancels_the_request_before(page: Page, shared_site: Site) -> None:
    visit(page, shared_site.address(page="charts", find="train/loss"))
    card = page.locator('.chart[data-path="train/loss"]')
    expect(card).to_have_attribute("data-drawn", "step all")
    held: list[Route] = []
    page.route("**/ui/api/series", lambda route: route.continue_() if held else held.append(route))
    box = card.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 70, steps=4)
    with page.expect_request("**/ui/api/series") as zoomed:
        page.mouse.up()
    with page.expect_event("requestfailed") as failed:
        page.locator("#unzoom").click()
    assert failed.value == zoomed.value
    settle(page)
    expect(card).to_have_attribute("data-drawn", "step all")
    expect(card.locator("canvas")).to_be_visible()


def test_samples(page: Page, shared_site: Site) -> None:
    ids = shared_site.ids()
    visit(page, shared_site.address(page="samples", runs=",".join(ids[n] for n in ("good", "poor"))))
    cells = page.locator(f'.cell[data-run="{ids["poor"]}"]')
    expect(cells).to_have_count(5)
    expect(cells.first.locator(".score .bad")).to_contain_text("−")
    scores = [
        float(text.split()[0])
        for text in page.locator(f'.cell[data-run="{ids["good"]}"] .score').all_inner_texts()
    ]
    assert scores == sorted(scores), "the worst of the reference comes first"
    canvas = cells.first.locator("canvas")
    before = canvas.evaluate("node => node.toDataURL()")
    page.get_by_role("group", name="Layer").get_by_text("Error").click()
    settle(page)
    errors = canvas.evaluate("node => node.toDataURL()")
    assert errors != before
    page.locator("#focus").select_option(label="car")
    expect(page.locator(".legend")).to_contain_text("false negative")
    page.get_by_role("group", name="Layer").get_by_text("vs reference").click()
    expect(page.locator(".legend")).to_contain_text("another class than the reference")
    page.get_by_role("group", name="Layer").get_by_text("Prediction").click()
    slider = page.locator("#slider")
    slider.evaluate("node => { node.value = '0'; node.dispatchEvent(new Event('input')); }")
    expect(page.locator("#at")).to_have_text("step 49")
    slider.evaluate("node => node.dispatchEvent(new Event('change'))")
    settle(page)
    expect(cells.first).to_contain_text("step 49")
    assert "at=49" in page.url
    canvas.hover()
    expect(page.locator(".cell .at .swatch").first).to_be_visible()
    page.locator('[data-class="1"]').uncheck()
    settle(page)
    assert "off=1" in page.url
    first = page.locator(".cell canvas").nth(1)
    shown = first.evaluate("node => node.toDataURL()")
    page.keyboard.press("Escape")
    page.keyboard.press(" ")
    assert page.locator("#blink").get_attribute("aria-pressed") == "true"
    page.keyboard.press(" ")
    page.locator("#swipe").click()
    settle(page)
    assert first.evaluate("node => node.toDataURL()") != shown
    page.locator("#sort").select_option(label="largest disagreement")
    settle(page)
    page.locator("#swipe").click()
    cells.first.locator("canvas").click()
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("mean of the classes present")
    title = dialog.locator("h2").inner_text()
    page.keyboard.press("j")
    expect(dialog.locator("h2")).not_to_have_text(title)
    page.locator("#close").click()
    expect(dialog).to_be_hidden()


def test_zoom_is_linked(page: Page, shared_site: Site) -> None:
    visit(page, shared_site.address(page="samples"))
    canvas = page.locator(".cell canvas").nth(1)
    other = page.locator(".cell canvas").nth(2)
    before = other.evaluate("node => node.toDataURL()")
    canvas.hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    page.wait_for_timeout(400)
    assert other.evaluate("node => node.toDataURL()") != before
    assert "z=" in page.url
    expect(page.locator("#unzoom")).to_be_enabled()


def test_compare_and_the_way_to_samples(page: Page, shared_site: Site) -> None:
    ids = shared_site.ids()
    visit(page, shared_site.address(page="compare"))
    poor = page.locator(f'.verdict[data-run="{ids["poor"]}"]')
    expect(poor).to_contain_text(re.compile(r"worse than good|not distinguishable from good"))
    expect(poor).to_contain_text("95 % interval")
    page.locator("#cm").select_option(label="poor")
    settle(page)
    cell = page.locator("#confusions table").nth(1).locator('[data-cell="road>background"]')
    cell.click()
    expect(page.locator("#unconfuse")).to_contain_text("road taken for background by poor")
    expect(page.locator(".rowname").first).to_contain_text("pixels")
    page.go_back()
    expect(page.locator("#verdicts")).to_be_visible()


def test_sweep(page: Page, shared_site: Site) -> None:
    visit(page, shared_site.address(page="sweep"))
    expect(page.locator("#parallel")).to_have_attribute("data-lines", "3")
    expect(page.locator("#pareto")).to_have_attribute("data-front", re.compile(r"[1-3]"))
    expect(page.locator("#slice canvas").first).to_be_attached()
    page.locator("#across").select_option(label="seed")
    settle(page)
    expect(page.locator("h2", has_text="Contour")).to_be_visible()


def test_deep_link_shows_the_same_view(page: Page, shared_site: Site) -> None:
    ids = shared_site.ids()
    visit(page, shared_site.address(page="samples"))
    page.locator(f'#rail li[data-run="{ids["fair"]}"] .dot').click()
    page.locator(f'#rail li[data-run="{ids["poor"]}"] .star').click()
    page.get_by_role("group", name="Layer").get_by_text("Error").click()
    page.get_by_role("group", name="Which step").get_by_text("Epoch").click()
    settle(page)

    def view(page: Page) -> tuple:
        page.wait_for_selector(".cell .score span")
        return (
            page.locator("#rail li.on").all_inner_texts(),
            page.locator(".matrix .title").all_inner_texts(),
            page.locator(".cell .score").all_inner_texts(),
            page.locator("#at").inner_text(),
            page.locator(".cell canvas").nth(2).evaluate("node => node.toDataURL()"),
        )

    here = view(page)
    fresh = page.context.browser.new_context(viewport={"width": 1400, "height": 900})
    other = fresh.new_page()
    visit(other, page.url)
    assert view(other) == here
    fresh.close()


def test_live_updates_keep_scroll_and_zoom(page: Page, site: Site) -> None:
    visit(page, site.address(page="charts", x0=20, x1=120))
    card = page.locator('.chart[data-path="train/loss"]')
    card.scroll_into_view_if_needed()
    expect(card).to_have_attribute("data-lines", "3")
    main = page.locator("#page")
    scroll = main.evaluate("node => node.scrollTop")
    assert scroll > 0
    training_run(site.folder, "new", quality=0.8, seed=9, samples=5, created=1.77e9).close()
    site.follower.poll()
    expect(page.locator("#rail")).to_contain_text("new")
    expect(page.locator("#rail li.on")).to_have_count(4)  # five at most choose themselves
    expect(card).to_have_attribute("data-lines", "4")
    assert "x0=20" in page.url
    assert main.evaluate("node => node.scrollTop") == scroll
    expect(card).to_have_attribute("data-drawn", "step 20–120")


def test_keyboard_and_themes(page: Page, shared_site: Site) -> None:
    visit(page, shared_site.url)
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.press("Escape")
    reference = page.locator('.star[aria-pressed="true"]')
    before = reference.get_attribute("aria-label")
    page.keyboard.press("r")
    expect(reference).not_to_have_attribute("aria-label", before)
    light = page.locator("body").evaluate("node => getComputedStyle(node).backgroundColor")
    page.get_by_label("Theme").click()
    settle(page)
    assert page.locator("body").evaluate("node => getComputedStyle(node).backgroundColor") != light


def test_objects_are_matched_between_runs(page: Page, tmp_path: Path) -> None:
    step = 99
    boxes = {
        "first": [(5, 5, 30, 20, 3, 0.9), (50, 10, 30, 30, 1, 0.9), (10, 60, 20, 20, 3, 0.8)],
        "second": [
            (6, 5, 30, 20, 3, 0.95),  # kept
            (50, 12, 30, 30, 2, 0.9),  # relabelled
            (60, 60, 20, 20, 3, 0.7),  # gained; the third of the first run is lost
            (40, 70, 10, 10, 3, 0.2),  # below the threshold
        ],
    }
    for index, (name, objects) in enumerate(boxes.items()):
        run = training_run(tmp_path, name, seed=index, samples=1, epochs=2, quality=0.9 - index / 10)
        log_objects(run, names.sample_detections("street_00", step), 96, objects)
        log_objects(run, names.sample_objects("street_00"), 96, boxes["first"])
        run.close()
    site = Site(tmp_path, tmp_path / "store")
    ids = site.ids()
    chosen = f"{ids['first']},{ids['second']}"
    visit(page, site.address(page="samples", runs=chosen, layer="instances"))
    cell = page.locator(f'.cell[data-run="{ids["second"]}"]')
    expect(cell.locator(".at")).to_have_text("1 kept, 1 relabelled, 1 gained, 1 lost")
    expect(page.locator(f'.cell[data-run="{ids["first"]}"] .at')).to_have_text("3 objects")
    page.locator("#score").evaluate("n => { n.value = '0.1'; n.dispatchEvent(new Event('input')); }")
    expect(cell.locator(".at")).to_have_text("1 kept, 1 relabelled, 2 gained, 1 lost")
    page.locator('[data-class="3"]').uncheck()
    expect(cell.locator(".at")).to_have_text("1 relabelled")
    page.goto("about:blank")
    site.close()
