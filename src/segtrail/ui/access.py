"""Who may see and change what, where the server asks its users to log in."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from segtrail.server.auth import Auth, ForbiddenError
from segtrail.server.database import NotFoundError
from segtrail.server.store import Store

_RUN_KEYS = ("run", "runs", "reference", "ids")


class Access:
    """Checks every request of the API against the roles of its caller.

    The server's guard leaves the caller in the request's state. Without one, as in `segtrail ui`, everything
    is allowed.

    Args:
        store: the run store.
        auth: the roles.
    """

    def __init__(self, store: Store, auth: Auth | None) -> None:
        self.store, self.auth = store, auth

    def visible(self, request: Request, projects: list[str]) -> list[str]:
        """Those projects that the caller may read."""
        caller = getattr(request.state, "caller", None)
        return projects if self.auth is None or caller is None else self.auth.visible(caller, projects)

    async def __call__(self, request: Request) -> None:
        """A dependency: looks at every project and run that a request names.

        Raises:
            HTTPException: 403, the caller has not the role; 404, there is no such run.
        """
        caller = getattr(request.state, "caller", None)
        if self.auth is None or caller is None:
            return
        query, runs = request.query_params, []
        for key in _RUN_KEYS:
            runs += query.getlist(key)
        projects = query.getlist("project")
        if request.method == "POST":
            body = await request.json()
            runs += _runs_in(body) if isinstance(body, dict) else []
        changes = request.url.path.endswith(("/tags", "/trash", "/restore")) and request.method == "POST"
        await run_in_threadpool(self._check, caller, projects, runs, "contributor" if changes else "viewer")

    def _check(self, caller: Any, projects: list[str], runs: list[str], role: str) -> None:
        assert self.auth is not None
        try:
            with self.store.read() as connection:
                keys = {self.store.container(connection, run).project for run in set(runs) if run}
            names = {project["name"]: project["id"] for project in self.store.projects()}
            with self.store.read() as connection:
                by_key = {self.store.project_row(connection, name).container: name for name in names}
            for project in {*projects, *(by_key[key] for key in keys)} - {""}:
                self.auth.require(caller, project, role)
        except ForbiddenError as error:
            raise HTTPException(403, str(error)) from None
        except NotFoundError as error:
            raise HTTPException(404, str(error)) from None


def _runs_in(body: dict[str, Any]) -> list[str]:
    runs: list[str] = []
    for key in _RUN_KEYS:
        value = body.get(key, [])
        runs += value if isinstance(value, list) else [value]
    for cell in body.get("cells") or []:
        runs.append(cell["run"] if isinstance(cell, dict) else cell[0])
    return [str(run) for run in runs]
