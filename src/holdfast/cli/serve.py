"""`holdfast serve`: engine, ingress and admin API for one application."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from holdfast.admin.api import ADMIN_TOKEN_VARIABLE, INGRESS_TOKEN_VARIABLE
from holdfast.cli.loading import load_app
from holdfast.cli.output import json_option, talk
from holdfast.cli.services import services_table
from holdfast.cli.tokens import tokens_file_option
from holdfast.config import CREDENTIAL_HEADERS, EngineConfig, SecurityConfig

if TYPE_CHECKING:
    from holdfast.server import Serving

logger = logging.getLogger("holdfast.serve")


@click.command()
@click.argument("app", metavar="[MODULE:APP]", required=False)
@click.option(
    "--db",
    envvar="HOLDFAST_DB",
    show_envvar=True,
    default="holdfast.db",
    show_default=True,
    help="SQLite file; made when missing.",
)
@click.option(
    "--host",
    envvar="HOLDFAST_HOST",
    show_envvar=True,
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Other machines are let in only with tokens: holdfast tokens create.",
)
@click.option(
    "--admin-host",
    envvar="HOLDFAST_ADMIN_HOST",
    show_envvar=True,
    help="Address of the admin API.  [default: as --host]",
)
@click.option(
    "--ingress-port",
    envvar="HOLDFAST_INGRESS_PORT",
    show_envvar=True,
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="0: a free one.",
)
@click.option(
    "--admin-port",
    envvar="HOLDFAST_ADMIN_PORT",
    show_envvar=True,
    type=click.IntRange(0, 65535),
    default=9070,
    show_default=True,
    help="0: a free one.",
)
@tokens_file_option
@click.option(
    "--insecure",
    envvar="HOLDFAST_INSECURE",
    show_envvar=True,
    is_flag=True,
    help="Let other machines in without tokens.",
)
@click.option("--tls-cert", envvar="HOLDFAST_TLS_CERT", show_envvar=True, help="PEM file: serve both APIs over TLS.")
@click.option("--tls-key", envvar="HOLDFAST_TLS_KEY", show_envvar=True, help="PEM file.  [default: in --tls-cert]")
@click.option(
    "--allow-host",
    "allowed_hosts",
    envvar="HOLDFAST_ALLOW_HOST",
    show_envvar=True,
    multiple=True,
    metavar="NAME",
    help="A name, besides localhost, by which this engine is called when it asks for no token.",
)
@click.option(
    "--allow-origin",
    "allowed_origins",
    envvar="HOLDFAST_ALLOW_ORIGIN",
    show_envvar=True,
    multiple=True,
    metavar="ORIGIN",
    help="Web pages that may send requests: https://ui.example.com, or * for all.",
)
@click.option(
    "--deny-headers",
    envvar="HOLDFAST_DENY_HEADERS",
    show_envvar=True,
    metavar="A,B",
    default=",".join(CREDENTIAL_HEADERS),
    show_default=True,
    help="Request headers that are neither stored nor shown to handlers.",
)
@click.option(
    "--allow-headers",
    envvar="HOLDFAST_ALLOW_HEADERS",
    show_envvar=True,
    metavar="A,B",
    help="The only request headers that are stored and shown.  [default: all not denied]",
)
@click.option(
    "--identity-key",
    envvar="HOLDFAST_IDENTITY_KEY",
    show_envvar=True,
    help="PEM file, an Ed25519 key: sign requests to services in other processes.",
)
@click.option(
    "--endpoint-ca",
    envvar="HOLDFAST_ENDPOINT_CA",
    show_envvar=True,
    help="PEM file: authorities that such services may have certificates of.  [default: the system's]",
)
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
@click.option(
    "--guard",
    "is_guarded",
    envvar="HOLDFAST_GUARD",
    show_envvar=True,
    is_flag=True,
    help="For development: warn about clocks, chance, tasks, sleeps and state in handlers that will not do.",
)
@click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@json_option
def serve(
    app: str | None,
    db: str,
    host: str,
    admin_host: str | None,
    ingress_port: int,
    admin_port: int,
    tokens_file: str | None,
    insecure: bool,
    tls_cert: str | None,
    tls_key: str | None,
    allowed_hosts: tuple[str, ...],
    allowed_origins: tuple[str, ...],
    deny_headers: str,
    allow_headers: str | None,
    identity_key: str | None,
    endpoint_ca: str | None,
    durability: Literal["full", "relaxed"],
    drain_s: float,
    is_guarded: bool,
    log_format: Literal["console", "json"],
    log_level: str,
    as_json: bool,
) -> None:
    """Run the application MODULE:APP until SIGTERM or Ctrl-C.

    MODULE is looked for in the current directory first. APP is what restate.app([...]) returned, or a service, or a
    list of services. Without one, services of other processes run: holdfast deployments register URL. With --json, one line on stdout tells where everything is, once it is ready.

    In Python: holdfast.server.serve.
    """
    import asyncio

    from holdfast import logs

    logs.configure(log_format, log_level)
    try:
        config = EngineConfig(
            durability=durability,
            drain_ms=int(drain_s * 1_000),
            allowed_origins=allowed_origins,
            stored_headers_deny=_names(deny_headers),
            stored_headers_allow=None if allow_headers is None else _names(allow_headers),
            identity_key_file=identity_key,
            endpoint_ca_file=endpoint_ca,
        )
        security = SecurityConfig(
            insecure=insecure,
            tokens_file=tokens_file,
            ingress_token=os.environ.get(INGRESS_TOKEN_VARIABLE) or None,
            admin_token=os.environ.get(ADMIN_TOKEN_VARIABLE) or None,
            allowed_hosts=allowed_hosts,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    application = None if app is None else load_app(app)
    if is_guarded:
        _guard(application)
    _tell_wrong_settings()
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
                admin_host=admin_host,
                ingress_port=ingress_port,
                admin_port=admin_port,
                config=config,
                security=security,
                on_ready=announce,
            )
        )


def _tell_wrong_settings() -> None:
    """What is wrong in the settings of workflows is told now, not at the first request to `/v1`.

    Handlers do not need them, so it is no reason not to start; and without variables or a file here nothing is loaded.
    """
    is_variable = any(name.startswith("HOLDFAST_WORKFLOW_") or name == "HOLDFAST_CONFIG" for name in os.environ)
    if not is_variable and not Path("holdfast.toml").is_file():
        return
    from holdfast.providers.configuration import Configuration
    from holdfast.providers.errors import InvalidConfiguration

    try:
        Configuration.load().check()
    except InvalidConfiguration as error:
        for problem in error.problems:
            logger.warning("/v1 refuses requests until this setting of workflows is put right: %s", problem)


def _guard(application: Any) -> None:
    from holdfast.loading import services_of
    from holdfast.patterns import guarded

    services = services_of(application)
    if not services:
        raise click.UsageError(
            "--guard needs MODULE:APP to be what restate.app([...]) returned; or watch services in your code: "
            "restate.app(holdfast.patterns.guarded([...]))"
        )
    guarded(services)
    logger.info("handlers are watched: --guard is for development", extra={"services": len(services)})


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


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
    if services:
        talk(services_table(services))
    else:
        talk("no services yet; next: holdfast deployments register http://localhost:9080")
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
