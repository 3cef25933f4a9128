"""What a store keeps besides runs: uploads under way, lists of artifacts; and how things are deleted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from segtrail.server.database import NotFoundError, now_ms
from segtrail.server.reading import Reader
from segtrail.server.schema import (
    artifacts,
    attributes,
    batches,
    chunks,
    containers,
    files,
    projects,
    roles,
    uploads,
    upsert,
)


class Transfers(Reader):
    """The part of a store for uploads, artifacts and deletion."""

    def start_upload(self, id: str, container: int, path: str, target: str, total: int) -> None:
        """Notes an upload that will come in parts."""
        row = {"id": id, "container": container, "path": path, "target": target, "total": total}
        with self.write() as connection:
            connection.execute(uploads.insert(), {**row, "at": now_ms()})

    def pending_upload(self, id: str, container: int) -> Any:
        """Returns the row of an upload.

        Raises:
            NotFoundError: it was not started for this container, or is finished.
        """
        query = sa.select(uploads).where(uploads.c.id == id, uploads.c.container == container)
        with self.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFoundError(f"there is no upload {id}")
        return row

    def end_upload(self, id: str) -> None:
        """Forgets an upload."""
        with self.write() as connection:
            connection.execute(uploads.delete().where(uploads.c.id == id))

    def artifact(self, project: int, hash: str) -> tuple[list[dict[str, Any]] | None, int] | None:
        """Returns the files (None until they are sent) and the size of an artifact, None if it is unknown."""
        query = sa.select(artifacts).where(artifacts.c.project == project, artifacts.c.hash == hash)
        with self.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return (json.loads(row.files) if row.files is not None else None), row.size

    def save_artifact(
        self, project: int, hash: str, files: Sequence[Mapping[str, Any]] | None, size: int = 0
    ) -> int:
        """Stores the files of an artifact, or only its size. Returns the size."""
        if files is not None:
            size = sum(file.get("size") or 0 for file in files)
        row = {"project": project, "hash": hash, "size": min(size, 2**62)}
        with self.write() as connection:
            upsert(
                connection, artifacts, [{**row, "files": None if files is None else json.dumps(list(files))}]
            )
        return size

    def project_of_artifact(self, hash: str, project: str) -> str:
        """Returns `project` or, where that does not exist, the id of a project that has the artifact."""
        query = sa.select(containers.c.id).join(artifacts, artifacts.c.project == containers.c.pk)
        with self.read() as connection:
            try:
                return str(self.project_row(connection, project).id)
            except NotFoundError:
                found = connection.scalar(query.where(artifacts.c.hash == hash).limit(1))
        return str(found or project)

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

    def delete(self, run_ids: Sequence[str]) -> None:
        """Removes runs for good. Their files go when the store is swept."""
        with self.write() as connection:
            pks = [self.container(connection, run_id).pk for run_id in run_ids]
            self._delete(connection, pks)

    def delete_project(self, row: Any) -> None:
        """Removes a project, given its row, with all that is in it."""
        with self.write() as connection:
            inside = sa.select(containers.c.pk).where(containers.c.project == row.container)
            self._delete(connection, list(connection.scalars(inside)))
            connection.execute(projects.delete().where(projects.c.container == row.container))
            connection.execute(artifacts.delete().where(artifacts.c.project == row.container))
            connection.execute(roles.delete().where(roles.c.project == f"{row.workspace}/{row.name}"))

    def _delete(self, connection: sa.Connection, pks: Sequence[int]) -> None:
        for pk in pks:
            for table in (chunks, files, attributes, batches, uploads):
                connection.execute(table.delete().where(table.c.container == pk))
            # Sources stay: a log that is still on disk must not bring a deleted run back.
            connection.execute(containers.delete().where(containers.c.pk == pk))
        self.touch(connection, [])

    def blobs_in_use(self) -> set[str]:
        """Returns the keys of all blobs that a run refers to."""
        images = sa.select(chunks.c.points).join(
            attributes,
            sa.and_(attributes.c.container == chunks.c.container, attributes.c.path == chunks.c.path),
        )
        with self.read() as connection:
            used = set(connection.scalars(sa.select(attributes.c.text).where(attributes.c.type == "file")))
            used |= set(connection.scalars(sa.select(files.c.blob)))
            for points in connection.scalars(images.where(attributes.c.type == "imageSeries")):
                used |= {image["blob"] for image in json.loads(points)}
        return used
