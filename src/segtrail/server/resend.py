"""Recognizes a batch that a client sends again because it never learned that the first one arrived.

A client that is killed, or loses the connection, between the commit of a batch and its answer sends it again:
in the same session the very same bytes, in a new session (``neptune sync``, ``segtrail sync``) a batch that
begins with the same points, perhaps followed by more. Points with steps protect themselves; those without
would be doubled. So the last batch of each session is remembered: for each series, how many points, and their
digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from segtrail.server.database import now_ms
from segtrail.server.operations import Append, Clear, Delete, Operation, Points
from segtrail.server.schema import batches, upsert

KEPT = 64


class Resend:
    """A guard for :meth:`segtrail.server.store.Store.apply_with`.

    Args:
        session: of the client process, or the name of an offline directory.
        digest: of the batch as it came; "" where batches are not repeated byte by byte.
    """

    def __init__(self, session: str, digest: str) -> None:
        self.session = session
        self.digest = digest

    def __call__(
        self, connection: sa.Connection, row: Any, operations: Sequence[Operation]
    ) -> Sequence[Operation]:
        """Returns the operations without what was applied before; remembers the batch."""
        series = collect(operations)
        if not series:
            return operations
        known = connection.execute(sa.select(batches).where(batches.c.container == row.pk)).all()
        mine = next((batch for batch in known if batch.session == self.session), None)
        if mine is None:
            operations = _without_known(operations, series, known)
        elif self.digest and mine.digest == self.digest:
            return []
        summary = {path: [len(points), fingerprint(points)] for path, points in series.items()}
        new = {"container": row.pk, "session": self.session, "digest": self.digest, "at": now_ms()}
        upsert(connection, batches, [{**new, "series": json.dumps(summary)}])
        if mine is None and len(known) >= KEPT:
            oldest = min(known, key=lambda batch: batch.at)
            gone = sa.and_(batches.c.container == row.pk, batches.c.session == oldest.session)
            connection.execute(batches.delete().where(gone))
        return operations


def collect(operations: Sequence[Operation]) -> dict[str, Points]:
    """Returns the points of a batch by series, without those of series that it clears: such a batch may be
    applied twice."""
    cleared = {o.path for o in operations if isinstance(o, Clear | Delete)}
    series: dict[str, Points] = {}
    for operation in operations:
        if isinstance(operation, Append) and operation.path not in cleared:
            points = series.setdefault(operation.path, Points())
            points.values += operation.points.values
            points.steps += operation.points.steps
            points.times += operation.points.times
    return series


def fingerprint(points: Points, count: int | None = None) -> str:
    """Returns the digest of the first `count` points (all by default)."""
    parts = (points.values[:count], points.steps[:count], points.times[:count])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _without_known(
    operations: Sequence[Operation], series: dict[str, Points], known: Sequence[Any]
) -> Sequence[Operation]:
    """Drops the points of the longest remembered batch with which this one begins."""
    cleared = {o.path for o in operations if isinstance(o, Clear | Delete)}
    drop: dict[str, int] = {}
    for batch in known:
        before = {path: entry for path, entry in json.loads(batch.series).items() if path not in cleared}
        if before and all(
            path in series and len(series[path]) >= n and fingerprint(series[path], n) == digest
            for path, (n, digest) in before.items()
        ):
            counts = {path: n for path, (n, _) in before.items()}
            drop = max(drop, counts, key=lambda counts: sum(counts.values()))
    if not drop:
        return operations
    kept = []
    for operation in operations:
        if isinstance(operation, Append) and drop.get(operation.path):
            count = min(drop[operation.path], len(operation.points))
            drop[operation.path] -= count
            operation = Append(operation.path, operation.type, operation.points.drop(count))
        kept.append(operation)
    return kept
