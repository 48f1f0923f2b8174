"""`holdfast services`: what a running engine offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from holdfast.cli.output import admin_option, json_option, show, table

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


def services_table(found: list[dict[str, Any]]) -> str:
    """One row per handler, from `ServiceMetadata` documents."""
    rows: list[Sequence[str]] = []
    for service in found:
        name, kind = service["name"], _KINDS[service["ty"]]
        handlers: list[dict[str, Any]] = service["handlers"] or [{}]
        for handler in handlers:
            rows.append((name, kind, _handler(service, handler), _io(handler, "input"), _io(handler, "output")))
            name = kind = ""
    return table(("SERVICE", "KIND", "HANDLER", "TAKES", "RETURNS"), rows)


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
