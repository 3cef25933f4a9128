"""The part of the API about the server itself, projects and their members."""

from __future__ import annotations

import re
from typing import Any

from segtrail.server.auth import ROLES, AuthError, ForbiddenError
from segtrail.server.call import BadRequestError, Call
from segtrail.server.database import ConflictError, NotFoundError
from segtrail.server.operations import text

# The protocol's names of roles, weakest first, in the order of ROLES.
_WIRE_ROLES = ("viewer", "member", "manager")
_CHUNK = 5 * 1024 * 1024


def get_client_config(call: Call) -> Any:
    return {
        "apiUrl": call.base,
        "applicationUrl": call.base,
        "pyLibVersions": {},
        "multiPartUpload": {
            "enabled": True,
            "minChunkSize": _CHUNK,
            "maxChunkSize": 1 << 30,
            "maxChunkCount": 1000,
            "maxSinglePartSize": _CHUNK,
        },
        "artifacts": {"enabled": True, "apiVersion": 2},
        # Otherwise the client names every run "Untitled", also one that it resumes.
        "sysNameSetByBackend": True,
    }


def exchange_api_token(call: Call) -> Any:
    caller = call.auth.exchange(call.query.get("X-Neptune-Api-Token", ""))
    return {
        "accessToken": call.auth.issue(caller, call.base),
        "refreshToken": call.auth.issue(caller, call.base, "refresh"),
        "username": caller.user,
    }


def refresh(call: Call) -> Any:
    """Answers the OAuth refresh, which the client asks for before anything else."""
    if call.query.get("grant_type") != "refresh_token":
        raise AuthError("grant_type must be refresh_token")
    caller = call.auth.verify(call.query.get("refresh_token", ""), "refresh")
    return {
        "access_token": call.auth.issue(caller, call.base),
        "refresh_token": call.auth.issue(caller, call.base, "refresh"),
        "expires_in": 3600,
        "token_type": "Bearer",
    }


def _project(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "organizationName": row.workspace,
        "projectKey": row.key,
        "version": 2,
        "description": row.description,
        "visibility": row.visibility,
    }


def get_project(call: Call) -> Any:
    """Returns a project; it is created if the caller may do so, so that a new name just works."""
    name = call.text("projectIdentifier")
    try:
        return _project(call.project("viewer"))
    except NotFoundError:
        if "/" not in name or call.auth.level(call.caller.user, name) <= ROLES.index("contributor"):
            raise
    call.store.ensure_project(text(name, "name", 256))
    return _project(call.project("viewer"))


def list_projects(call: Call) -> Any:
    search = call.query.get("searchTerm") or ""
    workspace = call.query.get("organizationIdentifier")
    found = []
    for project in call.store.projects():
        owner, _, short = project["name"].partition("/")
        if search in short and workspace in (None, "", owner):
            found.append((project, owner, short))
    visible = set(call.auth.visible(call.caller, [project["name"] for project, _, _ in found]))
    entries = [
        {
            "id": project["id"],
            "name": short,
            "organizationName": owner,
            "projectKey": project["key"],
            "version": 2,
        }
        for project, owner, short in found
        if project["name"] in visible
    ]
    offset, limit = call.integer("offset", 0), call.integer("limit", 1000)
    total = len(entries)
    return {
        "entries": entries[offset : offset + limit],
        "matchingItemCount": total,
        "totalItemCount": total,
    }


def create_project(call: Call) -> Any:
    wanted = call.object()
    workspace, short = wanted.get("organizationId"), wanted.get("name")
    if not isinstance(workspace, str) or not isinstance(short, str) or not workspace or not short:
        raise BadRequestError("projectToCreate needs organizationId and name")
    name = text(f"{workspace}/{short}", "name", 256)
    key, description = wanted.get("projectKey"), text(wanted.get("description") or "", "description")
    if key is not None and not (isinstance(key, str) and re.fullmatch(r"[A-Z0-9]{1,10}", key)):
        raise BadRequestError(f"projectKey must be 1 to 10 capital letters or digits, got {key!r:.80}")
    visibility = text(wanted.get("visibility") or "priv", "visibility", 16)
    call.auth.require(call.caller, name, "contributor")
    call.store.create_project(name, key, description, visibility)
    if call.auth.required:
        call.auth.set_role(call.caller.user, name, "owner")
    return _project(call.project("viewer", name))


def delete_project(call: Call) -> Any:
    call.store.delete_project(call.project("owner"))


def list_organizations(call: Call) -> Any:
    names = {project["name"].partition("/")[0] for project in call.store.projects()}
    names.add(call.caller.user)
    return [{"id": name, "name": name} for name in sorted(names | call.shared.workspaces)]


def _members(call: Call) -> Any:
    row = call.project("viewer")
    members = call.auth.members(f"{row.workspace}/{row.name}")
    return [_member(user, role) for user, role in members.items()]


def _member(user: str, role: str) -> dict[str, Any]:
    return {
        "registeredMemberInfo": {"username": user},
        "serviceAccountInfo": {"id": user, "displayName": user},
        "role": _WIRE_ROLES[ROLES.index(role)],
    }


def _add_member(call: Call, user: Any) -> Any:
    row = call.project("owner")
    role = call.object().get("role")
    if not isinstance(user, str) or role not in _WIRE_ROLES:
        raise BadRequestError(f"a member needs a name and a role of {', '.join(_WIRE_ROLES)}")
    name = f"{row.workspace}/{row.name}"
    if user in call.auth.members(name):
        raise ConflictError(f"{user} is a member of {name} already")
    ours = ROLES[_WIRE_ROLES.index(role)]
    call.auth.set_role(user, name, ours)
    return _member(user, ours)


def add_project_member(call: Call) -> Any:
    return _add_member(call, call.object().get("userId"))


def add_project_service_account(call: Call) -> Any:
    return _add_member(call, call.object().get("serviceAccountId"))


def _delete_member(call: Call, user: str) -> None:
    row = call.project("owner")
    if not call.auth.remove_role(user, f"{row.workspace}/{row.name}"):
        raise ForbiddenError(f"{user} is not a member of {row.workspace}/{row.name}")


def list_organization_members(call: Call) -> Any:
    return [{"registeredMemberInfo": {"username": user}, "role": "member"} for user in call.auth.users()]


def list_service_accounts(call: Call) -> Any:
    """Every user can be a service account: a token is a token."""
    names = {*call.auth.users(), *call.shared.service_accounts}
    return [{"id": name, "displayName": name} for name in sorted(names)]


HANDLERS = {
    "getClientConfig": get_client_config,
    "exchangeApiToken": exchange_api_token,
    "getProject": get_project,
    "listProjects": list_projects,
    "createProject": create_project,
    "deleteProject": delete_project,
    "listOrganizations": list_organizations,
    "addProjectMember": add_project_member,
    "listProjectMembers": _members,
    "deleteProjectMember": lambda call: _delete_member(call, call.text("userId")),
    "listOrganizationMembers": list_organization_members,
    "listServiceAccounts": list_service_accounts,
    "addProjectServiceAccount": add_project_service_account,
    "listProjectServiceAccounts": _members,
    "deleteProjectServiceAccount": lambda call: _delete_member(call, call.text("serviceAccountId")),
}
