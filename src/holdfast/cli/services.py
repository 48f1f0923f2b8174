"""`holdfast services`: what a running engine offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.output import admin_option, json_option, show

if TYPE_CHECKING:
    from rich.table import Table

_KINDS = {"Service": "service", "VirtualObject": "virtual object", "Workflow": "workflow"}


@click.group()
def services() -> None:
    """What the engine serves."""


@services.command("list")
@admin_option
@json_option
def list_services(admin_url: str, as_json: bool) -> None:
    """Services with their handlers.

    In Python: AdminClient.services.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url) as admin:
        found = admin.services()
    show(found, as_json, lambda: services_table(found))


def services_table(found: list[dict[str, Any]]) -> Table:
    """One row per handler, from `ServiceMetadata` documents."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("SERVICE", "KIND", "HANDLER", "TAKES", "RETURNS"):
        table.add_column(column, no_wrap=True)
    for service in found:
        name, kind = service["name"], _KINDS[service["ty"]]
        handlers: list[dict[str, Any]] = service["handlers"] or [{}]
        for handler in handlers:
            table.add_row(name, kind, _handler(service, handler), _io(handler, "input"), _io(handler, "output"))
            name = kind = ""
    return table


def _handler(service: dict[str, Any], handler: dict[str, Any]) -> str:
    if not handler:
        return "(none)"
    notes: list[str] = []
    if service["ty"] == "VirtualObject" and handler["ty"] == "Shared":
        notes.append("shared")
    if handler.get("ty") == "Workflow":
        notes.append("once per key")
    if not handler["public"]:
        notes.append("private")
    return f"{handler['name']} ({', '.join(notes)})" if notes else str(handler["name"])


def _io(handler: dict[str, Any], side: str) -> str:
    return str(handler.get(f"{side}_description", "")).removeprefix("JSON ").replace("none", "-")
