"""recon in one process: engine, services and HTTP API.

    python -m apps.recon.serve --dir recon-data --port 3000
    python -m apps.recon.serve --engine restate

It may be killed at any moment: started again on the same directory it goes on where it was. `python -m apps.recon`
has the same as a command among others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.routing import Route

from apps.recon import logs
from apps.recon.api import create_api
from apps.recon.engines import ENGINE_FILE, EngineUnavailable, open_store, run_engine
from apps.recon.settings import ENGINES, InvalidSetting, Settings
from apps.recon.surreal import StoreError
from apps.serving import Server, listen, stop_on_eof, stop_on_signal
from holdfast import HoldfastError

STORE_DIRECTORY = "surreal"

STOP_S = 5
"""How long requests that run get at a stop."""

__all__ = ["ENGINE_FILE", "STORE_DIRECTORY", "main", "run", "serve"]


async def serve(settings: Settings, listener: socket.socket, *, until: Callable[[asyncio.Event], None]) -> None:
    """Serve the API on `listener` until the event that is handed to `until` is set, then stop cleanly.

    Args:
        settings: `directory` is where the databases are or will be.
        listener: A bound socket.
        until: Called when requests are answered.
    Raises:
        StoreError, HoldfastError: a database is in use by somebody else, not ours, or cannot be reached.
        EngineUnavailable: the Restate server cannot be reached, or refuses.
    """
    async with open_store(settings) as store, run_engine(store, settings) as engine:
        api = create_api(store, engine.client, settings, probe=engine.probe)
        api.router.routes.append(Route("/metrics", engine.metrics))
        config = uvicorn.Config(
            api,
            lifespan="off",
            access_log=False,
            log_config=None,
            ws="none",
            proxy_headers=False,  # who may speak for others is decided by `limits.py`
            timeout_graceful_shutdown=STOP_S,
        )
        server = Server(config)
        async with api.router.lifespan_context(api):
            serving = asyncio.create_task(server.serve([listener]))
            stop = asyncio.Event()
            until(stop)
            await stop.wait()
        # The lifespan has ended the event streams, which would otherwise hold up the stop.
        server.should_exit = True
        await serving


def run(settings: Settings, *, is_child: bool = False) -> int:
    """Serve until a signal; the one line about where it listens goes to standard output. Returns the exit status.

    Args:
        is_child: For a parent process: that line is JSON, and the end of standard input stops it.
    """
    logs.configure(settings.log_format, settings.log_level)
    try:
        listener = listen(settings.host, settings.port)
    except (OSError, OverflowError) as error:
        where = f"{settings.host}:{settings.port}"
        sys.stderr.write(f"error: cannot listen on {where}: {error}\nnext: choose another --host or --port\n")
        return 1

    def announce(stop: asyncio.Event) -> None:
        url = "http://{}:{}".format(*listener.getsockname()[:2])
        human = f"recon answers on {url}, data in {settings.directory}; Ctrl-C stops it"
        sys.stdout.write((json.dumps({"url": url}) if is_child else human) + "\n")
        sys.stdout.flush()
        (stop_on_eof if is_child else stop_on_signal)(stop)

    try:
        with listener:
            asyncio.run(serve(settings, listener, until=announce))
    except (StoreError, HoldfastError, EngineUnavailable, OSError) as error:
        hint = getattr(error, "hint", "")
        sys.stderr.write(f"error: {error}\n" + (f"next: {hint}\n" if hint else ""))
        return 1
    except InvalidSetting as error:  # one that only using it can tell, as a file that is not what it should be
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:  # before the signal handlers were there
        return 130
    return 0


def _flags(argv: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m apps.recon.serve", description="recon in one process.")
    parser.add_argument("--engine", choices=ENGINES, help="embedded (default), or restate: a server elsewhere")
    parser.add_argument("--dir", dest="directory", type=Path, help="where the databases are (recon-data)")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", help="0 takes a free one (3000)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return vars(parser.parse_args(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. 0 after a clean stop, 1 if it could not run, 2 for a wrong setting."""
    flags = _flags(argv)
    is_child = flags.pop("child")
    try:
        settings = Settings.load(flags)
    except InvalidSetting as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return run(settings, is_child=is_child)


if __name__ == "__main__":
    sys.exit(main())
