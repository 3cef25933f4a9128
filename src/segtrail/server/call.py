"""One call of the API: who calls, with what, and what every handler needs to know first."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from segtrail.server.auth import Auth, Caller
from segtrail.server.database import NotFoundError
from segtrail.server.schema import containers, projects
from segtrail.server.store import Store


class BadRequestError(ValueError):
    """The request makes no sense (answered with 400)."""


class MissingRunError(NotFoundError):
    """There is no such run; the client tells this apart from a missing attribute."""


@dataclass
class Call:
    """Arguments of one call.

    Attributes:
        name: of the operation.
        store: run store.
        auth: tokens and roles.
        caller: who calls.
        base: URL under which the caller reaches this server.
        query: parameters of URL and path.
        lists: parameters that may be repeated.
        body: parsed JSON, None if there is none.
        digest: SHA-256 of the body.
        shared: what lives as long as the server (``app.state``).
    """

    name: str
    store: Store
    auth: Auth
    caller: Caller
    base: str
    query: Mapping[str, str]
    lists: Mapping[str, list[str]]
    body: Any
    digest: str
    shared: Any

    def text(self, name: str) -> str:
        """Returns a parameter that must be there.

        Raises:
            BadRequestError: it is not.
        """
        value = self.query.get(name)
        if not value:
            raise BadRequestError(f"parameter {name} is missing")
        return value

    def integer(self, name: str, default: int) -> int:
        """Returns a non-negative whole number.

        Raises:
            BadRequestError: it is none.
        """
        value = self.query.get(name)
        if value is None or value == "":
            return default
        if not value.isdecimal() or len(value) > 15:
            raise BadRequestError(f"parameter {name} must be a whole number of at least 0, got {value!r:.80}")
        return int(value)

    def object(self) -> dict[str, Any]:
        """Returns the body, which must be an object.

        Raises:
            BadRequestError: it is none.
        """
        if not isinstance(self.body, dict):
            raise BadRequestError(f"the body must be an object, got {type(self.body).__name__}")
        return self.body

    def strings(self) -> list[str]:
        """Returns the body, which must be a list of strings.

        Raises:
            BadRequestError: it is none.
        """
        if not isinstance(self.body, list) or not all(isinstance(item, str) for item in self.body):
            raise BadRequestError("the body must be a list of strings")
        return self.body

    def project(self, role: str, name: str | None = None) -> Any:
        """Returns the row of the project in ``projectIdentifier`` (or `name`); checks the caller's role.

        Raises:
            NotFoundError: there is none, or the caller may not know.
            ForbiddenError: the caller may read it but has not this role.
        """
        name = name or self.text("projectIdentifier")
        with self.store.read() as connection:
            row = self.store.project_row(connection, name)
        self._check(f"{row.workspace}/{row.name}", role, f"there is no project {name}", NotFoundError)
        return row

    def container(self, role: str, name: str | None = None) -> Any:
        """Returns the row of the container in ``experimentId`` (or `name`), with ``workspace`` and ``name``
        of its project; checks the caller's role.

        Raises:
            MissingRunError: there is none, or the caller may not know.
            ForbiddenError: the caller may read it but has not this role.
        """
        name = name or self.query.get("experimentId") or self.text("experimentIdentifier")
        query = sa.select(containers, projects.c.workspace, projects.c.name, projects.c.key).join(
            projects, projects.c.container == containers.c.project
        )
        if name.count("/") == 2:
            workspace, project, sys_id = name.split("/")
            condition = sa.and_(
                projects.c.workspace == workspace, projects.c.name == project, containers.c.sys_id == sys_id
            )
        else:
            condition = containers.c.id == name
        with self.store.read() as connection:
            row = connection.execute(query.where(condition)).first()
        if row is None:
            raise MissingRunError(f"there is no run {name}")
        self._check(f"{row.workspace}/{row.name}", role, f"there is no run {name}", MissingRunError)
        return row

    def _check(self, project: str, role: str, message: str, missing: type[NotFoundError]) -> None:
        if not self.auth.level(self.caller.user, project):
            raise missing(message)
        self.auth.require(self.caller, project, role)


def iso(milliseconds: float) -> str:
    """Returns a time in the one form that the client parses: ``2024-01-31T12:00:00.000Z``."""
    try:
        moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
