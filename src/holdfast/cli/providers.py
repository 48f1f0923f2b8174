"""`holdfast providers`: where workflows can run, and whether a provider keeps its promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from holdfast.cli.config import configuration_options, configured
from holdfast.cli.output import json_option, show, table, talk


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def providers(ctx: click.Context, as_json: bool) -> None:
    """What workflows can run on.

    In Python: holdfast.providers.registry.names().
    """
    if ctx.invoked_subcommand is not None:
        return
    from holdfast.providers import registry

    found = [{"name": name, "description": registry.get(name).description} for name in registry.names()]
    show(
        found, as_json, lambda: table(("NAME", "DESCRIPTION"), [(each["name"], each["description"]) for each in found])
    )


@providers.command()
@click.option("--provider", "name", required=True, help="Its name, see: holdfast providers.")
@click.option("--only", metavar="TEXT", default="", help="Only promises with this text in their name.")
@configuration_options
@json_option
def contract(name: str, only: str, config_file: Path | None, settings: Sequence[str], as_json: bool) -> None:
    """Try every promise of the interface on a configured provider; exits with 1 if one is broken.

    Creates workflows named contract-… there, and deletes them again.

    In Python: holdfast.providers.contract.check_all.
    """
    import asyncio
    import logging

    from holdfast.providers.contract import Result, check_all

    # Handlers of the checks fail on purpose; the SDK would show each failure with its traceback.
    logging.getLogger("restate").setLevel(logging.CRITICAL)
    configuration = configured(config_file, settings)

    def tell(result: Result) -> None:
        talk(f"{'kept  ' if result.is_kept else 'BROKEN'} {result.name} ({result.duration_s:.1f} s)")
        if not result.is_kept:
            talk(f"       {result.problem}")

    results = asyncio.run(check_all(name, configuration, only=only, on_result=None if as_json else tell))
    broken = [result.name for result in results if not result.is_kept]
    document = {"provider": name, "results": [result.to_json() for result in results]}
    show(document, as_json, lambda: f"{name}: {len(results) - len(broken)} promises kept, {len(broken)} broken")
    if broken:
        raise SystemExit(1)
