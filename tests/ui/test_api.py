"""The API behind the pages, without a browser."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from segtrail.server.ingest import Follower
from segtrail.server.series import PointCache
from segtrail.server.store import Store
from segtrail.tracking import names
from segtrail.tracking.histogram import Histogram, encode_histograms
from segtrail.ui.app import create_app
from segtrail.ui.columns import _column
from segtrail.ui.report import build_report, find_run
from tests.ui.offline import CLASSES, IGNORE, OfflineRun, confusion, predict, scene, training_run


class Api:
    """Runs of a folder behind a test client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(str(folder / "store"))
        self.follower = Follower(self.store, [folder / ".neptune"])
        self.client = TestClient(create_app(self.store))
        self.read()

    def read(self) -> None:
        self.follower.poll()
        page = self.store.runs(columns=["sys/name"])
        self.ids = {run["attributes"].get("sys/name", {}).get("value", ""): run["id"] for run in page.runs}

    def get(self, path: str, /, **query: object) -> dict:
        reply = self.client.get(f"/ui/api/{path}", params=query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def post(self, path: str, body: dict) -> dict:
        """A binary reply as a dict of header entries and arrays, or a JSON one."""
        reply = self.client.post(f"/ui/api/{path}", json=body)
        assert reply.status_code == 200, reply.text
        if reply.headers["content-type"] == "application/json":
            return reply.json()
        (length,) = struct.unpack_from("<I", reply.content)
        header = json.loads(reply.content[4 : 4 + length])
        offset = -(-(4 + length) // 8) * 8
        for name, code, count in header["arrays"]:
            dtype = np.dtype({"f4": "<f4", "f8": "<f8", "u1": "u1", "i4": "<i4"}[code])
            header[name] = np.frombuffer(reply.content, dtype, count, offset)
            offset += -(-count * dtype.itemsize // 8) * 8
        return header


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    training_run(folder, "first", quality=0.9, samples=4, epochs=3, tags=("baseline",)).close()
    training_run(
        folder, "second", quality=0.6, samples=4, epochs=3, seed=1, loss="dice", model="unet"
    ).close()
    spiky = OfflineRun(folder, "spiky")
    values = np.zeros(20_000)
    values[12_345] = 50.0
    spiky.floats("train/loss", values)
    spiky.floats("val/mIoU", [0.1, float("nan"), 0.2], [0, 10, 20])
    spiky.close()
    api = Api(folder)
    yield api
    api.store.close()


def test_runs_table_has_the_columns_that_vary(api: Api) -> None:
    project = api.get("projects")["projects"][0]
    table = api.get("runs", project=project)
    columns = {column["path"]: column for column in table["columns"]}
    assert columns["parameters/loss/_target_"]["varies"]
    assert columns["val/mIoU"]["type"] == "floatSeries"
    assert not any(path.startswith("val/IoU/") for path in columns), "classes come when they are asked for"
    assert len(table["runs"]) == len(columns["val/mIoU"]["max"]) == 3
    extra = api.get("runs", project=project, columns=["val/IoU/car"], ids=[api.ids["first"]])
    assert [run["name"] for run in extra["runs"]] == ["first"]
    assert any(column["path"] == "val/IoU/car" for column in extra["columns"])
    assert api.get("columns", project=project, search="iou/ca")["paths"] == ["val/IoU/car"]


def test_curves_keep_spikes_and_tell_of_points_that_are_not_finite(api: Api) -> None:
    run = api.ids["spiky"]
    reply = api.post("series", {"runs": [run], "path": "train/loss", "buckets": 200})
    assert not reply["exact"]
    assert reply["high"].max() == 50
    assert reply["mean"].max() == pytest.approx(0.5)
    exact = api.post("series", {"runs": [run], "path": "val/mIoU", "buckets": 200})
    assert exact["exact"]
    assert exact["x"].tolist() == [0, 20]
    assert exact["nonfinite"] == {run: [[10.0, "nan"]]}
    part = api.post("series", {"runs": [run], "path": "train/loss", "start": 12_345, "stop": 12_345})
    assert part["mean"].tolist() == [50]


@pytest.mark.parametrize(("x", "expected"), [("step", [49, 99, 149]), ("epoch", [0, 1, 2])])
def test_curves_of_several_runs_share_x(api: Api, x: str, expected: list[float]) -> None:
    runs = [api.ids["first"], api.ids["spiky"], api.ids["second"]]
    reply = api.post("series", {"runs": runs, "path": "val/loss", "x": x})
    assert reply["x"].tolist() == expected
    table = reply["mean"].reshape(3, -1)
    assert np.isfinite(table[[0, 2]]).all()
    assert np.isnan(table[1]).all(), "a run without the series has none"


@pytest.mark.parametrize("x", ["time", "relative"])
def test_curves_by_time_rise(api: Api, x: str) -> None:
    reply = api.post("series", {"runs": [api.ids["first"]], "path": "train/loss", "x": x, "buckets": 50})
    assert len(reply["x"]) > 2
    assert (np.diff(reply["x"]) > 0).all()


def test_label_maps_come_without_loss(api: Api) -> None:
    run, path = api.ids["second"], names.sample_prediction("street_01")
    cells = [
        [run, path, 2],
        [run, names.sample_target("street_01"), None],
        [run, path, 99],
        [run, "no", None],
    ]
    reply = api.post("labels", {"cells": cells, "size": 0})
    first = reply["cells"][0]
    shown = reply["pixels"][first["offset"] :][: first["width"] * first["height"]].reshape(96, 96)
    quality = 0.6 * (1 - 0.6 * np.exp(-1.5 * 3 / 3 * 2))
    assert (shown == predict(scene(1)[1], quality, 1000 + 10 + 2)).all()
    assert "no image 99" in reply["cells"][2]["missing"]
    assert "missing" in reply["cells"][3]
    small = api.post("labels", {"cells": cells[:1], "size": 50})["cells"][0]
    assert (small["width"], small["full"]) == (48, [96, 96])


def test_scores_equal_the_evaluation(api: Api) -> None:
    run = api.ids["second"]
    cells = [{"run": run, "sample": f"street_{i:02d}", "index": 2} for i in range(4)]
    reply = api.post("scores", {"cells": cells, "reference": run, "ignore_index": IGNORE})["scores"]
    target = scene(2)[1]
    counts = confusion(target, predict(target, 0.6 * (1 - 0.6 * np.exp(-3)), 1000 + 20 + 2), len(CLASSES))
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    assert reply[2]["iou"] == pytest.approx((np.diag(counts) / union).tolist(), abs=1e-6)
    assert sum(pixels for _, _, pixels in reply[2]["wrong"]) == counts.sum() - np.trace(counts)
    assert reply[2]["disagreement"] == 0
    assert reply[3]["iou"][3] is None or counts.shape == (4, 4)


def test_compare_tests_against_the_reference(api: Api) -> None:
    runs = [api.ids["first"], api.ids["second"], api.ids["spiky"]]
    page = api.get("compare", runs=runs, reference=runs[0])
    assert page["classes"] == list(CLASSES)
    assert page["missing"][0]["run"] == runs[2]
    second = page["runs"][1]
    assert second["difference"][-1] == pytest.approx(second["mean"] - page["runs"][0]["mean"])
    assert second["low"][-1] <= second["difference"][-1] <= second["high"][-1]
    assert second["paired"] == 4
    matrix = np.array(api.get("confusion", run=runs[1])["counts"])
    assert matrix.sum(axis=1).tolist() == second["support"]
    scatter = api.get("scatter", run=runs[1], reference=runs[0])
    assert len(scatter["images"]) == len(scatter["x"]) == len(scatter["y"]) == 4


def test_diff_warns_of_an_unfair_comparison(tmp_path: Path) -> None:
    training_run(tmp_path, "a", samples=2, epochs=1).close()
    other = training_run(tmp_path, "b", samples=3, epochs=1)
    other.assign("parameters/dataset/size", 128)
    other.close()
    api = Api(tmp_path)
    found = api.get("diff", runs=[api.ids["a"], api.ids["b"]], reference=api.ids["a"])
    reasons = found["warnings"][0]["reasons"]
    assert "data or preprocessing differ: dataset.size" in reasons
    assert "they were evaluated on different val images" in reasons
    assert {row["path"] for row in found["rows"] if row["differs"]} == {"parameters/dataset/size"}
    lines = api.get("textdiff", run=api.ids["b"], reference=api.ids["a"], path="config/yaml")["lines"]
    assert lines == []
    api.store.close()


def test_weights_flag_dead_and_exploding_layers(tmp_path: Path) -> None:
    run = OfflineRun(tmp_path, "weights")
    for step, scale in ((0, 1.0), (10, 20.0)):
        layers = {
            "grows": Histogram(np.full(64, 5), -scale, scale),
            "dies": Histogram(np.r_[100, np.zeros(63, int)], 0.0, 0.0 if step else 1.0),
            "fine": Histogram(np.full(64, 5), -1.0, 1.0),
        }
        run.upload(names.histograms(step), encode_histograms(layers), "npz")
    run.close()
    api = Api(tmp_path)
    page = api.get("weights", run=api.ids["weights"])
    assert page["flags"] == {"grows": "exploding", "dies": "dead"}
    assert page["steps"] == [0, 10]
    ridges = api.get("ridgelines", runs=[api.ids["weights"]], layer="grows")
    rows = np.array(ridges["runs"][api.ids["weights"]]["rows"])
    assert rows.sum(axis=1) == pytest.approx([1, 1])
    assert (ridges["edges"][0], ridges["edges"][-1]) == (-20, 20)
    api.store.close()


def test_importance_finds_what_matters(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(12):
        run = OfflineRun(tmp_path, f"trial {index}")
        run.assign("parameters/optimizer/lr", float(index))
        run.assign("parameters/model/width", int(rng.integers(0, 100)))
        run.assign("parameters/loss/name", "dice" if index % 2 else "focal")
        run.floats("val/mIoU", [0.5 - 0.01 * index])
        run.close()
    api = Api(tmp_path)
    project = api.get("projects")["projects"][0]
    found = api.get("importance", project=project, metric="val/mIoU")["importance"]
    assert found[0]["path"] == "parameters/optimizer/lr"
    assert (found[0]["share"], found[0]["sign"]) == (pytest.approx(1), -1)
    assert len(found) == 3
    api.store.close()


def test_changes_tell_what_is_new(api: Api) -> None:
    before = api.get("changes", since=0)
    assert set(api.ids.values()) <= set(before["runs"])
    assert api.get("changes", since=before["version"])["runs"] == []


def test_other_sites_cannot_change_anything(api: Api) -> None:
    body = {"runs": [api.ids["first"]]}
    foreign = {"sec-fetch-site": "cross-site"}
    assert api.client.post("/ui/api/trash", json=body, headers=foreign).status_code == 403
    assert api.client.get("/", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["/ui/static/../app.py", "/ui/static/%2e%2e/app.py", "/ui/static/none.js", "/ui/file?run=x&path=y"],
)
def test_what_is_not_there_is_a_404(api: Api, path: str) -> None:
    assert api.client.get(path).status_code == 404


def test_pages_carry_a_strict_policy(api: Api) -> None:
    reply = api.client.get("/")
    policy = reply.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert reply.headers["etag"]
    again = api.client.get("/", headers={"if-none-match": reply.headers["etag"]})
    assert again.status_code == 304


def test_neptune_address_leads_to_the_run(api: Api) -> None:
    run = api.store.runs(columns=[]).runs[0]
    reply = api.client.get(f"/{run['project']}/e/{run['sys_id']}/metadata", follow_redirects=False)
    assert reply.headers["location"].endswith(f"page=run&run={run['id']}")
    assert api.client.get(f"/{run['project']}/e/NO-1", follow_redirects=False).status_code == 404


def test_report_is_one_file_and_escapes_what_runs_say(tmp_path: Path) -> None:
    attack = "<img src=x onerror=alert(1)>"
    for seed in range(2):
        run = training_run(
            tmp_path,
            attack + str(seed),
            seed=seed,
            samples=2,
            epochs=1,
            model=attack,
            classes=(attack, *"bcd"),
        )
        run.assign(f"parameters/{attack}", seed)
        run.close()
    api = Api(tmp_path)
    text = build_report(api.store, list(api.ids.values()))
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "<script" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text.count("data:image/") == 2 * 4
    assert find_run(api.store, attack + "1") == api.ids[attack + "1"]
    with pytest.raises(KeyError, match="there is no run nothing"):
        find_run(api.store, "nothing")
    api.store.close()


def test_zooming_sees_points_logged_since_the_curve_was_read(tmp_path: Path) -> None:
    run = OfflineRun(tmp_path, "grows")
    run.floats("train/loss", range(3000))
    run._file.flush()
    api = Api(tmp_path)
    body = {"runs": [api.ids["grows"]], "path": "train/loss", "buckets": 100}
    zoom = {**body, "start": 2990, "stop": 3010}
    cold = api.post("series", zoom)["x"].tolist()
    assert api.post("series", body)["low"][0] == 0
    assert api.post("series", zoom)["x"].tolist() == cold == list(range(2990, 3000))
    run.floats("train/loss", range(3000, 3100), range(3000, 3100))
    run.close()
    api.read()
    assert api.post("series", zoom)["mean"].tolist() == list(range(2990, 3011))
    assert api.post("series", body)["high"].max() == 3099
    assert api.post("series", zoom)["mean"].tolist() == list(range(2990, 3011))
    api.store.close()


def test_series_in_memory_stay_below_their_limit() -> None:
    cache = PointCache(limit=1000)
    points = np.arange(400.0)
    for path in (1, 2):
        cache.put((1, path), 7, points, points)
    assert cache.get((1, 1), 7) is not None
    cache.put((1, 3), 7, points, points)
    assert cache.get((1, 2), 7) is None, "the one that was not used goes"
    assert cache.get((1, 1), 7) is not None
    assert cache.get((1, 1), 8) is None, "the run has changed"
    cache.put((1, 4), 7, np.arange(1000.0), np.arange(1000.0))
    assert cache.get((1, 4), 7) is None
    assert cache.get((1, 3), 7) is not None


@pytest.mark.parametrize(
    ("values", "varies"),
    [([], False), ([math.nan, math.nan], False), ([math.nan, 1.0], True), ([1.0, 1.0], False)],
)
def test_a_column_varies_where_values_look_different(values: list[float], varies: bool) -> None:
    assert _column("val/mIoU", "float", [{"value": value} for value in values])["varies"] is varies
