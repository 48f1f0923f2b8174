"""`holdfast services`: what a running engine offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from holdfast.cli.output import admin_option, json_option, show, table
from holdfast.errors import InvalidRequest

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


@services.command("describe")
@click.argument("name", metavar="SERVICE")
@admin_option
@json_option
def describe_service(name: str, admin_url: str, as_json: bool) -> None:
    """One service: its handlers, its settings, and where it runs.

    In Python: AdminClient.service.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url) as admin:
        found = admin.service(name)
    show(found, as_json, lambda: _description(found))


@services.command("configure")
@click.argument("name", metavar="SERVICE")
@click.option("--public/--private", "public", default=None, help="Whether the ingress may call it.")
@click.option("--idempotency-retention", metavar="TIME", help="Keep results of requests with an idempotency key.")
@click.option("--workflow-retention", metavar="TIME", help="Keep results and state of workflow runs.")
@click.option("--journal-retention", metavar="TIME", help="Keep journals of completed invocations.")
@click.option("--inactivity-timeout", metavar="TIME", help="Ask an attempt that is silent for so long to suspend.")
@click.option("--abort-timeout", metavar="TIME", help="End an attempt that does not, after so long.")
@admin_option
@json_option
def configure_service(
    name: str,
    public: bool | None,
    idempotency_retention: str | None,
    workflow_retention: str | None,
    journal_retention: str | None,
    inactivity_timeout: str | None,
    abort_timeout: str | None,
    admin_url: str,
    as_json: bool,
) -> None:
    """Change settings, until the service is registered again. TIME is like 3h, 1d 12h or 500ms.

    What a handler sets itself stays. Invocations that have started keep their retention.

    In Python: AdminClient.configure_service, Engine.configure_service.
    """
    from holdfast.admin.client import AdminClient

    settings = {
        "idempotency_retention": idempotency_retention,
        "workflow_completion_retention": workflow_retention,
        "journal_retention": journal_retention,
        "inactivity_timeout": inactivity_timeout,
        "abort_timeout": abort_timeout,
    }
    if public is None and not any(settings.values()):
        raise click.UsageError("nothing to change: give a setting, such as --journal-retention 3h")
    for option, text in settings.items():
        _check_duration(option, text)
    with AdminClient(admin_url) as admin:
        found = admin.configure_service(name, public=public, **settings)
    show(found, as_json, lambda: _description(found))


def _check_duration(option: str, text: str | None) -> None:
    from holdfast.protocol.durations import parse_duration_ms

    try:
        parse_duration_ms(text or "0s")
    except ValueError as error:
        name = option.removesuffix("_completion_retention") + "_retention" if "completion" in option else option
        message = f"--{name.replace('_', '-')} {text!r} is no duration: {error}"
        raise InvalidRequest(message, hint="write it like 3h, 1d 12h or 500ms") from None


def _description(found: dict[str, Any]) -> str:
    lines = [f"{found['name']}, {_KINDS[found['ty']]}, {'public' if found['public'] else 'private: for handlers only'}"]
    if "documentation" in found:
        lines.append(found["documentation"])
    lines.append(f"revision {found['revision']}, new invocations run on {found['deployment_id']}")
    keeps = {
        "workflow_completion_retention": "keeps workflow runs",
        "idempotency_retention": "keeps results by idempotency key",
        "journal_retention": "keeps journals",
        "inactivity_timeout": "asks silent attempts to suspend after",
        "abort_timeout": "then ends them after",
    }
    lines += [f"{words} {found[name]}" for name, words in keeps.items() if name in found]
    policy = found["retry_policy"]
    attempts = "for ever" if policy["max_attempts"] is None else f"up to {policy['max_attempts']} attempts"
    lines.append(
        f"retries {attempts}, {policy['initial_interval']} apart at first, growing by {policy['exponentiation_factor']:g} "
        f"to {policy['max_interval']}; then it is {'killed' if policy['on_max_attempts'] == 'Kill' else 'paused'}"
    )
    lines += [note["message"] for note in found.get("info", [])]
    return "\n".join([*lines, "", services_table([found])])


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
