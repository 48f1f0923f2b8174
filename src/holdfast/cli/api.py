"""`holdfast api`: the HTTP API of workflows alone, in front of a Restate server or an engine of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from holdfast.admin.api import ADMIN_TOKEN_VARIABLE
from holdfast.cli.config import configuration_options, configured
from holdfast.cli.output import json_option, talk
from holdfast.config import SecurityConfig

logger = logging.getLogger("holdfast.api")

PORT = 9072


@click.command()
@click.option("--provider", help="embedded, restate …  [default: as the configuration routes]")
@configuration_options
@click.option(
    "--host",
    envvar="HOLDFAST_HOST",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Other machines are let in only with tokens.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: a free one.")
@click.option("--tokens-file", envvar="HOLDFAST_TOKENS_FILE", show_envvar=True, help="Tokens of scope admin.")
@click.option("--insecure", envvar="HOLDFAST_INSECURE", is_flag=True, help="Let other machines in without tokens.")
@click.option("--tls-cert", envvar="HOLDFAST_TLS_CERT", help="PEM file: serve over TLS.")
@click.option("--tls-key", envvar="HOLDFAST_TLS_KEY", help="PEM file.  [default: in --tls-cert]")
@click.option("--allow-host", "allowed_hosts", multiple=True, metavar="NAME", help="A name it may be called by.")
@click.option(
    "--allow-origin", "allowed_origins", multiple=True, metavar="ORIGIN", help="A web page that may use it; * for all."
)
@click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@json_option
def api(
    provider: str | None,
    config_file: Path | None,
    settings: Sequence[str],
    host: str,
    port: int,
    allowed_origins: tuple[str, ...],
    log_format: Literal["console", "json"],
    log_level: str,
    as_json: bool,
    **security: Any,
) -> None:
    """Serve the HTTP API of workflows until SIGTERM or Ctrl-C.

    holdfast api --provider restate --set workflow.restate.endpoint=http://localhost:8080

    Workflows and executions, for programs in any language; `holdfast serve` has the same API on its admin port. With --json, one line on stdout tells where it is.

    In Python: holdfast.server.serve_api.
    """
    import asyncio
    import os

    from holdfast import logs

    logs.configure(log_format, log_level)
    configuration = configured(config_file, settings)
    guarding = SecurityConfig(admin_token=os.environ.get(ADMIN_TOKEN_VARIABLE), **security)

    def announce(url: str) -> None:
        if as_json:
            click.echo(json.dumps({"url": url, "pid": os.getpid()}))
        if log_format == "json":
            logger.info("serving", extra={"url": url})
        elif not as_json:
            talk(f"workflows  {url}/v1/workflows")
            talk(f"document   {url}/v1/openapi.json")
            talk(f"try        holdfast workflows list --url {url}")
            talk("stop       Ctrl-C")

    async def run() -> None:
        from holdfast.api.app import create_api
        from holdfast.providers.base import WorkflowProvider
        from holdfast.providers.opening import open_provider, open_router
        from holdfast.server import serve_api

        async def opened() -> WorkflowProvider:
            if provider is not None:
                return await open_provider(provider, config=configuration)
            router = await open_router(configuration)
            try:
                await router.open_all()
            except BaseException:
                await router.close()
                raise
            return router

        await serve_api(
            create_api(opened),
            host=host,
            port=port,
            allowed_origins=allowed_origins,
            security=guarding,
            on_ready=announce,
        )

    asyncio.run(run())
