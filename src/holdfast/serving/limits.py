"""How long a connection may take over what, how much it may send, and what it is told otherwise."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from http import HTTPStatus

from holdfast.config import SecurityConfig

BODY_BYTES_PER_S_MIN = 1024
"""A body may take its time plus a second for each of these: a slow line gets through, a byte a minute does not."""

STATUS_MAX = 999
"""The largest status that HTTP has room for."""

WRITE_STALL_S = 60
"""A client that takes nothing of its answer for so long is gone, or wants to keep our memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds are counted in sweeps, one a second (see `sweep` of the protocols): a timer for each request would cost
    more than everything else here."""

    head_s: int
    body_s: int
    head_bytes_max: int
    headers_max: int
    connections_max: int

    @classmethod
    def of(cls, config: SecurityConfig) -> Limits:
        return cls(
            head_s=math.ceil(config.head_timeout_ms / 1_000),
            body_s=math.ceil(config.body_timeout_ms / 1_000),
            head_bytes_max=config.head_bytes_max,
            headers_max=config.headers_max,
            connections_max=config.connections_max,
        )

    @property
    def late_head(self) -> str:
        return f"the head of the request did not arrive within {self.head_s} s"

    @property
    def late_body(self) -> str:
        return f"the body of the request did not arrive within {self.body_s} s and a second for each KiB"

    @property
    def too_many_headers(self) -> str:
        return f"the request has more than {self.headers_max} headers"

    @property
    def too_large_head(self) -> str:
        return f"the head of the request is larger than {self.head_bytes_max} bytes"

    def body_is_late(self, seconds: int, received_bytes: int) -> bool:
        return seconds > self.body_s + received_bytes // BODY_BYTES_PER_S_MIN


class WriteStall:
    """Notices that nothing of what we wrote leaves any more."""

    __slots__ = ("_seconds", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._seconds = 0

    def is_too_long(self, transport: asyncio.Transport) -> bool:
        """To be asked once a second."""
        size = transport.get_write_buffer_size()
        self._seconds = self._seconds + 1 if size and size >= self._size else 0
        self._size = size
        return self._seconds > WRITE_STALL_S


def plain_answer(status: int, message: str) -> bytes:
    """A whole HTTP/1.1 answer, after which the connection ends."""
    body = message.encode("ascii", "replace")
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
