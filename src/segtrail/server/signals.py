"""Signals from the server to running clients: stop, and abort."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict

from starlette.websockets import WebSocket, WebSocketDisconnect

from segtrail.server.database import NotFoundError

HEARTBEAT_SECONDS = 30.0


class Signals:
    """The open connections of clients, by run."""

    def __init__(self) -> None:
        self._connections: dict[str, set[WebSocket]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, socket: WebSocket, run_id: str) -> None:
        """Keeps one connection until the client closes it."""
        await socket.accept()
        self._loop = asyncio.get_running_loop()
        self._connections[run_id].add(socket)
        heartbeat = asyncio.create_task(_beat(socket))
        try:
            with contextlib.suppress(WebSocketDisconnect):
                while True:
                    await socket.receive_text()
        finally:
            heartbeat.cancel()
            self._connections[run_id].discard(socket)
            if not self._connections[run_id]:
                del self._connections[run_id]

    def send(self, run_id: str, kind: str, seconds: float | None = None) -> None:
        """Asks all clients of a run to stop or abort; called from any thread.

        Raises:
            NotFoundError: no client of the run is connected.
        """
        sockets = list(self._connections.get(run_id, ()))
        if not sockets or self._loop is None:
            raise NotFoundError("no client of the run is connected")
        body = {} if seconds is None else {"seconds": seconds}
        message = json.dumps({"type": f"neptune/{kind}", "body": body})
        for socket in sockets:
            asyncio.run_coroutine_threadsafe(socket.send_text(message), self._loop).result(10)


async def _beat(socket: WebSocket) -> None:
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await socket.send_text("")
