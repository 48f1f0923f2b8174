"""A SurrealDB server for tests: the embedded engine of the SDK, which speaks the server's own RPC protocol, behind a
WebSocket. Queries, transactions, sign-in and errors are SurrealDB's; only the socket is ours. The server program itself
is not needed, and not in any registry that the tests use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import websockets
from surrealdb import AsyncEmbeddedSurrealConnection
from surrealdb.data.cbor import decode, encode
from websockets.asyncio.server import Server, ServerConnection, serve

USER, PASSWORD = "recon", "correct horse"


class SurrealServer:
    """One database on disk that any number of connections use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: AsyncEmbeddedSurrealConnection | None = None
        self._server: Server | None = None
        self._port = 0
        self.connection_count = 0
        """Open now."""
        self.accepted_count = 0
        """Ever."""

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        if self._connection is None:
            self._connection = AsyncEmbeddedSurrealConnection(f"surrealkv://{self._path}")
            await self._connection.connect()
            await self._connection.query_raw(
                f"DEFINE USER IF NOT EXISTS {USER} ON ROOT PASSWORD '{PASSWORD}' ROLES OWNER"
            )
        self._server = await serve(
            self._answer, "127.0.0.1", self._port, subprotocols=[websockets.Subprotocol("cbor")], max_size=None
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut every connection; the database stays."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def close(self) -> None:
        await self.stop()
        if self._connection is not None:
            await self._connection.close()

    async def _answer(self, socket: ServerConnection) -> None:
        assert self._connection is not None
        self.connection_count += 1
        self.accepted_count += 1
        try:
            async for message in socket:
                assert isinstance(message, bytes)
                try:
                    answer = await self._connection._db.execute(message)
                except RuntimeError as error:  # a server says it in this form
                    answer = encode({"id": decode(message)["id"], "error": {"code": -32000, "message": str(error)}})
                await socket.send(answer)
        except websockets.ConnectionClosed:
            pass
        finally:
            self.connection_count -= 1


@asynccontextmanager
async def surreal_server(path: Path) -> AsyncIterator[SurrealServer]:
    server = SurrealServer(path)
    await server.start()
    try:
        yield server
    finally:
        await server.close()
