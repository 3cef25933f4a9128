"""Offline logs into the store: incrementally, exactly once, whatever is killed or damaged."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segtrail.server.ingest import Follower
from segtrail.server.store import Store
from tests.server.operations import PNG
from tests.server.oplog import Log, point, string, text_point


def series(store: Store, log: Log, path: str = "m") -> list[object]:
    return list(store.series(log.container, path)[1])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_followed_while_it_is_written(store: Store, tmp_path: Path) -> None:
    follower = Follower(store, [tmp_path / ".neptune"], project="ws/offline")
    assert follower.poll() == 0
    log = Log(tmp_path / ".neptune")
    log.write(string("a", "x"), point("m", 1), text_point("monitoring/stdout", "hi\n"))
    assert follower.poll() == 3
    assert follower.poll() == 0
    log.write(point("m", 2), point("m", 3))
    assert follower.poll() == 2
    found = store.attributes(log.container)
    assert found["a"].value == "x"
    assert found["sys/creation_time"].value == 1714979289000
    assert store.projects()[0]["name"] == "ws/offline"
    assert series(store, log) == [1, 2, 3]
    other = Log(tmp_path / ".neptune")
    other.write(point("m", 9))
    assert follower.poll() == 1
    assert store.runs("ws/offline").total == 2


def test_another_follower_continues_where_the_store_is(
    store: Store, open_store: Callable[[], Store], tmp_path: Path
) -> None:
    log = Log(tmp_path)
    log.write(*(point("m", i) for i in range(10)))
    assert Follower(store, [tmp_path]).poll() == 10
    log.write(point("m", 10))
    second = Follower(open_store(), [tmp_path])
    assert second.poll() == 1
    assert Follower(store, [log.path]).poll() == 0
    assert series(store, log) == list(range(11))


def test_a_torn_end_is_read_when_it_is_complete(lite: Store, tmp_path: Path) -> None:
    log = Log(tmp_path)
    follower = Follower(lite, [tmp_path])
    line = log.line(point("m", 1)) + log.line(point("m", 2))
    for i in range(0, len(line), 7):
        log.raw(line[i : i + 7])
        follower.poll()
    assert series(lite, log) == [1, 2]
    log.raw(log.line(point("m", 3)).rstrip("\n"))  # complete but for the line's end
    assert follower.poll() == 1
    log.raw("\n" + log.line(point("m", 4)))
    assert follower.poll() == 1
    assert follower.problems == []


DAMAGE = [
    lambda line: line[: len(line) // 2] + b"\n",  # cut
    lambda line: line[:20] + b"\x00" * 30 + line[50:],  # zeros
    lambda line: b"\xff" * (len(line) - 1) + b"\n",
    lambda line: b"{" + line,
    lambda line: line.replace(b'"version"', b'"versoin"'),
    lambda line: line.replace(b'"obj"', b'"obk"'),
    lambda line: line.replace(b'"version": 6', b'"version": 600000'),  # would hide all that follows
    lambda line: line[:30],  # without the line's end: the next record follows directly
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_costs_that_record_only(
    lite: Store, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    log = Log(tmp_path)
    log.write(*(point("m", i) for i in range(1, 6)))
    log.raw(damage(log.line(point("m", 6)).encode()))
    log.write(*(point("m", i) for i in range(7, 12)))
    before = snapshot(log.path)
    follower = Follower(lite, [tmp_path])
    follower.poll()
    assert [value for value in series(lite, log) if value != 6] == [*range(1, 6), *range(7, 12)]
    assert follower.problems or 6 in series(lite, log)
    assert snapshot(log.path) == before


def test_records_that_forks_flushed_again_count_once(lite: Store, tmp_path: Path) -> None:
    log = Log(tmp_path)
    lines = [log.line(point("m", i)) for i in range(1, 17)]
    for _ in range(3):
        log.raw("".join(lines[:4]))
    for _ in range(3):
        log.raw("".join(lines[:8]))
    log.raw("".join(lines))
    assert Follower(lite, [tmp_path]).poll() == 16
    assert series(lite, log) == list(range(1, 17))


def test_a_forked_child_that_logs_writes_to_the_same_run(lite: Store, tmp_path: Path) -> None:
    parent = Log(tmp_path)
    child = Log(tmp_path, container=parent.container, pid=2**22 + 2)
    parent.write(point("m", 1, 1))
    child.write(point("c", 5, 1))
    assert Follower(lite, [tmp_path]).poll() == 2
    assert lite.runs().total == 1
    assert series(lite, parent, "c") == [5]


def test_files_are_read_in_the_order_of_their_numbers(lite: Store, tmp_path: Path) -> None:
    log = Log(tmp_path)
    follower = Follower(lite, [tmp_path])
    for start in range(0, 15, 5):
        log.write(*(point("m", i) for i in range(start, start + 5)))
        if start == 5:
            follower.poll()
        log.raw(b'{"obj": {"type": "torn')  # the disk was full; the client went on in a new file
        log.rotate()
    log.write(point("m", 15))
    follower.poll()
    assert series(lite, log) == list(range(16))


def test_uploads_file_sets_artifacts_and_copies(lite: Store, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "src/deep").mkdir(parents=True)
    (work / "src/a.py").write_text("a")
    (work / "src/deep/b.py").write_text("bb")
    log = Log(work / ".neptune")
    (log.path / "upload_path" / "x_1.txt").write_text("in memory")
    log.write(
        {"type": "UploadFile", "path": ["f"], "ext": "py", "file_path": str(work / "src/a.py"),
         "tmp_file_name": None, "clean_after_upload": False},
        {"type": "UploadFile", "path": ["x"], "ext": "txt", "file_path": None, "tmp_file_name": "x_1.txt"},
        {"type": "UploadFile", "path": ["gone"], "ext": "", "file_path": "/nowhere", "tmp_file_name": None},
        {"type": "UploadFileContent", "path": ["c"], "ext": "", "file_content": "eg=="},
        {"type": "UploadFileSet", "path": ["code"], "file_globs": [f"{work}/src/**/*.py"], "reset": "True"},
        {"type": "TrackFilesToArtifact", "path": ["data"], "project_id": "made up",
         "entries": [[str(work / "src"), "train"]]},
        {"type": "LogImages", "path": ["i"], "values": [
            {"value": {"data": base64.b64encode(PNG).decode(), "name": "n", "description": ""},
             "step": 3, "ts": 1.0}]},
        string("a", "first"),
        {"type": "CopyAttribute", "path": ["b"], "container_id": "x", "container_type": "run",
         "source_path": ["a"], "source_attr_name": "String"},
        string("a", "second"),
    )  # fmt: skip
    follower = Follower(lite, [work / ".neptune"])
    assert follower.poll() == 9
    run = log.container
    assert lite.open_file(run, "f")[0].read() == b"a"
    assert lite.open_file(run, "x")[0].read() == b"in memory"
    assert lite.open_file(run, "c")[0].read() == b"z"
    assert set(lite.file_set(run, "code")) == {"src/a.py", "src/deep/b.py"}
    assert lite.attributes(run)["b"].value == "first"
    assert lite.image_series(run, "i")[0][1:5:3] == (3.0, "image/png")
    digest = lite.attributes(run)["data"].value
    with lite.read() as connection:
        project = lite.container(connection, run).project
    files, size = lite.artifact(project, digest) or ([], 0)
    assert [(file["filePath"], file["size"]) for file in files or []] == [
        ("train/a.py", 1),
        ("train/deep/b.py", 2),
    ]
    assert (files or [])[0]["fileHash"] == hashlib.sha1(b"a").hexdigest()
    assert size == 3
    assert ["/nowhere" in problem for problem in follower.problems] == [True]


def test_runs_with_one_custom_id_are_one_run(lite: Store, tmp_path: Path) -> None:
    for rank in range(2):
        log = Log(tmp_path)
        log.write(string("sys/custom_run_id", "ddp"), point(f"rank/{rank}", 1))
    Follower(lite, [tmp_path], project="ws/p").poll()
    runs = lite.runs("ws/p")
    assert runs.total == 1
    assert {"rank/0", "rank/1"} <= runs.runs[0]["attributes"].keys()
    assert lite.create_run("ws/p", custom_id="ddp") == runs.runs[0]["id"]


def test_what_an_async_client_left_is_taken_from_where_the_server_was(lite: Store, tmp_path: Path) -> None:
    lite.ensure_project("ws/p")
    run = lite.create_run("ws/p")
    log = Log(tmp_path, "async", run)
    log.write(*(point("m", i) for i in range(5)))
    (log.path / "last_ack_version").write_text("3")
    assert Follower(lite, [tmp_path]).poll() == 0  # written a moment ago: the client may still be there
    assert Follower(lite, [tmp_path], quiet=0).poll() == 2
    assert series(lite, log) == [3, 4]
    alive = Log(tmp_path, "async", run, pid=os.getpid())
    alive.write(point("m", 9))
    assert Follower(lite, [tmp_path], quiet=0).poll() == 0
    elsewhere = Log(tmp_path, "async")
    elsewhere.write(point("m", 1))
    (elsewhere.path / "last_ack_version").write_text("1")
    follower = Follower(lite, [tmp_path], quiet=0)
    assert follower.poll() == 0
    assert "another server" in follower.problems[0]


def test_a_deleted_run_does_not_come_back(lite: Store, tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(point("m", 1))
    Follower(lite, [tmp_path]).poll()
    lite.delete([log.container])
    log.write(point("m", 2))
    assert Follower(lite, [tmp_path]).poll() == 0
    assert lite.runs().total == 0


def test_a_directory_that_is_no_run_is_left_alone(lite: Store, tmp_path: Path) -> None:
    for name, content in (("a", "{}"), ("b", "not json"), ("c", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metadata.json").write_text(content)
        (tmp_path / name / "data-1.log").write_text("{}\n")
    assert Follower(lite, [tmp_path]).poll() == 0


@pytest.mark.parametrize("attempt", range(20))
def test_killed_at_a_random_point_it_still_counts_once(lite: Store, tmp_path: Path, attempt: int) -> None:
    """The follower dies by SIGKILL, perhaps in a transaction; the next one finds all and doubles nothing."""
    log = Log(tmp_path / ".neptune")
    log.write(*(point(f"m/{i % 3}", i) for i in range(3000)))
    where = str(tmp_path / "lite")
    child = os.fork()
    if child == 0:
        try:
            store = Store.open(where)
            Follower(store, [tmp_path / ".neptune"]).poll()
        finally:
            os._exit(0)
    time.sleep(random.Random(attempt).uniform(0.0, 0.25))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    Follower(lite, [tmp_path / ".neptune"]).poll()
    found = sorted(value for i in range(3) for value in series(lite, log, f"m/{i}"))
    assert found == list(range(3000))


def test_mutated_logs_never_stop_it(lite: Store, tmp_path: Path) -> None:
    chance = random.Random(5)
    log = Log(tmp_path)
    lines = [log.line(point("m", i, i)) for i in range(300)]
    data = bytearray("".join(lines).encode())
    for _ in range(60):
        position = chance.randrange(len(data))
        data[position] = chance.randrange(256)
    log.raw(bytes(data))
    last = log.line(string("end", "reached"))
    log.raw(b"\n" + last.encode())
    follower = Follower(lite, [tmp_path])
    follower.poll()
    assert lite.attributes(log.container)["end"].value == "reached"
    found = series(lite, log)
    assert len(found) >= 230
    json.dumps(found, allow_nan=False)
