"""How each application listens and stops: what `apps/<name>/serve.py` have in common."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Generator

import uvicorn


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: OSError, OverflowError: the address is not ours to take."""
    listener = socket.create_server((host, port), backlog=512)
    # asyncio does so only for sockets that name TCP; else each answer on a kept connection waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Server(uvicorn.Server):
    """Leaves signals to us: the engine and the database must close after the last request, in this order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def stop_on_signal(stop: asyncio.Event) -> None:
    """Set it at SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def stop_on_eof(stop: asyncio.Event) -> None:
    """Standard input ends when the parent closes it, and also when the parent dies: no orphan is left."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, readable)
