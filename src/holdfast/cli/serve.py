"""`holdfast serve`: engine, ingress and admin API for one application."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any, Literal

import click

from holdfast.cli.loading import load_app
from holdfast.cli.output import json_option, talk
from holdfast.cli.services import services_table

if TYPE_CHECKING:
    from holdfast.server import Serving

logger = logging.getLogger("holdfast.serve")


@click.command()
@click.argument("app", metavar="MODULE:APP")
@click.option("--db", default="holdfast.db", show_default=True, help="SQLite file; made when missing.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; neither API checks who calls."
)
@click.option("--ingress-port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one.")
@click.option("--admin-port", type=click.IntRange(0, 65535), default=9070, show_default=True, help="0: a free one.")
@click.option(
    "--durability",
    type=click.Choice(["full", "relaxed"]),
    default="full",
    show_default=True,
    help="relaxed does not wait for the disk: faster, and a power cut may lose the last moment (a killed process does not).",
)
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(min=0),
    default=8.0,
    show_default=True,
    help="Seconds that running handlers get after SIGTERM.",
)
@click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@json_option
def serve(
    app: str,
    db: str,
    host: str,
    ingress_port: int,
    admin_port: int,
    durability: Literal["full", "relaxed"],
    drain_s: float,
    log_format: Literal["console", "json"],
    log_level: str,
    as_json: bool,
) -> None:
    """Run the application MODULE:APP until SIGTERM or Ctrl-C.

    MODULE is looked for in the current directory first. APP is what restate.app([...]) returned, or a service, or a
    list of services. With --json, one line on stdout tells where everything is, once it is ready.

    In Python: holdfast.server.serve.
    """
    import asyncio

    from holdfast import logs

    logs.configure(log_format, log_level)
    application = load_app(app)
    from holdfast.config import EngineConfig
    from holdfast.server import serve as run

    def announce(serving: Serving) -> None:
        if as_json:
            click.echo(json.dumps(_document(serving)))
        if log_format == "json":
            logger.info("serving", extra=_document(serving))
        elif not as_json:
            _banner(serving)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(
            run(
                application,
                db=db,
                host=host,
                ingress_port=ingress_port,
                admin_port=admin_port,
                config=EngineConfig(durability=durability, drain_ms=int(drain_s * 1_000)),
                on_ready=announce,
            )
        )


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return None
    return uvloop.new_event_loop


def _document(serving: Serving) -> dict[str, Any]:
    return {
        "ingress_url": serving.ingress_url,
        "admin_url": serving.admin_url,
        "db": serving.db,
        "pid": os.getpid(),
        "services": list(serving.services),
    }


def _banner(serving: Serving) -> None:
    from holdfast.admin.render import service_metadata

    services = [service_metadata(service, deployment_id="") for service in serving.services.values()]
    talk(services_table(services))
    talk("")
    talk(f"ingress   {serving.ingress_url}")
    talk(f"admin     {serving.admin_url}")
    talk(f"database  {serving.db}")
    if example := _example(serving.ingress_url, services):
        talk(f"try       {example}")
    talk("stop      Ctrl-C (what runs goes on at the next start)")


_SAMPLES = {"string": '"Ada"', "integer": "1", "number": "1", "boolean": "true", "array": "[]", "object": "{}"}


def _example(ingress_url: str, services: list[dict[str, Any]]) -> str | None:
    """A curl line for the first handler that anybody may call."""
    for service in services:
        for handler in service["handlers"]:
            if handler["public"]:
                key = "" if service["ty"] == "Service" else "/my-key"
                url = f"{ingress_url}/{service['name']}{key}/{handler['name']}"
                if handler["input_description"] in ("none", "*/*"):
                    return f"curl -X POST {url}"
                sample = _SAMPLES.get(handler["input_description"].removeprefix("JSON "), "{}")
                return f"curl {url} -H 'content-type: application/json' -d '{sample}'"
    return None
