"""Who may do what: users with revocable tokens, hashed at rest, and roles by project."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import sqlalchemy as sa

from segtrail.server.database import Database, NotFoundError, now_ms
from segtrail.server.schema import insert_for, meta, roles, tokens, upsert

ROLES = ("viewer", "contributor", "owner")
ACCESS_SECONDS = 3600
REFRESH_SECONDS = 90 * 24 * 3600
_RECHECK_SECONDS = 5.0
LOCAL_USER = "local"


class AuthError(Exception):
    """The caller is not known (answered with 401)."""


class ForbiddenError(Exception):
    """The caller is known and may not do this (answered with 403)."""


@dataclass(frozen=True)
class Caller:
    """Who calls: user, token, and a session that is new for each client process."""

    user: str
    token: str
    session: str


class Auth:
    """Tokens and roles of a store.

    Args:
        store: where they are.
        required: if False every caller is known, as user "local" with all rights: for a server that only
            this machine reaches.
    """

    def __init__(self, store: Database, *, required: bool) -> None:
        self.store = store
        self.required = required
        self.secret = self._secret()
        self._checked: dict[str, float] = {}
        self._roles: dict[tuple[str, str], tuple[float, int]] = {}

    def _secret(self) -> str:
        insert: Any = insert_for(self.store.engine.dialect.name, meta)
        row = {"key": "secret", "value": secrets.token_hex(32)}
        with self.store.write() as connection:
            connection.execute(insert.on_conflict_do_nothing(index_elements=["key"]), row)
            return str(connection.scalar(sa.select(meta.c.value).where(meta.c.key == "secret")))

    # -------------------------------------------------------------- tokens

    def create_token(self, user: str, role: str | None = None, project: str = "*") -> tuple[str, str]:
        """Creates a token of a user, and gives the user a role.

        Args:
            user: name.
            role: viewer, contributor or owner; None leaves roles as they are.
            project: "workspace/name", "workspace/*" or "*".

        Returns:
            The token's id and its key, which is not stored and cannot be shown again.
        """
        key, id = "st_" + secrets.token_urlsafe(32), secrets.token_hex(4)
        if role is not None:
            self.set_role(user, project, role)
        row = {"id": id, "user": user, "hash": _hash(key), "created": now_ms(), "revoked": None}
        with self.store.write() as connection:
            connection.execute(tokens.insert(), row)
        return id, key

    def tokens(self) -> list[dict[str, Any]]:
        """Lists tokens: ``id, user, created, revoked`` (epoch milliseconds)."""
        columns = (tokens.c.id, tokens.c.user, tokens.c.created, tokens.c.revoked)
        with self.store.read() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.select(*columns))]

    def revoke(self, id: str) -> None:
        """Makes a token worthless, within seconds.

        Raises:
            NotFoundError: there is no such token.
        """
        with self.store.write() as connection:
            update = tokens.update().where(tokens.c.id == id).values(revoked=now_ms())
            if not connection.execute(update).rowcount:
                raise NotFoundError(f"there is no token {id}")
        self._checked.clear()

    def exchange(self, api_token: str) -> Caller:
        """Identifies the owner of a ``NEPTUNE_API_TOKEN``; starts a session.

        Raises:
            AuthError: no such token, or revoked.
        """
        session = secrets.token_hex(8)
        key = _key(api_token)
        query = sa.select(tokens.c.id, tokens.c.user).where(tokens.c.hash == _hash(key))
        with self.store.read() as connection:
            row = connection.execute(query.where(tokens.c.revoked.is_(None))).first()
        if row is not None:
            return Caller(row.user, row.id, session)
        if self.required:
            raise AuthError(
                "the API token is unknown or revoked; create one with: segtrail token create USER"
            )
        return Caller(LOCAL_USER, "", session)

    def issue(self, caller: Caller, base: str, kind: str = "access") -> str:
        """Returns a signed bearer token for a session."""
        seconds = ACCESS_SECONDS if kind == "access" else REFRESH_SECONDS
        claims = {
            "sub": caller.user,
            "tid": caller.token,
            "sid": caller.session,
            "typ": kind,
            "azp": "segtrail",
            "iss": f"{base}/auth/realms/segtrail",
            "exp": int(time.time()) + seconds,
        }
        return jwt.encode(claims, self.secret, algorithm="HS256")

    def verify(self, bearer: str, kind: str = "access") -> Caller:
        """Checks a bearer token.

        Raises:
            AuthError: not ours, expired, of another kind, or its API token was revoked.
        """
        try:
            claims = jwt.decode(
                bearer, self.secret, algorithms=["HS256"], options={"require": ["exp", "sub", "sid"]}
            )
        except jwt.PyJWTError as error:
            raise AuthError(f"bearer token is not valid: {error}") from None
        if claims.get("typ") != kind:
            raise AuthError(f"expected a bearer token for {kind}")
        caller = Caller(claims["sub"], claims.get("tid") or "", claims["sid"])
        if caller.token:
            self._check_revoked(caller.token)
        elif self.required:
            raise AuthError("this session began without an API token, which is now required")
        return caller

    def _check_revoked(self, id: str) -> None:
        now = time.monotonic()
        if self._checked.get(id, -_RECHECK_SECONDS) + _RECHECK_SECONDS > now:
            return
        with self.store.read() as connection:
            query = sa.select(tokens.c.id).where(tokens.c.id == id, tokens.c.revoked.is_(None))
            if connection.scalar(query) is None:
                raise AuthError("the API token was revoked")
        self._checked[id] = now

    # -------------------------------------------------------------- roles

    def set_role(self, user: str, project: str, role: str) -> None:
        """Gives a user a role in a project, a workspace or everywhere.

        Raises:
            ValueError: no such role.
        """
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, got {role!r:.80}")
        with self.store.write() as connection:
            upsert(connection, roles, [{"user": user, "project": project, "role": role}])
        self._roles.clear()

    def remove_role(self, user: str, project: str) -> bool:
        """Takes a user's role in a project away. Says whether there was one."""
        with self.store.write() as connection:
            gone = roles.delete().where(roles.c.user == user, roles.c.project == project)
            removed = connection.execute(gone).rowcount > 0
        self._roles.clear()
        return removed

    def members(self, project: str) -> dict[str, str]:
        """Returns the role of each user that has one in this very project."""
        query = sa.select(roles.c.user, roles.c.role).where(roles.c.project == project)
        with self.store.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def users(self) -> list[str]:
        """Lists users that have a token or a role."""
        with self.store.read() as connection:
            both = sa.union(sa.select(tokens.c.user), sa.select(roles.c.user))
            return sorted(connection.scalars(both))

    def level(self, user: str, project: str) -> int:
        """Returns the user's level in a project: 0 none, 1 viewer, 2 contributor, 3 owner."""
        if not self.required:
            return len(ROLES)
        now = time.monotonic()
        cached = self._roles.get((user, project))
        if cached is not None and cached[0] + _RECHECK_SECONDS > now:
            return cached[1]
        scopes = _scopes(project)
        query = sa.select(roles.c.role).where(roles.c.user == user, roles.c.project.in_(scopes))
        with self.store.read() as connection:
            level = max((ROLES.index(role) + 1 for role in connection.scalars(query)), default=0)
        self._roles[user, project] = now, level
        return level

    def require(self, caller: Caller, project: str, role: str) -> None:
        """Checks that a caller has at least `role` in a project.

        Raises:
            ForbiddenError: the caller has not.
        """
        if self.level(caller.user, project) <= ROLES.index(role):
            raise ForbiddenError(f"{caller.user} is not {role} of {project}")

    def visible(self, caller: Caller, projects: Sequence[str]) -> list[str]:
        """Returns those projects that the caller may read."""
        return [project for project in projects if self.level(caller.user, project) > 0]


def _scopes(project: str) -> list[str]:
    return [project, project.partition("/")[0] + "/*", "*"]


def _hash(key: str) -> str:
    # Keys are 256 random bits: a plain digest cannot be searched.
    return hashlib.sha256(key.encode()).hexdigest()


def _key(api_token: str) -> str:
    """Returns the key inside a ``NEPTUNE_API_TOKEN``."""
    try:
        return str(json.loads(base64.b64decode(api_token, validate=True))["api_key"])
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        return api_token


def api_token(base: str, key: str) -> str:
    """Returns the ``NEPTUNE_API_TOKEN`` for a key of the server at `base`."""
    content = {"api_address": base, "api_url": base, "api_key": key}
    return base64.b64encode(json.dumps(content).encode()).decode()
