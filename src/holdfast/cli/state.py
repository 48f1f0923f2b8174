"""`holdfast state`: what objects and workflows keep under their keys."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.admin.render import encoded_bytes, state_values
from holdfast.cli import body
from holdfast.cli.output import admin_option, json_option, show, table, talk
from holdfast.errors import EngineError, InvalidRequest

if TYPE_CHECKING:
    from holdfast.admin.client import AdminClient

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def state() -> None:
    """State of virtual objects and workflows. TARGET is Object/key."""


def _options(command: _Command) -> _Command:
    return click.argument("target")(admin_option(json_option(command)))


def _wait_option(command: _Command) -> _Command:
    # Long enough for a key that is free, short enough not to seem stuck on one that is not.
    option = click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(min=0),
        default=3.0,
        show_default=True,
        help="Seconds to wait for a handler that holds the key; the change stays queued behind it.",
    )
    return option(command)


@state.command("get")
@_options
@click.argument("name", required=False)
def get_state(target: str, name: str | None, admin_url: str, as_json: bool) -> None:
    """Print one value, or all of them.

    In Python: AdminClient.state.
    """
    from holdfast.admin.client import AdminClient

    service, key = _target(target)
    with AdminClient(admin_url) as admin:
        values = admin.state(service, key)
    if name is None:
        show(state_values(values), as_json, lambda: _table(values))
        return
    if name not in values:
        hint = f"what there is: holdfast state get {target}"
        raise InvalidRequest(f"{target} has no state named {name!r}", status=404, hint=hint)
    if as_json:
        click.echo(json.dumps(encoded_bytes(values[name])))
        return
    click.echo(values[name], nl=not values[name].endswith(b"\n"))


@state.command("set")
@_options
@_wait_option
@click.argument("name")
@click.argument("value")
@click.option("--raw", is_flag=True, help="VALUE need not be JSON (handlers read JSON unless they name a serde).")
def set_state(target: str, name: str, value: str, raw: bool, wait_s: float, admin_url: str, as_json: bool) -> None:
    """Set one value, once no handler holds the key.

    VALUE is JSON, @FILE, or - for standard input.

    In Python: AdminClient.set_state.
    """
    content = body.read(value)
    if not raw:
        body.check_json(content, otherwise="--raw")
    _change(admin_url, target, lambda values: values | {name: content}, wait_s, as_json)


@state.command("clear")
@_options
@_wait_option
@click.argument("names", nargs=-1)
def clear_state(target: str, names: tuple[str, ...], wait_s: float, admin_url: str, as_json: bool) -> None:
    """Remove the named values, or all of them.

    In Python: AdminClient.set_state.
    """

    def without(values: dict[str, bytes]) -> dict[str, bytes]:
        if unknown := [name for name in names if name not in values]:
            hint = f"what there is: holdfast state get {target}"
            raise InvalidRequest(f"{target} has no state named {unknown[0]!r}", status=404, hint=hint)
        return {name: value for name, value in values.items() if names and name not in names}

    _change(admin_url, target, without, wait_s, as_json)


def _change(
    admin_url: str,
    target: str,
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    wait_s: float,
    as_json: bool,
) -> None:
    from holdfast.admin.client import AdminClient
    from holdfast.core.results import state_version

    service, key = _target(target)
    with AdminClient(admin_url) as admin:
        before = admin.state(service, key)
        after = change(before)
        if after != before:
            # What a handler wrote since we looked must not be lost: then our change is dropped and we say so.
            admin.set_state(service, key, after, version=state_version(list(before.items())))
            _wait_until_applied(admin, service, key, after, wait_s)
    show(state_values(after), as_json, lambda: _table(after))
    talk(f"{target}: {_difference(before, after)}")


def _wait_until_applied(admin: AdminClient, service: str, key: str, expected: dict[str, bytes], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while admin.state(service, key) != expected:
        if time.monotonic() > deadline:
            message = f"{service}/{key} is not changed yet: a handler holds the key, or has changed it meanwhile"
            holder = f"holdfast invocations list --service {service} --key {key}"
            raise EngineError(
                message, hint=f"what it is now: holdfast state get {service}/{key}; who holds it: {holder}"
            )
        time.sleep(0.05)


def _target(text: str) -> tuple[str, str]:
    service, slash, key = text.partition("/")
    if not slash or not service or not key:
        raise InvalidRequest(f"{text!r} names no key", hint="write Object/key; objects: holdfast services list")
    return service, key


def _difference(before: dict[str, bytes], after: dict[str, bytes]) -> str:
    changes = [f"set {name}" for name in after if before.get(name) != after[name]]
    changes += [f"cleared {name}" for name in before if name not in after]
    return ", ".join(changes) or "nothing to change"


def _table(values: dict[str, bytes]) -> str:
    shown = {name: encoded_bytes(value) for name, value in sorted(values.items())}
    rows = [(name, value["utf8"] if "utf8" in value else f"base64:{value['base64']}") for name, value in shown.items()]
    return table(("NAME", "VALUE"), rows) if rows else "(empty)"
