"""The run store: everything that runs log, in one SQL database and one folder of blobs."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from segtrail.server import rows
from segtrail.server.blobs import image_type
from segtrail.server.database import ConflictError, InvalidNameError, NotFoundError, now_ms
from segtrail.server.listing import RunsPage
from segtrail.server.nql import IDLE_AFTER_MS
from segtrail.server.operations import (
    Append,
    Attribute,
    EditStrings,
    Operation,
    OperationError,
    parse,
)
from segtrail.server.replay import Replay
from segtrail.server.resend import Resend
from segtrail.server.schema import batches, containers, projects, sources, upsert
from segtrail.server.transfers import Transfers

__all__ = ["ConflictError", "NotFoundError", "RunsPage", "Store", "now_ms"]


# A column of the run, which an offline log can only set by assigning it.
_CUSTOM_ID = "sys/custom_run_id"


class Store(Transfers):
    """Reads and writes runs. Safe to use from many threads, and from many processes.

    ``Store.open(folder_or_url)`` opens one; what it can read is documented in
    :class:`segtrail.server.reading.Reader`.
    """

    def create_project(
        self, name: str, key: str | None = None, description: str = "", visibility: str = "priv"
    ) -> str:
        """Creates a project "workspace/name". Returns its id.

        Raises:
            InvalidNameError: the name has not the form.
            ConflictError: the name, or the key if one is given, is taken in the workspace.
        """
        workspace, _, short = name.partition("/")
        if not workspace or not short or "/" in short:
            raise InvalidNameError(f"a project is named workspace/name, got {name!r:.200}")
        now = now_ms()
        ids = self._intern(["sys/name", "sys/visibility", "sys/tags", "sys/group_tags"])
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
            row = {"workspace": workspace, "name": short, "key": chosen}
            row |= {"description": description, "visibility": visibility}
            try:
                pk = connection.scalar(containers.insert().values(container).returning(containers.c.pk))
                connection.execute(containers.update().where(containers.c.pk == pk).values(project=pk))
                connection.execute(projects.insert().values(container=pk, **row))
            except sa.exc.IntegrityError:
                raise ConflictError(f"project {name} exists already") from None
            first = [
                Attribute("sys/name", "string", short),
                Attribute("sys/visibility", "string", visibility),
                Attribute("sys/tags", "stringSet", []),
                Attribute("sys/group_tags", "stringSet", []),
            ]
            rows.save(connection, int(pk or 0), ids, first)
            self.touch(connection, [int(pk or 0)])
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
        ids = self._intern([*first, "sys/name"])
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
            sys_id = sys_id or f"{prefix}-{(number or 2) - 1}"
            first.setdefault("sys/name", Attribute("sys/name", "string", custom_id or sys_id))
            now = now_ms()
            container = {
                "id": run_id or str(uuid.uuid4()),
                "kind": kind,
                "project": owner.container,
                "parent": None if parent is None else holder,
                "sys_id": sys_id,
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
        named = replay.changed.pop(_CUSTOM_ID, None)
        values: dict[str, Any] = {}
        if named is not None and row.custom_id is None:
            if self._custom_id_is_free(connection, row, named.value):
                values["custom_id"] = named.value
            else:
                errors.append(f"{_CUSTOM_ID}: another run of the project is named {named.value}")
        for path in replay.deleted:
            rows.drop(connection, row.pk, ids[path], row=True)
        rows.save(connection, row.pk, ids, replay.changed.values())
        size = row.size + sum(_size(attribute) for attribute in known.values()) - sizes
        self.touch(
            connection, [row.pk], size=size, modified=max(at, row.modified), **values, **_alive(row, at)
        )
        return errors

    def _custom_id_is_free(self, connection: sa.Connection, row: Any, custom_id: str) -> bool:
        same = sa.select(containers.c.pk).where(
            containers.c.project == row.project,
            containers.c.kind == row.kind,
            containers.c.custom_id == custom_id,
        )
        return connection.scalar(same) is None

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

    # -------------------------------------------------------------- offline logs

    def has_run(self, run_id: str) -> bool:
        """Says whether there is such a run."""
        with contextlib.suppress(NotFoundError), self.read() as connection:
            return self.container(connection, run_id) is not None
        return False

    def source(self, directory: str) -> tuple[str, int, str] | None:
        """Returns the run of an offline directory ("" if it was deleted), the version up to which it is
        stored, and the place in the log."""
        query = sa.select(containers.c.id, sources.c.version, sources.c.position).outerjoin(
            containers, containers.c.pk == sources.c.container
        )
        with self.read() as connection:
            row = connection.execute(query.where(sources.c.directory == directory)).first()
        return None if row is None else (row.id or "", row.version, row.position)

    def run_of(self, origin: str) -> str | None:
        """Returns the id of the run that directories with this container id belong to, or None."""
        same = sa.select(containers.c.id).join(sources, sources.c.container == containers.c.pk)
        with self.read() as connection:
            run_id = connection.scalar(same.where(sources.c.origin == origin).limit(1))
        return run_id if run_id is not None or not self.has_run(origin) else origin

    def open_source(
        self, directory: str, origin: str, project: str, custom_id: str | None, created: int, version: int
    ) -> str:
        """Creates or finds the run that an offline directory belongs to. Returns its id.

        Args:
            directory: name of the directory, unique by its UUID, process id and random part.
            origin: container id in its metadata: directories of forked processes share it.
            project: "workspace/name", created if need be.
            custom_id: joins the run that has it.
            created: epoch milliseconds.
            version: up to which the records are stored already.
        """
        run_id = self.run_of(origin)
        if run_id is None:
            self.ensure_project(project)
            run_id = self.create_run(project, custom_id=custom_id, run_id=origin, created=created)
        with self.write() as connection:
            row = {"origin": origin, "version": version, "position": ""}
            row |= {"directory": directory, "container": self.container(connection, run_id).pk}
            upsert(connection, sources, [row])
        return str(run_id)

    def put_file(self, parts: Iterable[bytes]) -> tuple[str, int]:
        """Stores a file that operations will refer to. Returns its blob key and size."""
        return self.blobs.put_stream(parts)

    def put_artifact(self, run_id: str, hash: str, files: Sequence[Mapping[str, Any]]) -> None:
        """Stores the list of files of an artifact."""
        with self.read() as connection:
            project = self.container(connection, run_id).project
        self.save_artifact(project, hash, files)

    def ingest(
        self, directory: str, items: Sequence[tuple[int, Any, int]], version: int, place: str
    ) -> tuple[int, list[str]]:
        """Applies the records of an offline directory that are new, and notes in the same transaction up to
        where it is stored.

        Args:
            directory: opened with :meth:`open_source`.
            items: version, operation in the wire form, epoch milliseconds.
            version: up to which this brings the directory.
            place: where the log goes on, given back by :meth:`source`.

        Returns:
            How many were new, and what could not be applied.

        Raises:
            NotFoundError: the directory was not opened.
        """
        known = self.source(directory)
        if known is None:
            raise NotFoundError(f"{directory} was not opened")
        versions, operations, errors = [], [], []
        for number, item, _ in items:
            try:
                operations.append(parse(item))
                versions.append(number)
            except OperationError as error:
                errors.append(f"version {number}: {error}")
        count = 0

        def guard(
            connection: sa.Connection, row: Any, operations: Sequence[Operation]
        ) -> Sequence[Operation]:
            nonlocal count
            here = sources.c.directory == directory
            stored = connection.scalar(sa.select(sources.c.version).where(here)) or 0
            new = [o for o, number in zip(operations, versions, strict=True) if number > stored]
            count = len(new)
            if version > stored:
                values = {"version": version, "position": place}
                connection.execute(sources.update().where(here).values(values))
            others = sa.select(batches.c.session).where(
                batches.c.container == row.pk, batches.c.session != directory
            )
            if connection.scalar(others.limit(1)) is None:
                return new
            # The client may have sent the first of these and never have noted the answer.
            return Resend(directory, "")(connection, row, new)

        at = max((at for _, _, at in items), default=None)
        return_errors = self.apply_with(known[0], operations, guard=guard, at=at)
        return count, errors + return_errors


def _alive(row: Any, at: int) -> dict[str, int]:
    """Counts the time since the last ping as running, unless the run was idle in between."""
    gap = at - row.pinged
    running = row.running + gap if 0 < gap <= IDLE_AFTER_MS else row.running
    return {"pinged": max(at, row.pinged), "running": running}


def _size(attribute: Attribute) -> int:
    if attribute.type == "file":
        return int(attribute.value["size"])
    return int(attribute.value or 0) if attribute.type == "fileSet" else 0
