"""A wire between engine and endpoint that can be cut."""

from __future__ import annotations

import asyncio
from types import TracebackType
from urllib.parse import urlsplit


class Wire:
    """Forwards connections to an endpoint.

    async with Wire(url) as wire:
        await engine.register_deployment(wire.url)
        await wire.cut()          # every connection is lost, new ones are refused
        await wire.mend(other)    # to the same endpoint, or another
    """

    def __init__(self, url: str) -> None:
        self._target = url
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Wire:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def mend(self, url: str | None = None) -> None:
        self._target = url or self._target
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(self._target)
        onwards_reader, onwards_writer = await asyncio.open_connection(parts.hostname, parts.port)
        writers = {writer, onwards_writer}
        self._writers |= writers
        try:
            await asyncio.gather(_copy(reader, onwards_writer), _copy(onwards_reader, writer))
        finally:
            self._writers -= writers


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # it was cut
    finally:
        writer.close()
