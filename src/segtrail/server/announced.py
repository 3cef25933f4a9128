"""A web server that says where it listens when it does."""

from __future__ import annotations

import socket

import uvicorn


class AnnouncedServer(uvicorn.Server):
    """Prints a line once it listens and signals stop it, so that whoever reads the line may do either.

    Args:
        config: of the server.
        line: what to print.
    """

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self.line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.line, flush=True)
