"""What can be read from a run store: lists of runs, and each run's attributes, series and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import sqlalchemy as sa

from segtrail.server import rows
from segtrail.server.database import Database, NotFoundError, now_ms
from segtrail.server.listing import RunsPage, find_runs, path_names, system_columns, system_values
from segtrail.server.operations import Attribute
from segtrail.server.schema import attributes, chunks, containers, counters, files, projects
from segtrail.server.series import Buckets, bucket, join_values, unpack_numbers

RUNS = ("run",)


class Reader(Database):
    """The reading half of a store."""

    def projects(self) -> list[dict[str, Any]]:
        """Lists projects: ``id, name ("workspace/name"), key, description, visibility, runs`` (count)."""
        count = (
            sa.select(sa.func.count())
            .where(containers.c.project == projects.c.container, containers.c.kind == "run")
            .where(containers.c.trashed.is_(False))
            .correlate(projects)
            .scalar_subquery()
        )
        me = containers.alias()
        query = sa.select(projects, me.c.id, count.label("runs")).join(me, me.c.pk == projects.c.container)
        with self.read() as connection:
            return [
                {
                    "id": row.id,
                    "name": f"{row.workspace}/{row.name}",
                    "key": row.key,
                    "description": row.description,
                    "visibility": row.visibility,
                    "runs": row.runs,
                }
                for row in connection.execute(query.order_by(projects.c.workspace, projects.c.name))
            ]

    def runs(
        self,
        project: str | None = None,
        query: str | None = None,
        sort: str | None = None,
        descending: bool = False,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        *,
        aggregate: str = "last",
        kinds: Sequence[str] = RUNS,
    ) -> RunsPage:
        """Finds runs in a constant number of SQL statements; series are not read.

        Args:
            project: "workspace/name"; all projects if None.
            query: in Neptune's query language, see :func:`segtrail.server.nql.compile_query`. Trashed runs
                are included unless the query leaves them out (``sys/trashed = false``).
            sort: attribute path; by default the newest run first. Runs without it come last.
            descending: the order of `sort`.
            columns: attribute paths to return; all if None, none if empty.
            limit: at most so many, all if None; 0 only counts.
            offset: leaves out the first ones.
            aggregate: of a float series that is sorted by: last, min, max, mean, variance.
            kinds: run, model, model_version.

        Raises:
            NotFoundError: no such project.
            segtrail.server.nql.QuerySyntaxError: with the place.
        """
        with self.read() as connection:
            key = None if project is None else self.project_row(connection, project).container
            return find_runs(
                connection,
                self.resolve(connection),
                now_ms(),
                project=key,
                kinds=kinds,
                query=query,
                sort=sort,
                aggregate=aggregate,
                descending=descending,
                columns=columns,
                limit=limit,
                offset=offset,
            )

    def attributes(self, run_id: str, prefix: str = "") -> dict[str, Attribute]:
        """Returns the attributes of a run by path, those that begin with `prefix`.

        An :class:`Attribute` has ``type``, ``value`` (series: the last one) and for series ``count``,
        ``last_step``, ``min``, ``max``, ``mean``, ``variance``.
        """
        with self.read() as connection:
            container = self.container(connection, run_id)
            pk, now = container.pk, now_ms()
            row = connection.execute(sa.select(*system_columns(now)).where(containers.c.pk == pk)).one()
            found = {
                path: Attribute(path, value["type"], value["value"])
                for path, value in system_values(row, now).items()
            }
            if container.kind == "project":
                del found["sys/trashed"]
            stored = connection.execute(sa.select(attributes).where(attributes.c.container == pk)).all()
            names = path_names(connection, {row.path for row in stored})
            found.update((names[row.path], rows.from_row(names[row.path], row)) for row in stored)
        return {path: found[path] for path in sorted(found) if path.startswith(prefix)}

    def attribute(self, run_id: str, path: str, type: str | None = None) -> Attribute:
        """Returns one attribute.

        Raises:
            NotFoundError: the run has none, or not one of `type`.
        """
        with self.read() as connection:
            return self._attribute(connection, run_id, path, type)[2]

    def _attribute(
        self, connection: sa.Connection, run_id: str, path: str, type: str | None = None
    ) -> tuple[int, int, Attribute]:
        pk = self.container(connection, run_id).pk
        number = self.resolve(connection)(path)
        found = {} if number is None else rows.load(connection, pk, {path: number})
        if number is None or path not in found or type not in (None, found[path].type):
            raise NotFoundError(f"run {run_id} has no {type or 'attribute'} {path}")
        return pk, number, found[path]

    def series(
        self, run_id: str, path: str, start: float | None = None, stop: float | None = None
    ) -> tuple[np.ndarray, Any, np.ndarray]:
        """Returns the points with ``start <= step <= stop``.

        Returns:
            Steps (n,) float64; values, (n,) float64 or a list of strings or of image descriptions; times
            (n,) int64 epoch milliseconds.
        """
        with self.read() as connection:
            pk, number, attribute = self._attribute(connection, run_id, path)
            steps, values, times = rows.load_points(connection, pk, number, attribute.type, start, stop)
            assert times is not None
            return steps, values, times

    def series_buckets(
        self,
        run_ids: Sequence[str],
        path: str,
        buckets: int,
        start: float | None = None,
        stop: float | None = None,
        x: str = "step",
    ) -> Buckets:
        """Cuts a float series of several runs at the same edges of x and reduces each bucket.

        Args:
            run_ids: runs; those without the series are left out of the answer.
            path: a float series.
            buckets: how many.
            start: first x; by default the smallest of all runs.
            stop: last x; by default the largest of all runs.
            x: "step", "time" (epoch milliseconds) or "relative" (milliseconds since the run was created).
        """
        if x not in ("step", "time", "relative"):
            raise ValueError(f"x must be step, time or relative, got {x!r}")
        if buckets < 1:
            raise ValueError(f"buckets must be at least 1, got {buckets}")
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        with self.read() as connection:
            number = self.resolve(connection)(path)
            query = sa.select(containers.c.id, containers.c.pk, containers.c.created, containers.c.change)
            for row in connection.execute(query.where(containers.c.id.in_(list(run_ids)))).all():
                key, times = (row.pk, number or 0), None
                known = self._series.get(key, row.change) if x == "step" else None
                if known is not None:
                    first = 0 if start is None else int(np.searchsorted(known[0], start))
                    last = None if stop is None else int(np.searchsorted(known[0], stop, side="right"))
                    steps, values = known[0][first:last], known[1][first:last]
                else:
                    limits = (start, stop) if x == "step" else (None, None)
                    steps, values, times = rows.load_points(
                        connection, *key, "floatSeries", *limits, times=x != "step"
                    )
                    if limits == (None, None) and x == "step":
                        self._series.put(key, row.change, steps, values)
                if times is not None:
                    # Clocks may go backwards; buckets need an ascending x.
                    steps = np.maximum.accumulate(times).astype(np.float64)
                    steps = steps - row.created if x == "relative" else steps
                if len(steps):
                    found[row.id] = steps, values
        low = start if start is not None else min((float(s[0]) for s, _ in found.values()), default=0.0)
        high = stop if stop is not None else max((float(s[-1]) for s, _ in found.values()), default=1.0)
        edges = np.linspace(low, max(high, low), buckets + 1)
        return Buckets(edges, {run: bucket(*found[run], edges) for run in run_ids if run in found})

    def text_series(self, run_id: str, path: str, offset: int = 0, limit: int = 1000) -> dict[str, Any]:
        """Returns `limit` entries of a string series from `offset`: ``total, steps, values, times``."""
        with self.read() as connection:
            pk, number, attribute = self._attribute(connection, run_id, path)
            window = self._window(connection, pk, number, attribute, offset, limit)
        return {"total": attribute.count, **window}

    def series_page(self, run_id: str, path: str, type: str, offset: int, limit: int) -> dict[str, Any]:
        """Like :meth:`text_series`, for a series of the `type` that is expected."""
        with self.read() as connection:
            pk, number, attribute = self._attribute(connection, run_id, path, type)
            window = self._window(connection, pk, number, attribute, offset, limit)
        return {"total": attribute.count, **window}

    def _window(
        self, connection: sa.Connection, pk: int, number: int, attribute: Attribute, offset: int, limit: int
    ) -> dict[str, Any]:
        end = offset + limit
        query = sa.select(chunks).where(
            chunks.c.container == pk,
            chunks.c.path == number,
            chunks.c.start < end,
            chunks.c.start + chunks.c.n > offset,
        )
        found = connection.execute(query.order_by(chunks.c.start)).all()
        first = offset - found[0].start if found else 0
        part = slice(first, first + limit)
        values = join_values(attribute.type, [row.points for row in found])[part]
        steps = [s for row in found for s in unpack_numbers(row.steps, row.n, "<f8").tolist()][part]
        times = [t for row in found for t in unpack_numbers(row.times, row.n, "<i8").tolist()][part]
        values = values.tolist() if isinstance(values, np.ndarray) else values
        return {"steps": steps, "values": values, "times": times}

    def image_series(self, run_id: str, path: str) -> list[tuple[int, float, int, str, str]]:
        """Lists the images of a series: index, step, time (epoch milliseconds), blob key, MIME type."""
        steps, values, times = self.series(run_id, path)
        return [
            (index, float(step), int(at), value["blob"], value["mime"])
            for index, (step, value, at) in enumerate(zip(steps, values, times, strict=True))
        ]

    def open_file(self, run_id: str, path: str, name: str | None = None) -> tuple[IO[bytes], dict[str, Any]]:
        """Opens a file attribute, or the file `name` of a file set.

        Returns:
            The stream, and ``name`` (with extension), ``ext, size, mime, blob``.
        """
        if name is None:
            file = dict(self.attribute(run_id, path, "file").value)
            extension = file.get("ext") or ""
            file["name"] = path.rpartition("/")[2] + (f".{extension}" if extension else "")
        else:
            file = dict(self.file_set(run_id, path).get(name) or {})
            if not file:
                raise NotFoundError(f"run {run_id} has no file {name} in {path}")
            file.update(name=name.rpartition("/")[2], ext=Path(name).suffix.lstrip("."))
        return self.blobs.open(file["blob"]), file

    def file_set(self, run_id: str, path: str) -> dict[str, dict[str, Any]]:
        """Returns the files of a file set: name -> ``blob, size, mtime`` (epoch milliseconds)."""
        with self.read() as connection:
            pk, number, _ = self._attribute(connection, run_id, path, "fileSet")
            query = sa.select(files).where(files.c.container == pk, files.c.path == number)
            return {
                row.name: {"blob": row.blob, "size": row.size, "mtime": row.mtime}
                for row in connection.execute(query.order_by(files.c.name))
            }

    def open_blob(self, key: str) -> IO[bytes]:
        """Opens a blob, for example an image of a series."""
        return self.blobs.open(key)

    def changes(self, since: int) -> tuple[int, list[str]]:
        """Returns the current version of the store and the ids of what changed after version `since`."""
        with self.read() as connection:
            version = connection.scalar(sa.select(counters.c.value).where(counters.c.name == "change")) or 0
            changed = sa.select(containers.c.id).where(
                containers.c.change > since, containers.c.change <= version
            )
            return version, list(connection.scalars(changed))
