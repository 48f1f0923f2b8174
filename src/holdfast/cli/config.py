"""`holdfast config`: settings of the workflow layer, where they come from, and whether they fit together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from holdfast.cli.output import json_option, show

if TYPE_CHECKING:
    from holdfast.providers.configuration import Configuration

_Command = TypeVar("_Command", bound=Callable[..., Any])


def configuration_options(command: _Command) -> _Command:
    """`--config FILE` and `--set KEY=VALUE`; the command gets `config_file` and `settings`, for `configured`."""
    command = click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="A setting that wins over variables and file, e.g. workflow.restate.endpoint=http://localhost:8080.",
    )(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The configuration file; default: $HOLDFAST_CONFIG, ./holdfast.toml, then the user's and the system's.",
    )(command)


def configured(config_file: Path | None, settings: Sequence[str]) -> Configuration:
    """All sources, read; not checked."""
    from holdfast.providers.configuration import Configuration

    flags: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise click.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="--set")
        flags[key.strip()] = value
    return Configuration.load(flags, file=config_file, flag_origin="flag --set")


@click.group()
def config() -> None:
    """Settings of workflows: holdfast.toml, variables, flags."""


@config.command("show")
@configuration_options
@click.option("--origin", is_flag=True, help="Say for each value where it comes from.")
@json_option
def show_config(config_file: Path | None, settings: Sequence[str], origin: bool, as_json: bool) -> None:
    """All settings with the values they have now; secrets are masked.

    In Python: Configuration.load().show().
    """
    configuration = configured(config_file, settings)
    document = configuration.show(origins=origin)

    def text() -> str:
        workflow = configuration.show(origins=True)["workflow"]
        return "\n".join(_lines("workflow", workflow, with_origin=origin))

    show(document, as_json, text)


@config.command("check")
@configuration_options
@json_option
def check_config(config_file: Path | None, settings: Sequence[str], as_json: bool) -> None:
    """Whether every setting is right and all fit together; exits with 2 and every problem if not.

    In Python: Configuration.load().check().
    """
    configuration = configured(config_file, settings)
    problems = configuration.problems()
    if as_json:
        click.echo(json.dumps({"is_valid": not problems, "problems": problems}))
        if problems:
            raise SystemExit(2)
        return
    configuration.check()
    click.echo("the configuration is valid")


def _lines(prefix: str, document: dict[str, Any], *, with_origin: bool) -> list[str]:
    lines: list[str] = []
    for name, item in document.items():
        key = f"{prefix}.{name}"
        values = cast("dict[str, Any]", item)
        if set(values) == {"value", "origin"} and not isinstance(values["value"], dict):
            note = f"  # {values['origin']}" if with_origin else ""
            lines.append(f"{key} = {json.dumps(values['value'], ensure_ascii=False)}{note}")
        else:
            lines += _lines(key, values, with_origin=with_origin)
    return lines
