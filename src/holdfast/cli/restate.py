"""`holdfast restate`: a Restate server of this machine, for development."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.cli.output import json_option, show, talk

if TYPE_CHECKING:
    from holdfast.deploy.restate import LocalServer

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FOLDER = Path(".restate")


def _folder_option(command: _Command) -> _Command:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=_FOLDER,
        show_default=True,
        help="Its data and log.",
    )(command)


@click.group()
def restate() -> None:
    """A real Restate server on this machine, from its npm package."""


@restate.command()
@_folder_option
@click.option("--ingress-port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one.")
@click.option("--admin-port", type=click.IntRange(0, 65535), default=9070, show_default=True, help="0: a free one.")
@json_option
def up(folder: Path, ingress_port: int, admin_port: int, as_json: bool) -> None:
    """Start it in the background, unless it runs; install it first if it is nowhere.

    It is looked for in $RESTATE_SERVER_BIN, in node_modules here and above, and on the PATH.

    In Python: holdfast.deploy.restate.up.
    """
    from holdfast.deploy.restate import up as start

    server, is_new = start(folder, ingress_port=ingress_port, admin_port=admin_port, told=talk)
    show({**asdict(server), "is_new": is_new}, as_json, lambda: _text(server))
    if not as_json:
        talk(f"started; stop it with: {_line('down', folder)}" if is_new else "it was running already")


@restate.command()
@_folder_option
@json_option
def down(folder: Path, as_json: bool) -> None:
    """Stop it. Its data stays, and the next start goes on with it.

    In Python: holdfast.deploy.restate.down.
    """
    from holdfast.deploy.restate import down as stop

    server = stop(folder)
    show({"stopped": server is not None}, as_json, lambda: "")
    if not as_json:
        talk(f"stopped (pid {server.pid})" if server else f"no server runs from {folder}")


@restate.command()
@_folder_option
@json_option
@click.pass_context
def status(ctx: click.Context, folder: Path, as_json: bool) -> None:
    """Whether it runs, and where. Exits with 1 when it does not.

    In Python: holdfast.deploy.restate.status.
    """
    from holdfast.deploy.restate import status as look

    server = look(folder)
    show(asdict(server) if server else None, as_json, lambda: _text(server) if server else "")
    if server is None:
        if not as_json:
            talk(f"no server runs from {folder}; start one: {_line('up', folder)}")
        ctx.exit(1)


def _text(server: LocalServer) -> str:
    lines = (
        f"ingress  {server.ingress_url}",
        f"admin    {server.admin_url} (web UI: {server.admin_url}/ui/)",
        f"version  {server.version}",
        f"pid      {server.pid}",
        f"data     {server.folder}",
    )
    return "\n".join(lines)


def _line(verb: str, folder: Path) -> str:
    """A command to type, about the server of this folder."""
    return f"holdfast restate {verb}" + ("" if folder == _FOLDER else f" --dir {shlex.quote(str(folder))}")
