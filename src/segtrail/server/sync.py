"""``segtrail sync``: brings what the client left on disk to a server or a store, exactly once.

It replaces ``neptune sync``, which loses what follows a damaged record, doubles what forked processes wrote
twice, and stops at a copied attribute; and it never changes or deletes the source.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import requests

from segtrail.server.api_sync import PREFIX
from segtrail.server.ingest import Follower, Item
from segtrail.server.options import add_store_arguments, open_store

_TIMEOUT = 120


class RemoteStore:
    """A server, with the methods that a :class:`~segtrail.server.ingest.Follower` needs.

    Args:
        api_token: a ``NEPTUNE_API_TOKEN``.

    Raises:
        ValueError: it is none.
        requests.RequestException: the server cannot be reached or refuses the token.
    """

    def __init__(self, api_token: str) -> None:
        try:
            content = json.loads(base64.b64decode(api_token))
            self.base = str(content.get("api_url") or content["api_address"]).rstrip("/")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"NEPTUNE_API_TOKEN is not one: {error!r}") from None
        self._api_token = api_token
        self._session = requests.Session()
        self._log_in()

    def _log_in(self) -> None:
        url = f"{self.base}/api/backend/v1/authorization/oauth-token"
        answer = self._session.get(url, headers={"X-Neptune-Api-Token": self._api_token}, timeout=_TIMEOUT)
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self._session.request(method, f"{self.base}{PREFIX}/{path}", timeout=_TIMEOUT, **arguments)
        if answer.status_code == 401:  # the session's bearer token expired
            self._log_in()
            answer = self._session.request(
                method, f"{self.base}{PREFIX}/{path}", timeout=_TIMEOUT, **arguments
            )
        if answer.status_code >= 400:
            raise requests.HTTPError(f"{path}: {answer.status_code} {answer.text[:300]}", response=answer)
        return answer.json() if answer.content else None

    def source(self, directory: str) -> tuple[str, int, str] | None:
        """See :class:`segtrail.server.ingest.Target`."""
        known = self._ask("GET", "source", params={"directory": directory})["source"]
        return None if known is None else (known[0], known[1], known[2])

    def open_source(
        self, directory: str, origin: str, project: str, custom_id: str | None, created: int, version: int
    ) -> str:
        """See :class:`segtrail.server.ingest.Target`."""
        body = {"directory": directory, "origin": origin, "project": project, "custom_id": custom_id}
        return str(self._ask("POST", "source", json={**body, "created": created, "version": version})["run"])

    def has_run(self, run_id: str) -> bool:
        """See :class:`segtrail.server.ingest.Target`."""
        return bool(self._ask("GET", "run", params={"experimentId": run_id})["found"])

    def put_file(self, parts: Iterable[bytes]) -> tuple[str, int]:
        """See :class:`segtrail.server.ingest.Target`."""
        answer = self._ask("POST", "blob", data=iter(parts))
        return answer["blob"], answer["size"]

    def put_artifact(self, run_id: str, hash: str, files: Sequence[dict[str, Any]]) -> None:
        """See :class:`segtrail.server.ingest.Target`."""
        self._ask("POST", "artifact", json={"run": run_id, "hash": hash, "files": list(files)})

    def ingest(
        self, directory: str, items: Sequence[Item], version: int, place: str
    ) -> tuple[int, list[str]]:
        """See :class:`segtrail.server.ingest.Target`."""
        body = {"directory": directory, "items": items, "version": version, "place": place}
        answer = self._ask("POST", "records", json=body)
        return answer["count"], answer["errors"]


def main(argv: Sequence[str]) -> int:
    """Runs ``segtrail sync``."""
    parser = argparse.ArgumentParser(
        "segtrail sync",
        description="Bring .neptune folders to the server in NEPTUNE_API_TOKEN, or with --data into a store.",
    )
    parser.add_argument("paths", nargs="*", default=[".neptune"], help="folders (default: .neptune)")
    parser.add_argument("--project", help="workspace/name of offline runs (default: NEPTUNE_PROJECT)")
    parser.add_argument(
        "--quiet", type=float, default=0.0, metavar="SECONDS", help="leave what changed since"
    )
    add_store_arguments(parser)
    parser.set_defaults(data=None)
    arguments = parser.parse_args(argv)
    project = arguments.project or os.environ.get("NEPTUNE_PROJECT")
    try:
        if arguments.data is not None or arguments.database is not None:
            arguments.data = arguments.data or "."
            target: Any = open_store(arguments)
        else:
            token = os.environ.get("NEPTUNE_API_TOKEN")
            if not token:
                print("set NEPTUNE_API_TOKEN (see `segtrail token`), or say --data FOLDER", file=sys.stderr)
                return 2
            target = RemoteStore(token)
        follower = Follower(target, arguments.paths, project=project, quiet=arguments.quiet)
        count = follower.poll()
    except (requests.RequestException, ValueError) as error:
        print(f"segtrail sync: {error}", file=sys.stderr)
        return 1
    print(f"{count} new operations")
    for problem in follower.problems:
        print(problem, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
