"""The command group: subcommands, and one place where errors become text and exit codes."""

from __future__ import annotations

import sys
from typing import Any

import click

from holdfast.cli.api import api
from holdfast.cli.call import call, send
from holdfast.cli.config import config
from holdfast.cli.demo import demo
from holdfast.cli.deploy import deploy
from holdfast.cli.deployments import deployments
from holdfast.cli.executions import executions
from holdfast.cli.invocations import invocations
from holdfast.cli.metrics import metrics
from holdfast.cli.output import exit_code, show_error
from holdfast.cli.providers import providers
from holdfast.cli.restate import restate
from holdfast.cli.serve import serve
from holdfast.cli.services import services
from holdfast.cli.sql import sql
from holdfast.cli.state import state
from holdfast.cli.tokens import tokens
from holdfast.cli.version import version
from holdfast.cli.workflows import workflows
from holdfast.errors import HoldfastError


class _Holdfast(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HoldfastError as error:
            show_error(error)
            ctx.exit(exit_code(error))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order a newcomer meets them, not of the alphabet


@click.group(
    cls=_Holdfast,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 the request was wrong, 1 it failed. Data goes to stdout, everything else to stderr.",
)
def holdfast() -> None:
    """Durable workflows for Python: run a restate-sdk application in one process, on one SQLite file."""


for command in (
    serve,
    call,
    send,
    workflows,
    executions,
    invocations,
    state,
    sql,
    metrics,
    services,
    deployments,
    tokens,
    api,
    providers,
    config,
    deploy,
    restate,
    demo,
    version,
):
    holdfast.add_command(command)


def main() -> None:
    """Entry point of the `holdfast` command."""
    try:
        holdfast(prog_name="holdfast")
    except KeyboardInterrupt:
        sys.exit(130)
