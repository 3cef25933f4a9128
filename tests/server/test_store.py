"""The run store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import sqlalchemy as sa

from segtrail.server import schema
from segtrail.server.nql import QuerySyntaxError, compile_query
from segtrail.server.series import LARGE, bucket, pack_numbers, unpack_numbers
from segtrail.server.store import ConflictError, NotFoundError, Store
from tests.server.operations import PNG, assign, do, floats, images, strings


def test_projects_and_their_runs(store: Store) -> None:
    project = store.create_project("ws/roads")
    assert store.ensure_project("ws/roads") == project
    with pytest.raises(ConflictError):
        store.create_project("ws/roads")
    with pytest.raises(ConflictError):
        store.create_project("ws/other", key="ROA")
    with pytest.raises(ValueError, match="workspace/name"):
        store.create_project("roads")
    run = store.create_run("ws/roads")
    assert store.create_run("ws/roads", custom_id="mine") == store.create_run("ws/roads", custom_id="mine")
    with pytest.raises(NotFoundError, match="no project ws/none"):
        store.create_run("ws/none")
    assert [(p["name"], p["key"], p["runs"]) for p in store.projects()] == [("ws/roads", "ROA", 2)]
    assert store.attributes(run)["sys/id"].value == "ROA-1"
    assert store.attributes(project)["sys/name"].value == "roads"


def test_two_names_that_begin_alike_get_two_keys(store: Store) -> None:
    for name in ("ws/roads", "ws/roadside", "other/roads"):
        store.create_project(name)
    assert [p["key"] for p in store.projects()] == ["ROA", "ROA", "ROA1"]


def test_processes_that_ask_at_once_for_one_custom_id_get_one_run(store: Store) -> None:
    store.ensure_project("ws/p")
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(store.create_run("ws/p", custom_id="ddp")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_every_type_comes_back_as_it_was(store: Store, run: str, open_store: Callable[[], Store]) -> None:
    key, size = store.put_file([b"con", b"tent"])
    errors = store.apply(
        run,
        [
            assign("Float", "a/float", 0.1),
            assign("Int", "a/int", -7),
            assign("Bool", "a/bool", True),
            assign("String", "a/string", "gr\u00fcn \u2713"),
            do("assignDatetime", "a/time", valueMilliseconds=1_700_000_000_123),
            do("assignArtifact", "a/artifact", hash="0" * 64),
            do("insertStrings", "sys/tags", values=["b", "a"]),
            do("setFile", "a/file", file={"blob": key, "size": size, "ext": "txt"}),
            do("addFiles", "a/files", files={"x/y.txt": {"blob": key, "size": size, "mtime": 5}}),
            floats("m/loss", [3.0, 1.0, 2.0]),
            strings("m/log", ["one\n", "two\n"]),
            images("m/image", [PNG, b"not an image"]),
        ],
    )
    assert errors == []
    other = open_store()  # as another process
    found = other.attributes(run)
    assert [found[f"a/{name}"].value for name in ("float", "int", "bool", "string", "time")] == [
        *(0.1, -7, True, "gr\u00fcn \u2713", 1_700_000_000_123)
    ]
    assert found["sys/tags"].value == ["a", "b"]
    assert found["sys/size"].value == 2 * size
    loss = found["m/loss"]
    assert (loss.value, loss.min, loss.max, loss.mean, loss.count, loss.last_step) == (2, 1, 3, 2, 3, 2)
    steps, values, times = other.series(run, "m/loss")
    assert (steps.tolist(), values.tolist(), times.tolist()) == ([0, 1, 2], [3, 1, 2], [1000, 1001, 1002])
    assert other.text_series(run, "m/log", 1, 5) == {
        "total": 2,
        "steps": [1.0],
        "values": ["two\n"],
        "times": [1001],
    }
    first, second = other.image_series(run, "m/image")
    assert first[:3] == (0, 0.0, 1000)
    assert first[4] == "image/png"
    assert other.open_blob(first[3]).read() == PNG
    assert other.open_blob(second[3]).read() == b"not an image"
    file, info = other.open_file(run, "a/file")
    assert (file.read(), info["name"], info["size"]) == (b"content", "file.txt", 7)
    assert other.open_file(run, "a/files", "x/y.txt")[0].read() == b"content"
    with pytest.raises(NotFoundError, match="no file a/none"):
        other.open_file(run, "a/none")
    assert set(other.attributes(run, "m/")) == {"m/loss", "m/log", "m/image"}


@pytest.mark.parametrize("sizes", [[1] * 40, [LARGE + 5, 3, LARGE, 2], [700] * 35])
def test_however_a_series_arrives_it_reads_the_same(store: Store, run: str, sizes: list[int]) -> None:
    random = np.random.default_rng(1)
    n = sum(sizes)
    steps = np.cumsum(random.integers(1, 3, n)).astype(float)
    values = random.normal(size=n)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        assert store.apply(run, [floats("m", values[part].tolist(), steps[part].tolist(), at=start)]) == []
        start += size
    read_steps, read_values, times = store.series(run, "m")
    np.testing.assert_array_equal(read_steps, steps)
    np.testing.assert_array_equal(read_values, values)
    np.testing.assert_array_equal(times, np.arange(n))
    low, high = steps[n // 3], steps[n // 2]
    part_steps, part_values, _ = store.series(run, "m", low, high)
    inside = (steps >= low) & (steps <= high)
    np.testing.assert_array_equal(part_steps, steps[inside])
    np.testing.assert_array_equal(part_values, values[inside])
    page = store.series_page(run, "m", "floatSeries", n // 2, 10)
    assert page["values"] == values[n // 2 : n // 2 + 10].tolist()
    with store.read() as connection:
        rows = connection.scalar(sa.select(sa.func.count()).select_from(schema.chunks))
    assert rows <= 33 + n // LARGE


def test_a_series_can_be_cleared_deleted_and_begun_again(store: Store, run: str) -> None:
    store.apply(run, [floats("m", list(range(50)))])
    store.apply(run, [do("clearFloatSeries", "m"), floats("m", [7.0], at=5)])
    assert store.series(run, "m")[1].tolist() == [7.0]
    store.apply(run, [do("deleteAttribute", "m"), strings("m", ["now text"])])
    assert store.series(run, "m")[1] == ["now text"]
    store.apply(run, [do("deleteAttribute", "m")])
    with pytest.raises(NotFoundError, match="no attribute m"):
        store.series(run, "m")


def test_a_step_that_is_stored_is_a_repeat_and_another_value_there_an_error(store: Store, run: str) -> None:
    store.apply(run, [floats("m", [1, 2, 3], [1, 2, 3])])
    assert store.apply(run, [floats("m", [2, 3, 4], [2, 3, 4])]) == []
    assert "strictly increasing" in store.apply(run, [floats("m", [9.0], [2])])[0]
    store.apply(run, [images("i", [PNG], [1])])
    assert store.apply(run, [images("i", [PNG], [1])]) == []
    assert len(store.apply(run, [images("i", [b"other"], [1])])) == 1
    assert store.series(run, "m")[1].tolist() == [1, 2, 3, 4]


def test_buckets_are_exact_and_shared(store: Store) -> None:
    store.ensure_project("ws/p")
    random = np.random.default_rng(2)
    data = {}
    for n, first in ((5000, 0), (900, 2500)):
        run = store.create_run("ws/p")
        steps, values = first + np.arange(n) * 2.0, random.normal(size=n)
        store.apply(run, [floats("m", values.tolist(), steps.tolist(), at=100)])
        data[run] = steps, values
    missing = store.create_run("ws/p")
    view = store.series_buckets([*data, missing], "m", 64)
    assert set(view.runs) == set(data)
    assert (view.edges[0], view.edges[-1], len(view.edges)) == (0, 9998, 65)
    for run, (steps, values) in data.items():
        index = np.minimum(np.searchsorted(view.edges, steps, side="right") - 1, 63)
        for i in range(64):
            inside = values[index == i]
            result = {name: array[i] for name, array in view.runs[run].items()}
            assert result["count"] == len(inside)
            if len(inside):
                assert result["min"] == np.float32(inside.min())
                assert result["max"] == np.float32(inside.max())
                assert result["mean"] == pytest.approx(inside.mean(), abs=1e-6)
            else:
                assert np.isnan(result["min"])
    zoomed = store.series_buckets(list(data), "m", 10, start=2500, stop=2600)
    assert zoomed.edges[0] == 2500
    assert sum(b["count"].sum() for b in zoomed.runs.values()) == 102
    by_time = store.series_buckets(list(data), "m", 4, x="time")
    assert by_time.edges[0] == 100
    with pytest.raises(ValueError, match="x must be"):
        store.series_buckets(list(data), "m", 4, x="epoch")


def test_regular_steps_take_no_room() -> None:
    assert len(pack_numbers(np.arange(100_000) * 10.0, "<f8")) == 17
    for numbers in (np.arange(5) * 0.1, np.array([1.0, 2, 4]), np.array([3.0]), np.empty(0)):
        np.testing.assert_array_equal(
            unpack_numbers(pack_numbers(numbers, "<f8"), len(numbers), "<f8"), numbers
        )


def test_one_point_makes_one_bucket() -> None:
    result = bucket(np.array([5.0]), np.array([2.0]), np.linspace(5, 5, 4))
    assert result["count"].sum() == 1


def test_two_writers_to_one_run_lose_nothing(store: Store, open_store: Callable[[], Store]) -> None:
    store.ensure_project("ws/p")
    run = store.create_run("ws/p")
    failures: list[Exception] = []

    def write(path: str) -> None:
        mine = open_store()
        try:
            for i in range(12):
                mine.apply(run, [floats(path, [float(i)]), floats("shared", [float(i)])])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"rank/{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(store.series(run, "shared")[0]) == 48
    for i in range(4):
        assert store.series(run, f"rank/{i}")[1].tolist() == list(range(12))


def test_changes_tell_what_to_read_again(store: Store) -> None:
    store.ensure_project("ws/p")
    first, second = store.create_run("ws/p"), store.create_run("ws/p")
    version, _ = store.changes(0)
    assert store.changes(version) == (version, [])
    store.apply(second, [floats("m", [1.0])])
    newer, changed = store.changes(version)
    assert newer > version
    assert changed == [second]
    store.trash([first])
    assert store.changes(newer)[1] == [first]


def test_tags_trash_and_deletion(store: Store, run: str) -> None:
    store.set_tags(run, ["b", "a"])
    store.set_tags(run, ["c", "a"])
    assert store.attributes(run)["sys/tags"].value == ["a", "c"]
    store.trash([run])
    assert store.runs(query="sys/trashed = false").total == 0
    store.restore([run])
    assert store.runs(query="sys/trashed = false").total == 1
    store.apply(run, [floats("m", [1.0])])
    store.delete([run])
    assert store.runs().total == 0
    with store.read() as connection:
        for table in (schema.attributes, schema.chunks, schema.files):
            owner = store.project_row(connection, "ws/project").container
            assert not connection.execute(sa.select(table).where(table.c.container != owner)).all()


def test_a_failed_transaction_leaves_nothing(store: Store, run: str) -> None:
    before = store.attributes(run)

    def fail(*_: object) -> list[object]:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        store.apply_with(run, [floats("m", [1.0])], guard=fail)  # type: ignore[arg-type]
    assert store.attributes(run).keys() == before.keys()
    assert store.apply(run, [floats("m", [1.0])]) == []


# ------------------------------------------------------------------ lists of runs


@pytest.fixture
def table(store: Store) -> tuple[Store, list[str]]:
    """Twelve runs whose attributes follow from their number."""
    store.ensure_project("ws/table")
    ids = []
    for i in range(12):
        run = store.create_run("ws/table", created=1_700_000_000_000 + i * 3_600_000, custom_id=f"run-{i}")
        operations = [
            assign("Float", "parameters/lr", 0.1 * i),
            assign("String", "parameters/loss name", ["dice", "lovasz", 'a "quoted" one'][i % 3]),
            assign("Bool", "even", i % 2 == 0),
            floats("val/mIoU", [1 - i / 20, i / 20]),
            do("insertStrings", "sys/tags", values=[f"t{i % 4}", "all"]),
        ]
        store.apply(run, operations if i else operations[:1])
        ids.append(run)
    return store, ids


QUERIES = [
    ("", lambda i: True),
    ("`parameters/lr`:float > 0.45", lambda i: 0.1 * i > 0.45),
    ("parameters/lr >= 0.45 AND parameters/lr < 0.8", lambda i: 0.45 <= 0.1 * i < 0.8),
    ("`parameters/loss name`:string = 'dice'", lambda i: i and i % 3 == 0),
    ('`parameters/loss name`:string = "a \\"quoted\\" one"', lambda i: i and i % 3 == 2),
    ("`parameters/loss name` CONTAINS lov", lambda i: i and i % 3 == 1),
    ("`parameters/loss name`:string MATCHES '^(dice|lov)'", lambda i: i and i % 3 < 2),
    ("even:bool = true", lambda i: i and i % 2 == 0),
    ("(`sys/tags`: stringSet CONTAINS 't2')", lambda i: i and i % 4 == 2),
    ("NOT `sys/tags`:stringSet CONTAINS t2 AND even = true", lambda i: i and i % 4 != 2 and i % 2 == 0),
    ("`val/mIoU`:floatSeries > 0.3", lambda i: i / 20 > 0.3),
    ("max(`val/mIoU`:floatSeries) > 0.8", lambda i: i and max(1 - i / 20, i / 20) > 0.8),
    ("min(val/mIoU) <= 0.2 or sys/custom_run_id = 'run-7'", lambda i: i and (i / 20 <= 0.2 or i == 7)),
    ('`sys/creation_time`:datetime > "2023-11-15T04:00:00Z"', lambda i: i >= 6),
    ("((sys/id:string != 'TAB-3'))", lambda i: i != 2),
    ("nothing:float = 1", lambda i: False),
    ("sys/state:experimentState = idle", lambda i: i == 99),
    ("`sys/trashed`:bool = false", lambda i: True),
]


def test_queries(table: tuple[Store, list[str]]) -> None:
    store, ids = table
    for query, expected in QUERIES:
        page = store.runs("ws/table", query=query, sort="sys/creation_time", columns=[])
        wanted = [run for i, run in enumerate(ids) if expected(i)]
        assert [run["id"] for run in page.runs] == wanted, query
        assert page.total == len(wanted)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("a >", "expected a value at character 4"),
        ("a", "expected an operator"),
        ("(a = 1", r"expected '\)'"),
        ("a = 1 b = 2", "expected AND, OR or the end at character 7, found 'b = 2'"),
        ("a:colour = 1", "'colour' is no type of attribute"),
        ("a:float = red", "'red' is no float"),
        ("a:datetime = yesterday", "is no datetime"),
        ("a:float CONTAINS 1", "needs text"),
        ("(" * 500 + "a = 1", "nested deeper"),
    ],
)
def test_a_query_that_makes_no_sense_is_told_where(query: str, message: str) -> None:
    with pytest.raises(QuerySyntaxError, match=message):
        compile_query(query, lambda path: 1, 0)


def test_sorting_and_pages(table: tuple[Store, list[str]]) -> None:
    store, ids = table
    assert [r["id"] for r in store.runs("ws/table", columns=[], limit=2).runs] == ids[:-3:-1]
    by_score = store.runs("ws/table", sort="val/mIoU", descending=True, columns=["val/mIoU"])
    assert [run["id"] for run in by_score.runs] == [*ids[:0:-1], ids[0]]
    assert by_score.runs[-1]["attributes"] == {}
    assert by_score.runs[0]["attributes"]["val/mIoU"]["min"] == pytest.approx(0.45)
    best = store.runs("ws/table", sort="val/mIoU", aggregate="max", descending=True, columns=[], limit=1)
    assert best.runs[0]["id"] == ids[1]
    by_text = store.runs("ws/table", sort="parameters/loss name", columns=[], limit=2, offset=1)
    assert [run["id"] for run in by_text.runs] == [ids[5], ids[8]]
    assert by_text.total == 12
    everything = store.runs("ws/table", limit=1).runs[0]
    assert everything["attributes"]["sys/tags"] == {"type": "stringSet", "value": ["all", "t3"]}
    assert everything["attributes"]["parameters/lr"] == {"type": "float", "value": pytest.approx(1.1)}
    assert store.runs("ws/table", limit=0).total == 12


def test_a_list_takes_the_same_number_of_statements_however_long(table: tuple[Store, list[str]]) -> None:
    store, _ = table
    counts = []
    for limit in (1, 12):
        statements: list[str] = []

        def note(*event: object, seen: list[str] = statements) -> None:
            seen.append(str(event[2]))

        sa.event.listen(store.engine, "before_cursor_execute", note)
        store.runs("ws/table", limit=limit, columns=["val/mIoU", "parameters/lr"], sort="val/mIoU")
        sa.event.remove(store.engine, "before_cursor_execute", note)
        counts.append(len(statements))
        assert not any("chunks" in statement for statement in statements)
    assert counts[0] == counts[1] <= 5


# ------------------------------------------------------------------ opening


def test_a_store_of_a_newer_version_is_refused(store: Store, open_store: Callable[[], Store]) -> None:
    with store.write() as connection:
        schema.upsert(connection, schema.meta, [{"key": "version", "value": "99"}])
    with pytest.raises(RuntimeError, match="update segtrail"):
        open_store()


def test_migrations_run_once_and_in_order(
    store: Store, run: str, open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_note(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE containers ADD COLUMN note TEXT"))

    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, add_note])
    for _ in range(2):
        newer = open_store()
        with newer.read() as connection:
            assert connection.execute(sa.text("SELECT note FROM containers")).all()
        assert newer.attributes(run)


def test_a_database_without_a_file_needs_a_folder_for_blobs() -> None:
    with pytest.raises(ValueError, match="--blobs"):
        Store.open("postgresql+psycopg://nobody@nowhere/none")


def test_blobs_can_be_in_any_fsspec_store(tmp_path: object) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/x.db", "memory://blobs-of-a-test")
    key, size = store.put_file([b"ab", b"c"])
    assert (size, store.open_blob(key).read()) == (3, b"abc")
    assert list(store.blobs) == [key]
    with pytest.raises(KeyError, match="SHA-256"):
        store.open_blob("../../etc/passwd")
    with pytest.raises(KeyError, match="is not in"):
        store.open_blob("0" * 64)
    store.close()
