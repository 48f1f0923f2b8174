"""Send an exact number of requests over a few keep-alive connections. wrk cannot: it counts time, not requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

Request = tuple[str, bytes | None]
"""Path and JSON body; None means GET."""


async def send_all(port: int, requests: Iterable[Request], *, expect: int = 200, connections: int = 50) -> list[bytes]:
    """Send every request to the loopback interface; returns the bodies, in the order of completion.

    Raises:
        RuntimeError: an answer had another status than `expect`.
    """
    bodies: list[bytes] = []
    turns = iter(requests)
    await asyncio.gather(*(_connection(port, turns, expect, bodies) for _ in range(connections)))
    return bodies


async def _connection(port: int, requests: Iterator[Request], expect: int, bodies: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for path, body in requests:
            writer.write(_encode(path, body))
            status, answer = await _read_response(reader)
            if status != expect:
                raise RuntimeError(f"{path} answered {status}: {answer.decode(errors='replace')}")
            bodies.append(answer)
    finally:
        writer.close()


def _encode(path: str, body: bytes | None) -> bytes:
    if body is None:
        return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head:
        return status, await _read_chunks(reader)
    size = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    return status, await reader.readexactly(int(size.split(b":")[1]))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int(await reader.readline(), 16)
        body += (await reader.readexactly(size + 2))[:size]
        if size == 0:
            return body
