"""Operations: what is accepted, what each does, and that nothing malformed gets through."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from segtrail.server.operations import (
    Append,
    Assign,
    Attribute,
    Copy,
    OperationError,
    file_name,
    parse,
    wire_item,
)
from segtrail.server.replay import Replay
from tests.server.operations import assign, do, floats, log_item, strings


def nothing_stored(series: Attribute, start: float) -> Mapping[float, Any]:
    """Stands for a store that holds no points."""
    return {}


def replay(*operations: Any) -> tuple[dict[str, Attribute], list[str]]:
    """Replays into an empty run."""
    attributes: dict[str, Attribute] = {}
    return attributes, Replay(attributes, nothing_stored).run(operations)


RECORDS = [
    ({"type": "AssignFloat", "path": ["a", "b"], "value": 0.5}, Assign("a/b", "float", 0.5)),
    ({"type": "AssignInt", "path": ["a"], "value": 3}, Assign("a", "int", 3)),
    ({"type": "AssignBool", "path": ["a"], "value": True}, Assign("a", "bool", True)),
    ({"type": "AssignString", "path": ["a"], "value": "ü"}, Assign("a", "string", "ü")),
    (
        {"type": "AssignDatetime", "path": ["a"], "value": 1700000000123},
        Assign("a", "datetime", 1700000000123),
    ),
    (
        {"type": "CopyAttribute", "path": ["b"], "source_path": ["a"], "container_id": "x"},
        Copy("b", "a"),
    ),
]


@pytest.mark.parametrize(("record", "expected"), RECORDS)
def test_offline_records_and_http_items_become_the_same_operations(
    record: dict[str, Any], expected: Any
) -> None:
    assert parse(wire_item(record)) == expected


def test_an_offline_series_record_keeps_step_and_time() -> None:
    record = {
        "type": "LogFloats",
        "path": ["m"],
        "values": [{"value": 1.5, "step": None, "ts": 12.3456}, {"value": 2, "step": 7, "ts": 13}],
    }
    operation = parse(wire_item(record))
    assert isinstance(operation, Append)
    assert operation.points.values == [1.5, 2.0]
    assert operation.points.steps == [None, 7.0]
    assert operation.points.times == [12345, 13000]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "must be an object"),
        ({}, "one known name"),
        ({"path": "a", "explode": {}}, "one known name, got 'explode'"),
        ({"path": "a", "assignFloat": {"value": 1}, "assignInt": {"value": 1}}, "one known name"),
        ({"assignFloat": {"value": 1}}, "path must be a string"),
        ({"path": "//", "assignFloat": {"value": 1}}, "path is empty"),
        ({"path": "a" * 2000, "assignFloat": {"value": 1}}, "limit is 1024"),
        ({"path": "a", "assignFloat": {}}, "has no 'value'"),
        ({"path": "a", "assignFloat": []}, "must be an object"),
        ({"path": "a", "assignFloat": {"value": "1"}}, "must be a number"),
        ({"path": "a", "assignFloat": {"value": True}}, "must be a number"),
        ({"path": "a", "assignFloat": {"value": float("nan")}}, "must be finite"),
        ({"path": "a", "assignFloat": {"value": 10**400}}, "must be finite"),
        ({"path": "a", "assignInt": {"value": 1.5}}, "whole number"),
        ({"path": "a", "assignInt": {"value": 2**60}}, "53 bits"),
        ({"path": "a", "assignBool": {"value": 1}}, "true or false"),
        ({"path": "a", "assignString": {"value": 1}}, "must be a string"),
        ({"path": "a", "logFloats": {"entries": {}}}, "must be a list"),
        ({"path": "a", "logFloats": {"entries": [1]}}, "malformed"),
        ({"path": "a", "logFloats": {"entries": [{"value": 1}]}}, "timestampMilliseconds"),
        (log_item("logFloats", "a", [1.0], ["x"], 1), "step must be a number"),
        (log_item("logImages", "a", [{"data": "?"}], None, 1), "not base64"),
        ({"path": "a", "insertStrings": {"values": [1]}}, "must be a string"),
        ({"path": "a", "setFile": {"file": {"blob": "../../etc/passwd", "size": 1}}}, "SHA-256"),
        (
            {"path": "a", "addFiles": {"files": {"../x": {"blob": "0" * 64, "size": 1}}}},
            "leaves the file set",
        ),
    ],
)
def test_a_malformed_operation_is_refused_with_its_reason(item: Any, message: str) -> None:
    with pytest.raises(OperationError, match=message):
        parse(item)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "..", "", ".", "\\\\x\\..\\..\\y"])
def test_a_file_name_cannot_leave_its_set(name: str) -> None:
    with pytest.raises(OperationError):
        file_name(name)


def test_a_file_name_is_cleaned() -> None:
    assert file_name("./a//b\\c.txt") == "a/b/c.txt"


def test_text_that_a_database_cannot_hold_is_made_storable() -> None:
    operation = parse({"path": "a", "assignString": {"value": "x\x00y\ud800"}})
    assert operation == Assign("a", "string", "x\ufffdy?")


def test_float_series_summary_is_that_of_numpy() -> None:
    values = np.random.default_rng(0).normal(5, 2, 1000)
    attributes, errors = replay(floats("m", values[:600].tolist()), floats("m", values[600:].tolist()))
    series = attributes["m"]
    assert not errors
    assert (series.count, series.value, series.last_step) == (1000, values[-1], 999)
    assert (series.min, series.max) == (values.min(), values.max())
    assert series.mean == pytest.approx(values.mean())
    assert series.variance == pytest.approx(values.var())


def test_missing_steps_continue_after_the_last_one() -> None:
    attributes, _ = replay(floats("m", [1, 2, 3, 4], [None, 10, None, 11.5]), floats("m", [5]))
    assert attributes["m"].appended.steps == [0, 10, 11, 11.5, 12]


def test_steps_must_increase_but_a_repeat_is_not_an_error() -> None:
    attributes, errors = replay(
        floats("m", [1, 2, 3], [1, 2, 3]),
        floats("m", [2, 3], [2, 3]),  # sent twice
        floats("m", [9, 4], [2, 4]),  # another value at a step that is there
    )
    assert attributes["m"].appended.values == [1, 2, 3, 4]
    assert len(errors) == 1
    assert "strictly increasing; step 2 came after step 4" in errors[0]


def test_types_do_not_mix_but_an_int_may_go_into_a_float() -> None:
    attributes, errors = replay(
        assign("Float", "a", 1.5), assign("Int", "a", 2), assign("String", "a", "x"), floats("a", [1.0])
    )
    assert attributes["a"].type == "float"
    assert attributes["a"].value == 2.0
    assert errors == ["a is of type float, not string", "a is of type float, not floatSeries"]


def test_clear_delete_and_sets() -> None:
    attributes, errors = replay(
        floats("m", [1.0, 2.0]),
        do("clearFloatSeries", "m"),
        do("clearStringSeries", "log"),  # defines an empty series
        floats("m", [7.0]),
        do("insertStrings", "sys/tags", values=["b", "a"]),
        do("removeStrings", "sys/tags", values=["b"]),
        do("insertStrings", "other", values=["a"]),
        assign("Int", "gone", 1),
        do("deleteAttribute", "gone"),
        do("deleteAttribute", "never"),
        do("configFloatSeries", "m", min=0, max=1, unit="s"),
        assign("String", "sys/owner", "somebody"),
    )
    assert attributes["m"].appended.values == [7.0]
    assert attributes["m"].appended.steps == [0.0]
    assert attributes["m"].config == {"min": 0.0, "max": 1.0, "unit": "s"}
    assert attributes["log"].count == 0
    assert attributes["sys/tags"].value == ["a"]
    assert "gone" not in attributes
    assert errors == [
        "other: string sets exist at sys/tags and sys/group_tags only",
        "never: there is no such attribute to delete",
        "sys/owner is read-only",
    ]


def test_copy_takes_the_value_of_that_moment() -> None:
    attributes, errors = replay(
        assign("Int", "a", 1),
        do("copyAttribute", "b", source="a"),
        assign("Int", "a", 2),
        do("copyAttribute", "c", source="nothing"),
    )
    assert attributes["b"].value == 1
    assert len(errors) == 1


def _seeds() -> list[Any]:
    return [
        {"path": "a/b", "assignFloat": {"value": 0.25}},
        {"path": "a/c", "assignString": {"value": "text"}},
        {"path": "a/d", "assignDatetime": {"valueMilliseconds": 1700000000000}},
        log_item("logFloats", "m/x", [1.0, 2.0], [1, 2], 1000),
        log_item("logStrings", "m/log", ["a", "b"], None, 1000),
        log_item("logImages", "m/image", [{"data": "aGk=", "name": "n", "description": None}], [1], 1000),
        {"path": "m/x", "configFloatSeries": {"min": None, "max": 1, "unit": "s"}},
        {"path": "sys/tags", "insertStrings": {"values": ["t"]}},
        {"path": "f", "setFile": {"file": {"blob": "0" * 64, "size": 3, "ext": "txt"}}},
        {"path": "fs", "addFiles": {"files": {"x/y": {"blob": "0" * 64, "size": 3}}, "reset": False}},
        {"path": "m/x", "clearFloatSeries": {}},
        {"path": "a/b", "deleteAttribute": {}},
        {"path": "z", "copyAttribute": {"source": "a/b"}},
        {"type": "LogFloats", "path": ["m", "x"], "values": [{"value": 1, "step": 3, "ts": 5.0}]},
        {"type": "AssignInt", "path": ["a", "i"], "value": 3},
        {"type": "DeleteFiles", "path": ["fs"], "file_paths": ["x"]},
    ]


_JUNK: list[Any] = [
    *(None, True, -1, 0, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "\x00", "\ud800"),
    *("../../x", "a" * 5000, [], {}, [[]], {"": 0}, [None], "sys/id"),
]


def mutate(value: Any, random: random.Random) -> Any:
    """Returns a copy with one place, somewhere, made into junk, removed or doubled."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        other = dict(value)
        choice = random.random()
        if choice < 0.1:
            del other[key]
        elif choice < 0.2:
            other[str(random.choice(_JUNK))[:50]] = other.pop(key)
        else:
            other[key] = mutate(value[key], random)
        return other
    if isinstance(value, list) and value and random.random() < 0.85:
        index = random.randrange(len(value))
        return [*value[:index], mutate(value[index], random), *value[index + random.randrange(2) :]]
    if isinstance(value, str) and random.random() < 0.3:
        return value[::-1] + random.choice(["", "/", "\\", "\n", "ü"])
    return random.choice(_JUNK)


def test_a_hundred_thousand_mutated_operations_never_crash() -> None:
    """Each is refused with one reason, or applied and storable; nothing half of both."""
    chance = random.Random(0)
    seeds = _seeds()
    attributes: dict[str, Attribute] = {}
    accepted = refused = 0
    for number in range(100_000):
        item = mutate(chance.choice(seeds), chance)
        if number % 500 == 0:
            attributes = {}
        try:
            operation = parse(wire_item(item) if isinstance(item, dict) and "type" in item else item)
        except OperationError as error:
            refused += bool(str(error))
            continue
        before = {path: attribute.count for path, attribute in attributes.items()}
        errors = Replay(attributes, nothing_stored).run([operation])
        if errors and not isinstance(operation, Append):
            assert {path: a.count for path, a in attributes.items()} == before
        accepted += 1
    assert accepted > 5_000
    assert accepted + refused == 100_000
    json.dumps([a.value for a in attributes.values() if not isinstance(a.value, dict)], allow_nan=False)


def test_strings_keep_their_line_ends() -> None:
    attributes, _ = replay(strings("log", ["two", " ", "args", "\n", "50%\r"]))
    assert "".join(attributes["log"].appended.values) == "two args\n50%\r"
