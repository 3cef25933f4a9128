"""The run store: everything that runs log, in one SQL database and one folder of blobs."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import sqlalchemy as sa

from segtrail.server import rows, schema
from segtrail.server.blobs import Blobs, image_type
from segtrail.server.listing import RunsPage, find_runs, path_names, system_columns, system_values
from segtrail.server.nql import IDLE_AFTER_MS
from segtrail.server.operations import (
    Append,
    Attribute,
    EditStrings,
    Operation,
    Replay,
)
from segtrail.server.schema import attributes, chunks, containers, counters, files, paths, projects
from segtrail.server.series import Buckets, bucket, join_values, unpack_numbers

RUNS = ("run",)


class NotFoundError(KeyError):
    """There is no such run, project, attribute or file."""

    def __str__(self) -> str:
        return str(self.args[0])


class ConflictError(ValueError):
    """What should be created exists already."""


def now_ms() -> int:
    """Returns the time in epoch milliseconds."""
    return int(time.time() * 1000)


class Store:
    """Reads and writes runs. Safe to use from many threads, and from many processes.

    Args:
        engine: database; use :meth:`open`.
        blobs: where files are.
    """

    def __init__(self, engine: sa.Engine, blobs: Blobs) -> None:
        self.engine = engine
        self.blobs = blobs
        self._path_ids: dict[str, int] = {}
        # SQLite has one writer: waiting here is fair, waiting in the database is polling.
        self._writer = threading.Lock() if engine.dialect.name == "sqlite" else contextlib.nullcontext()

    @classmethod
    def open(cls, url: str, blobs: str | None = None, **blob_options: Any) -> Store:
        """Opens a store; creates or migrates it if need be.

        Args:
            url: a folder (SQLite inside it), or an SQLAlchemy URL (``sqlite:///runs.db``,
                ``postgresql+psycopg://user@host/db``).
            blobs: folder or fsspec URL of the files; by default ``blobs`` beside the SQLite database.
            blob_options: arguments of the fsspec file system.

        Raises:
            ValueError: no `blobs` for a database that is not a file.
        """
        if "://" not in url:
            Path(url).mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{Path(url).resolve() / 'segtrail.db'}"
        parsed = sa.make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        if blobs is None:
            if not is_sqlite or not parsed.database:
                raise ValueError(f"{parsed.render_as_string()}: say where files go (--blobs FOLDER or URL)")
            blobs = str(Path(parsed.database).parent / "blobs")
        engine = sa.create_engine(parsed, pool_size=20, max_overflow=40, pool_pre_ping=not is_sqlite)
        if is_sqlite:
            _configure_sqlite(engine)
        store = cls(engine, Blobs(blobs, **blob_options))
        with store.write() as connection:
            schema.migrate(connection)
        return store

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    # -------------------------------------------------------------- transactions

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading one consistent state."""
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction for writing; committed, durably, when the block ends without an exception."""
        with self._writer, self.engine.connect() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def touch(self, connection: sa.Connection, pks: Sequence[int], **values: Any) -> None:
        """Marks containers as changed, with a version that :meth:`changes` will tell."""
        bump = (
            counters.update()
            .where(counters.c.name == "change")
            .values(value=counters.c.value + 1)
            .returning(counters.c.value)
        )
        change = connection.scalar(bump)
        update = containers.update().where(containers.c.pk.in_(pks))
        connection.execute(update.values(change=change, **values))

    def resolve(self, connection: sa.Connection) -> Callable[[str], int | None]:
        """Returns a function that gives the id of an attribute path, None where there is none."""

        def find(path: str) -> int | None:
            number = self._path_ids.get(path)
            if number is None:
                number = connection.scalar(sa.select(paths.c.id).where(paths.c.path == path))
                if number is not None:
                    self._path_ids[path] = number
            return number

        return find

    def _intern(self, wanted: Iterable[str]) -> dict[str, int]:
        """Returns the ids of paths; gives ids to new ones, in a transaction of its own."""
        names = set(wanted)
        missing = sorted(name for name in names if name not in self._path_ids)
        if missing:
            insert: Any = schema.insert_for(self.engine.dialect.name, paths)
            with self.write() as connection:
                connection.execute(
                    insert.on_conflict_do_nothing(index_elements=["path"]),
                    [{"path": name} for name in missing],
                )
            with self.read() as connection:
                for first in range(0, len(missing), 1000):
                    part = missing[first : first + 1000]
                    query = sa.select(paths.c.path, paths.c.id).where(paths.c.path.in_(part))
                    self._path_ids.update((row[0], row[1]) for row in connection.execute(query))
        return {name: self._path_ids[name] for name in names}

    # -------------------------------------------------------------- projects and runs

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

    def project_row(self, connection: sa.Connection, name: str) -> Any:
        """Returns the row of a project by "workspace/name" or id.

        Raises:
            NotFoundError: there is none.
        """
        query = sa.select(projects, containers.c.id, containers.c.created).join(
            containers, containers.c.pk == projects.c.container
        )
        workspace, _, short = name.partition("/")
        by_name = sa.and_(projects.c.workspace == workspace, projects.c.name == short)
        row = connection.execute(query.where(by_name if short else containers.c.id == name)).first()
        if row is None:
            raise NotFoundError(f"there is no project {name}")
        return row

    def create_project(
        self, name: str, key: str | None = None, description: str = "", visibility: str = "priv"
    ) -> str:
        """Creates a project "workspace/name". Returns its id.

        Raises:
            ValueError: the name has not the form.
            ConflictError: the name, or the key if one is given, is taken in the workspace.
        """
        workspace, _, short = name.partition("/")
        if not workspace or not short or "/" in short:
            raise ValueError(f"a project is named workspace/name, got {name!r:.200}")
        now = now_ms()
        with self.write() as connection:
            taken = set(
                connection.scalars(sa.select(projects.c.key).where(projects.c.workspace == workspace))
            )
            if key in taken:
                raise ConflictError(f"project key {key} is taken in {workspace}")
            stem = "".join(c for c in short.upper() if c.isascii() and c.isalnum())[:3] or "PRO"
            chosen = key or next(k for n in range(10**6) if (k := stem + (str(n) if n else "")) not in taken)
            container = {
                "id": str(uuid.uuid4()),
                "kind": "project",
                "project": 0,
                "sys_id": f"{workspace}/{short}",
                "created": now,
                "modified": now,
                "pinged": 0,
            }
            try:
                pk = connection.scalar(containers.insert().values(container).returning(containers.c.pk))
            except sa.exc.IntegrityError:
                raise ConflictError(f"project {name} exists already") from None
            connection.execute(containers.update().where(containers.c.pk == pk).values(project=pk))
            connection.execute(
                projects.insert().values(
                    container=pk,
                    workspace=workspace,
                    name=short,
                    key=chosen,
                    description=description,
                    visibility=visibility,
                )
            )
            self.touch(connection, [pk])
        return str(container["id"])

    def ensure_project(self, name: str) -> str:
        """Returns the id of a project "workspace/name"; creates it if need be."""
        with contextlib.suppress(NotFoundError), self.read() as connection:
            return str(self.project_row(connection, name).id)
        with contextlib.suppress(ConflictError):
            return self.create_project(name)
        with self.read() as connection:
            return str(self.project_row(connection, name).id)

    def create_run(
        self,
        project: str,
        *,
        custom_id: str | None = None,
        run_id: str | None = None,
        kind: str = "run",
        parent: str | None = None,
        sys_id: str | None = None,
        created: int | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> str:
        """Creates a run, model or model version and returns its id; where `custom_id` exists, that run's.

        Args:
            project: "workspace/name" or id.
            custom_id: joins the processes of one run.
            run_id: UUID to use; a run that has it already is returned.
            kind: run, model, model_version.
            parent: id of the model of a version.
            sys_id: by default the project's key and the next number.
            created: epoch milliseconds.
            attributes: the first ones, past the replay's checks (``sys/owner``).

        Raises:
            NotFoundError: no such project or parent.
            ConflictError: the `sys_id` is taken.
        """
        first = dict(attributes or {})
        ids = self._intern(first)
        with self.write() as connection:
            owner = self.project_row(connection, project)
            same = [containers.c.id == run_id] if run_id else []
            if custom_id:
                same.append(
                    sa.and_(
                        containers.c.project == owner.container,
                        containers.c.kind == kind,
                        containers.c.custom_id == custom_id,
                    )
                )
            table: sa.Table = projects if parent is None else containers
            key, holder = projects.c.container, owner.container
            if parent is not None:
                key, holder = containers.c.pk, self.container(connection, parent).pk
            # The increment also locks the row, so that two processes do not create the same custom id.
            number = connection.scalar(
                table.update()
                .where(key == holder)
                .values(next_number=table.c.next_number + 1)
                .returning(table.c.next_number)
            )
            if same:
                existing = connection.scalar(sa.select(containers.c.id).where(sa.or_(*same)))
                if existing:
                    connection.rollback()
                    return str(existing)
            prefix = owner.key if parent is None else self.container(connection, parent).sys_id
            now = now_ms()
            container = {
                "id": run_id or str(uuid.uuid4()),
                "kind": kind,
                "project": owner.container,
                "parent": None if parent is None else holder,
                "sys_id": sys_id or f"{prefix}-{(number or 2) - 1}",
                "custom_id": custom_id,
                "created": created or now,
                "modified": created or now,
                "pinged": created or now,
            }
            try:
                pk = connection.scalar(containers.insert().values(container).returning(containers.c.pk))
            except sa.exc.IntegrityError:
                raise ConflictError(f"{container['sys_id']} exists already in {project}") from None
            rows.save(connection, int(pk or 0), ids, first.values())
            self.touch(connection, [int(pk or 0)])
        return str(container["id"])

    def container(self, connection: sa.Connection, name: str) -> Any:
        """Returns the row of a run, model, version or project by id or "workspace/project/SYS-ID".

        Raises:
            NotFoundError: there is none.
        """
        query = sa.select(containers)
        if name.count("/") == 2:
            project, _, sys_id = name.rpartition("/")
            key = self.project_row(connection, project).container
            query = query.where(containers.c.project == key, containers.c.sys_id == sys_id)
            query = query.where(containers.c.kind != "project")
        else:
            query = query.where(containers.c.id == name)
        row = connection.execute(query).first()
        if row is None:
            raise NotFoundError(f"there is no run {name}")
        return row

    # -------------------------------------------------------------- reading one run

    def attributes(self, run_id: str, prefix: str = "") -> dict[str, Attribute]:
        """Returns the attributes of a run by path, those that begin with `prefix`.

        An :class:`Attribute` has ``type``, ``value`` (series: the last one) and for series ``count``,
        ``last_step``, ``min``, ``max``, ``mean``, ``variance``.
        """
        with self.read() as connection:
            pk = self.container(connection, run_id).pk
            now = now_ms()
            row = connection.execute(sa.select(*system_columns(now)).where(containers.c.pk == pk)).one()
            found = {
                path: Attribute(path, value["type"], value["value"])
                for path, value in system_values(row, now).items()
            }
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
            query = sa.select(containers.c.id, containers.c.pk, containers.c.created)
            for row in connection.execute(query.where(containers.c.id.in_(list(run_ids)))).all():
                limits = (start, stop) if x == "step" else (None, None)
                steps, values, times = rows.load_points(
                    connection, row.pk, number or 0, "floatSeries", *limits, times=x != "step"
                )
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

    # -------------------------------------------------------------- writing

    def apply(self, run_id: str, operations: Sequence[Operation]) -> list[str]:
        """Applies operations to a run in one transaction. Returns one message for each that cannot be."""
        return self.apply_with(run_id, operations)

    def apply_with(
        self,
        run_id: str,
        operations: Sequence[Operation],
        *,
        guard: Callable[[sa.Connection, Any, Sequence[Operation]], Sequence[Operation]] | None = None,
        at: int | None = None,
    ) -> list[str]:
        """Like :meth:`apply`.

        Args:
            run_id: id of the run.
            operations: in order.
            guard: called inside the transaction with the connection, the container's row and the
                operations; returns those that are new. What it writes is committed with them.
            at: when they were logged (epoch milliseconds), now by default.
        """
        self._store_images(operations)
        ids = self._intern({path for operation in operations for path in operation.paths})
        with self.write() as connection:
            row = self.container(connection, run_id)
            if connection.dialect.name != "sqlite":
                connection.execute(
                    sa.select(containers.c.pk).where(containers.c.pk == row.pk).with_for_update()
                )
                row = self.container(connection, run_id)
            if guard is not None:
                operations = guard(connection, row, operations)
            return self._replay(connection, row, ids, operations, at or now_ms())

    def _replay(
        self,
        connection: sa.Connection,
        row: Any,
        ids: Mapping[str, int],
        operations: Sequence[Operation],
        at: int,
    ) -> list[str]:
        known = rows.load(connection, row.pk, ids)
        sizes = sum(_size(attribute) for attribute in known.values())

        def stored(series: Attribute, start: float) -> dict[float, Any]:
            steps, values, _ = rows.load_points(
                connection, row.pk, ids[series.path], series.type, start, times=False
            )
            return dict(zip(steps.tolist(), values, strict=True))

        replay = Replay(known, stored)
        errors = replay.run(operations)
        for path in replay.deleted:
            rows.drop(connection, row.pk, ids[path], row=True)
        rows.save(connection, row.pk, ids, replay.changed.values())
        size = row.size + sum(_size(attribute) for attribute in known.values()) - sizes
        self.touch(connection, [row.pk], size=size, modified=max(at, row.modified), **_alive(row, at))
        return errors

    def _store_images(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if isinstance(operation, Append) and operation.type == "imageSeries":
                for value in operation.points.values:
                    data = value.pop("data", None)
                    if data is not None:
                        value.update(blob=self.blobs.put(data), size=len(data), mime=image_type(data))

    def ping(self, run_id: str) -> None:
        """Notes that a run is alive."""
        with self.write() as connection:
            row = self.container(connection, run_id)
            connection.execute(
                containers.update().where(containers.c.pk == row.pk).values(**_alive(row, now_ms()))
            )

    def set_tags(self, run_id: str, tags: Sequence[str], path: str = "sys/tags") -> None:
        """Replaces the tags of a run."""
        with contextlib.suppress(NotFoundError):
            old = self.attribute(run_id, path).value
            self.apply(run_id, [EditStrings(path, [], [tag for tag in old if tag not in tags])])
        self.apply(run_id, [EditStrings(path, list(tags), [])])

    def trash(self, run_ids: Sequence[str]) -> None:
        """Moves runs to the trash."""
        self._set_trashed(run_ids, True)

    def restore(self, run_ids: Sequence[str]) -> None:
        """Takes runs back from the trash."""
        self._set_trashed(run_ids, False)

    def _set_trashed(self, run_ids: Sequence[str], trashed: bool) -> None:
        with self.write() as connection:
            pks = [self.container(connection, run_id).pk for run_id in run_ids]
            if pks:
                self.touch(connection, pks, trashed=trashed)


def _alive(row: Any, at: int) -> dict[str, int]:
    """Counts the time since the last ping as running, unless the run was idle in between."""
    gap = at - row.pinged
    running = row.running + gap if 0 < gap <= IDLE_AFTER_MS else row.running
    return {"pinged": max(at, row.pinged), "running": running}


def _size(attribute: Attribute) -> int:
    if attribute.type == "file":
        return int(attribute.value["size"])
    return int(attribute.value or 0) if attribute.type == "fileSet" else 0


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        # Transactions begin where the store says so, not where the driver guesses.
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "busy_timeout = 30000",
            "case_sensitive_like = ON",
            "cache_size = -65536",
            "mmap_size = 1073741824",
        ):
            connection.execute(f"PRAGMA {pragma}")
