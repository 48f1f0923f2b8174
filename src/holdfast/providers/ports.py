"""Ingress and admin API of an embedded engine on ports of this machine, for curl, other processes and the CLI.

Loopback only, and guarded as `holdfast serve` guards its ports there: other web pages and other host names are refused.
For other machines there is `holdfast serve`, with tokens, TLS and limits.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from holdfast.admin.app import create_admin
from holdfast.admin.guarded import guarded
from holdfast.embedded import Engine
from holdfast.errors import CannotListen
from holdfast.ingress.app import create_ingress
from holdfast.security.guard import Guard, Origins
from holdfast.security.tokens import Scope

_HOST = "127.0.0.1"


@asynccontextmanager
async def serve_apis(
    engine: Engine, ingress_port: int | None, admin_port: int | None
) -> AsyncGenerator[tuple[str | None, str | None]]:
    """Serve what has a port until the block ends; yields the URLs of ingress and admin API.

    Args:
        ingress_port, admin_port: 0 takes a free one, None leaves the API out.
    Raises:
        CannotListen: a port is taken.
    """
    ingress_socket = None if ingress_port is None else _listening(ingress_port, "ingress_port")
    admin_socket = None if admin_port is None else _listening(admin_port, "admin_port")
    ingress_url = _url(ingress_socket)
    servers: list[tuple[uvicorn.Server, socket.socket]] = []
    if ingress_socket is not None:
        app = create_ingress(engine, guard=_guard("ingress", Origins(engine.config.allowed_origins)))
        servers.append((_server(app), ingress_socket))
    if admin_socket is not None:
        origins = Origins(engine.config.allowed_origins, allow_links=True)
        admin = create_admin(engine, ingress_url=f"{ingress_url}/") if ingress_url else create_admin(engine)
        servers.append((_server(guarded(admin, _guard("admin", origins), origins)), admin_socket))
    tasks = [asyncio.create_task(server.serve([listener])) for server, listener in servers]
    try:
        yield ingress_url, _url(admin_socket)
    finally:
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)
        for _, listener in servers:
            listener.close()


def _guard(scope: Scope, origins: Origins) -> Guard:
    return Guard(scope, origins=origins, hosts=())


class _Server(uvicorn.Server):
    """Leaves signals to the program that it is part of."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _server(app: Any) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
    )


def _listening(port: int, setting: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen(2_048)
    except OSError as error:
        listener.close()
        taken = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise CannotListen(
            f"port {port} on {_HOST} {taken}", hint=f"choose another workflow.embedded.{setting}, or 0 for a free one"
        ) from error
    return listener


def _url(listener: socket.socket | None) -> str | None:
    return None if listener is None else f"http://{_HOST}:{listener.getsockname()[1]}"
