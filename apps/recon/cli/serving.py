"""Running recon: everything in one process, or the services alone for a Restate server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import httpx

from apps.recon import logs
from apps.recon.cli.client import Failure, WrongRequest
from apps.recon.settings import ENGINES, InvalidSetting, Settings


def _settings(flags: dict[str, Any]) -> Settings:
    try:
        return Settings.load(flags)
    except InvalidSetting as error:
        raise WrongRequest(str(error), hint="all settings: apps/recon/README.md") from None


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--log-format", type=click.Choice(["text", "json"]), help="Log lines (RECON_LOG_FORMAT)."),
        click.option("--log-level", help="debug, info, warning or error (RECON_LOG_LEVEL)."),
        click.option("--surrealdb-url", help="A SurrealDB server (SURREALDB_URL); none: embedded."),
        click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where databases are (RECON_DIR)."),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--engine", type=click.Choice(ENGINES), help="embedded, or restate: a server elsewhere (RECON_ENGINE).")
@click.option("--host", help="Address to listen on (HOST).")
@click.option(
    "--worker/--no-worker", "serve_worker", default=None, help="With restate: the services too, or the API alone."
)
@click.option("--port", help="Port to listen on; 0 takes a free one (PORT).")
@_common
def serve(**flags: Any) -> None:
    """Engine, services and HTTP API in one process."""
    from apps.recon.serve import run  # here: the other commands start without engine and server

    sys.exit(run(_settings(flags)))


@click.command()
@click.option("--at", envvar="RECON_HEALTH_URL", help="What to ask (RECON_HEALTH_URL); the API on its PORT by default.")
def healthy(at: str | None) -> None:
    """Exit status 0 when this machine's recon answers: for a container's health check."""
    at = at or f"http://127.0.0.1:{_settings({}).port}/health/live"
    try:
        httpx.get(at, timeout=3).raise_for_status()
    except httpx.HTTPError as error:
        raise Failure(f"{at} does not answer: {str(error) or type(error).__name__}") from None


@click.command()
@click.option("--port", "worker_port", help="Port of the SDK endpoint (RECON_WORKER_PORT).")
@click.option("--host", "worker_host", help="Its address (RECON_WORKER_HOST).")
@_common
def worker(**flags: Any) -> None:
    """The services alone, registered at a Restate server. Several may run on one SurrealDB server."""
    from apps.recon.engines import EngineUnavailable, open_store, serve_worker
    from apps.recon.surreal import StoreError

    settings = _settings(flags)
    logs.configure(settings.log_format, settings.log_level)

    async def work() -> None:
        stop = asyncio.Event()
        async with open_store(settings) as store, serve_worker(store, settings) as url:
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            sys.stdout.write(f"recon's services answer on {url}; Ctrl-C stops them\n")
            sys.stdout.flush()
            await stop.wait()

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(work())
    except InvalidSetting as error:
        raise WrongRequest(str(error)) from None
    except (StoreError, EngineUnavailable, OSError) as error:
        raise Failure(str(error)) from None
