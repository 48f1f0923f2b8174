"""recon in one process: engine, workflow and HTTP API, on two databases in one directory.

    python -m apps.recon.serve --dir recon-data --port 3000

It may be killed at any moment: started again on the same directory it goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import uvicorn

from apps.recon.api import create_api
from apps.recon.store import Store
from apps.recon.surreal import StoreError
from apps.recon.workflow import create_app
from holdfast import Engine, HoldfastError

ENGINE_FILE = "engine.db"
STORE_DIRECTORY = "surreal"


async def serve(directory: Path, listener: socket.socket, *, until: Callable[[asyncio.Event], None]) -> None:
    """Serve the API on `listener` until the event that is handed to `until` is set, then stop cleanly.

    Args:
        directory: Where `engine.db` and `surreal/` are or will be.
        listener: A bound socket.
        until: Called when requests are answered.
    Raises:
        StoreInUse, StoreRefused, DatabaseInUse, DatabaseRefused: a database belongs to somebody else.
    """
    directory.mkdir(parents=True, exist_ok=True)
    async with (
        Store(directory / STORE_DIRECTORY) as store,
        Engine(create_app(store), db=directory / ENGINE_FILE) as engine,
    ):
        config = uvicorn.Config(
            create_api(store, engine.client), lifespan="off", access_log=False, log_level="warning", ws="none"
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        stop = asyncio.Event()
        until(stop)
        await stop.wait()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Leaves signals to us: the engine and the database must close after the last request, in this order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _stop_on_signal(stop: asyncio.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def _stop_on_eof(stop: asyncio.Event) -> None:
    """Standard input ends when the parent closes it, and also when the parent dies: no orphan is left."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, readable)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m apps.recon.serve", description="recon in one process.")
    parser.add_argument("--dir", type=Path, default=Path("recon-data"), help="where the databases are (recon-data)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=3000, help="0 takes a free one (3000)")
    # For a parent process: say where we listen as JSON on standard output, stop when standard input ends.
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. 0 after a clean stop, 1 if it could not run."""
    arguments = _arguments(argv)
    try:
        listener = socket.create_server((arguments.host, arguments.port), backlog=512)
    except (OSError, OverflowError) as error:
        where = f"{arguments.host}:{arguments.port}"
        sys.stderr.write(f"error: cannot listen on {where}: {error}\nnext: choose another --host or --port\n")
        return 1

    def announce(stop: asyncio.Event) -> None:
        url = "http://{}:{}".format(*listener.getsockname()[:2])
        human = f"recon answers on {url}, data in {arguments.dir}; Ctrl-C stops it"
        sys.stdout.write((json.dumps({"url": url}) if arguments.child else human) + "\n")
        sys.stdout.flush()
        (_stop_on_eof if arguments.child else _stop_on_signal)(stop)

    try:
        with listener:
            asyncio.run(serve(arguments.dir, listener, until=announce))
    except (StoreError, HoldfastError) as error:
        hint = getattr(error, "hint", "")
        sys.stderr.write(f"error: {error}\n" + (f"next: {hint}\n" if hint else ""))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
