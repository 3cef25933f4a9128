"""Queries over runs: Neptune's query language, compiled to SQL."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from segtrail.server.schema import attributes, containers

TYPES = frozenset(
    (
        *("float", "int", "bool", "string", "datetime", "file", "fileSet", "floatSeries", "stringSeries"),
        *("imageSeries", "stringSet", "gitRef", "experimentState", "notebookRef", "artifact"),
    )
)
# A run without a ping for this long is idle. Clients ping every 10 seconds.
IDLE_AFTER_MS = 30_000

_Column = Any
Resolve = Callable[[str], int | None]


class QuerySyntaxError(ValueError):
    """The query cannot be understood; the message says where."""


def _state(c: Any, now: int) -> _Column:
    return sa.case((c.pinged > now - IDLE_AFTER_MS, "running"), else_="idle")


# System attributes that are columns of the container: type, and the column for a query at time `now`.
SYSTEM: dict[str, tuple[str, Callable[[Any, int], _Column]]] = {
    "sys/id": ("string", lambda c, now: c.sys_id),
    "sys/custom_run_id": ("string", lambda c, now: c.custom_id),
    "sys/creation_time": ("datetime", lambda c, now: c.created),
    "sys/modification_time": ("datetime", lambda c, now: c.modified),
    "sys/ping_time": ("datetime", lambda c, now: c.pinged),
    "sys/running_time": ("float", lambda c, now: c.running / 1000.0),
    "sys/monitoring_time": ("int", lambda c, now: c.running / 1000),
    "sys/size": ("float", lambda c, now: c.size),
    "sys/trashed": ("bool", lambda c, now: c.trashed),
    "sys/state": ("experimentState", _state),
}

AGGREGATES: dict[str, _Column] = {
    "last": attributes.c.num,
    "min": attributes.c.min,
    "max": attributes.c.max,
    "average": attributes.c.mean,
    "mean": attributes.c.mean,
    "variance": attributes.c.m2 / sa.func.nullif(attributes.c.n, 0),
}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "CONTAINS": lambda a, b: a.contains(b, autoescape=True),
    "MATCHES": lambda a, b: a.regexp_match(b),
}
_NUMERIC = frozenset({"float", "int", "bool", "datetime", "floatSeries"})

_NAME = re.compile(r"`([^`]+)`|([^\s()`\"'=!<>:]+)")
_TYPE = re.compile(r"\s*:\s*(\w+)")
_OPERATOR = re.compile(r"\s*(!=|>=|<=|==|=|>|<|CONTAINS\b|MATCHES\b)", re.IGNORECASE)
_VALUE = re.compile(r"\s*(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|([^\s()]+))")
_WORD = re.compile(r"\s*(AND|OR|NOT)\b(?!\s*:)", re.IGNORECASE)
_SPACE = re.compile(r"\s*")
MAX_DEPTH = 100


@dataclass
class _Parser:
    query: str
    resolve: Resolve
    now: int
    at: int = 0
    depth: int = 0

    def fail(self, expected: str) -> QuerySyntaxError:
        found = self.query[self.at : self.at + 20].strip() or "the end"
        return QuerySyntaxError(f"expected {expected} at character {self.at + 1}, found {found!r}")

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.query, self.at)
        if match:
            self.at = match.end()
        return match

    def symbol(self, symbol: str) -> bool:
        self.take(_SPACE)
        found = self.query.startswith(symbol, self.at)
        self.at += found
        return found

    def word(self, wanted: str) -> bool:
        match = _WORD.match(self.query, self.at)
        if match and match[1].upper() == wanted:
            self.at = match.end()
            return True
        return False

    def disjunction(self) -> _Column:
        terms = [self.conjunction()]
        while self.word("OR"):
            terms.append(self.conjunction())
        return sa.or_(*terms) if len(terms) > 1 else terms[0]

    def conjunction(self) -> _Column:
        terms = [self.term()]
        while self.word("AND"):
            terms.append(self.term())
        return sa.and_(*terms) if len(terms) > 1 else terms[0]

    def term(self) -> _Column:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise QuerySyntaxError(f"the query is nested deeper than {MAX_DEPTH}")
        try:
            if self.word("NOT"):
                return sa.not_(self.term())
            if self.symbol("("):
                inner = self.disjunction()
                if not self.symbol(")"):
                    raise self.fail("')'")
                return inner
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> _Column:
        name = self.name()
        aggregate = None
        if name in AGGREGATES and self.symbol("("):
            aggregate, name = name, self.name()
        type = self.type()
        if aggregate:
            if not self.symbol(")"):
                raise self.fail("')'")
            type = type or self.type() or "floatSeries"
        operator = self.take(_OPERATOR)
        if not operator:
            raise self.fail("an operator (= != > >= < <= CONTAINS MATCHES)")
        value = self.take(_VALUE)
        if not value:
            raise self.fail("a value")
        quoted = value[1] if value[1] is not None else value[2]
        literal = value[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        return self.compare(name, type, aggregate, operator[1].upper(), literal, quoted is not None)

    def name(self) -> str:
        self.take(_SPACE)
        match = self.take(_NAME)
        if not match:
            raise self.fail("the name of an attribute")
        return match[1] or match[2]

    def type(self) -> str | None:
        match = self.take(_TYPE)
        if match and match[1] not in TYPES:
            raise QuerySyntaxError(f"{match[1]!r} is no type of attribute; known: {', '.join(sorted(TYPES))}")
        return match[1] if match else None

    def compare(
        self, name: str, type: str | None, aggregate: str | None, operator: str, literal: str, quoted: bool
    ) -> _Column:
        apply = _OPERATORS[operator]
        if name in SYSTEM:
            known, column = SYSTEM[name]
            return apply(column(containers.c, self.now), _literal(known, operator, literal))
        if type is None:
            type = "string" if quoted or operator.isalpha() or not _is_number(literal) else "float"
        if type in _NUMERIC:
            condition = apply(AGGREGATES[aggregate or "last"], float(_literal(type, operator, literal)))
        elif type == "stringSet":
            quoted_item = '"' + literal.replace("\\", "\\\\").replace('"', '\\"') + '"'
            condition = _OPERATORS["CONTAINS"](attributes.c.text, quoted_item)
            condition = sa.not_(condition) if operator == "!=" else condition
        else:
            condition = apply(attributes.c.text, literal)
        path = self.resolve(name)
        if path is None:
            return sa.false()
        having = sa.select(attributes.c.container).where(attributes.c.path == path, condition)
        return containers.c.pk.in_(having)


def _is_number(literal: str) -> bool:
    if literal.lower() in ("true", "false"):
        return True
    try:
        float(literal)
    except ValueError:
        return False
    return True


def _literal(type: str, operator: str, literal: str) -> Any:
    """Converts a literal to what the column of a `type` is compared with."""
    if operator in ("CONTAINS", "MATCHES"):
        if type in _NUMERIC:
            raise QuerySyntaxError(f"{operator} needs text, the attribute is of type {type}")
        return literal
    try:
        if type == "bool":
            return {"true": True, "false": False}[literal.lower()]
        if type == "datetime":
            return epoch_milliseconds(literal)
        if type in _NUMERIC:
            return float({"true": "1", "false": "0"}.get(literal.lower(), literal))
    except (KeyError, ValueError, OverflowError):
        raise QuerySyntaxError(f"{literal!r:.80} is no {type}") from None
    if type == "experimentState":
        return {"active": "running", "inactive": "idle"}.get(literal.lower(), literal.lower())
    return literal


def epoch_milliseconds(literal: str) -> int:
    """Reads a time: ISO 8601 (UTC where no zone is given), relative as ``-2d`` (h, d, w), or milliseconds."""
    relative = re.fullmatch(r"-(\d+(?:\.\d+)?)([hdwM])", literal)
    now = datetime.datetime.now(datetime.UTC)
    if relative:
        hours = float(relative[1]) * {"h": 1, "d": 24, "w": 168, "M": 720}[relative[2]]
        return int((now - datetime.timedelta(hours=hours)).timestamp() * 1000)
    if re.fullmatch(r"\d{9,}(\.\d+)?", literal):
        return int(float(literal))
    moment = datetime.datetime.fromisoformat(literal)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp() * 1000)


def compile_query(query: str, resolve: Resolve, now: int) -> _Column:
    """Compiles a query to a condition on the table of containers.

    Args:
        query: for example ``(`val/mIoU`:floatSeries > 0.7) AND `sys/tags`:stringSet CONTAINS "best"``. Types
            may be left out; ``min(...)``, ``max(...)``, ``average(...)``, ``variance(...)`` of a series work.
        resolve: gives the id of an attribute path, None where no run has it.
        now: epoch milliseconds.

    Raises:
        QuerySyntaxError: with the place and what was expected.
    """
    if not query.strip():
        return sa.true()
    parser = _Parser(query, resolve, now)
    condition = parser.disjunction()
    parser.take(_SPACE)
    if parser.at < len(query):
        raise parser.fail("AND, OR or the end")
    return condition
