"""``segtrail token``: what a training script needs to reach the server."""

from __future__ import annotations

import argparse
import datetime
import getpass
import sys
from collections.abc import Sequence

from segtrail.server.auth import ROLES, Auth, api_token
from segtrail.server.database import NotFoundError
from segtrail.server.options import add_store_arguments, open_store


def main(argv: Sequence[str]) -> int:
    """Runs ``segtrail token [create|list|revoke]``; without a verb it creates one for the current user."""
    argv = list(argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv.insert(0, "create")
    parser = argparse.ArgumentParser("segtrail token", description="Tokens for the Neptune client.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create", help="print what a training script needs")
    create.add_argument("user", nargs="?", default=getpass.getuser(), help="(default: %(default)s)")
    create.add_argument("--url", default="http://127.0.0.1:8080", help="of the server (default: %(default)s)")
    create.add_argument("--role", choices=ROLES, default="contributor", help="(default: %(default)s)")
    create.add_argument("--project", default="*", help="workspace/name, workspace/* or * (default)")
    listing = verbs.add_parser("list", help="list tokens")
    revoke = verbs.add_parser("revoke", help="make a token worthless")
    revoke.add_argument("id", help="from `segtrail token list`")
    for verb in (create, listing, revoke):
        add_store_arguments(verb)
    arguments = parser.parse_args(argv)
    store = open_store(arguments)
    try:
        auth = Auth(store, required=True)
        if arguments.verb == "create":
            _create(auth, arguments)
        elif arguments.verb == "list":
            _list(auth)
        else:
            auth.revoke(arguments.id)
            print(f"revoked {arguments.id}")
    except NotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        store.close()
    return 0


def _create(auth: Auth, arguments: argparse.Namespace) -> None:
    id, key = auth.create_token(arguments.user, arguments.role, arguments.project)
    print(f"# token {id} of {arguments.user}, {arguments.role} of {arguments.project}; it is shown only once")
    print(f"export NEPTUNE_API_TOKEN={api_token(arguments.url.rstrip('/'), key)}")
    if "*" not in arguments.project:
        print(f"export NEPTUNE_PROJECT={arguments.project}")
    if arguments.url.startswith("http://"):
        # The client's OAuth library refuses plain http otherwise.
        print("export OAUTHLIB_INSECURE_TRANSPORT=1")


def _list(auth: Auth) -> None:
    for token in auth.tokens():
        created = datetime.datetime.fromtimestamp(token["created"] / 1000).isoformat(" ", "minutes")
        print(f"{token['id']}  {token['user']:<20} {created}  {'revoked' if token['revoked'] else 'valid'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
