"""`holdfast workflows`: what can be executed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from holdfast.cli.body import read
from holdfast.cli.output import json_option, show, table, talk
from holdfast.cli.providing import Where, provider_options
from holdfast.errors import InvalidRequest

if TYPE_CHECKING:
    from holdfast.providers.types import WorkflowInfo, WorkflowSpec

_Command = TypeVar("_Command", bound=Callable[..., Any])

LIST_LIMIT_DEFAULT = 100
LIST_LIMIT_MAX = 1_000


@click.group()
def workflows() -> None:
    """What can be executed, embedded or on a Restate server."""


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """`name=value` options as a mapping."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE", param_hint=option)
        found[name] = value
    return found


def _spec_options(command: _Command) -> _Command:
    options = [
        click.option("--file", "-f", metavar="FILE", help="The whole spec as JSON; - for standard input. Options win."),
        click.option("--id", "workflow_id", metavar="ID", help="1 to 128 of a-z, 0-9 and hyphen."),
        click.option(
            "--definition", metavar="MODULE:ATTRIBUTE", help="A restate-sdk workflow, service, object or handler."
        ),
        click.option("--handler", help="Which handler an execution invokes, if there are several."),
        click.option("--name", help="For people.  [default: the id]"),
        click.option("--description"),
        click.option("--timeout", metavar="DURATION", help="Time limit of one execution: 30s, 5m, '1h 30m'."),
        click.option("--retry-attempts", type=int, help="Further attempts after a failed one; 0 is one in all."),
        click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True),
        click.option("--provider-config", "provider_config", metavar="NAME=VALUE", multiple=True),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@workflows.command("create")
@_spec_options
@provider_options
@json_option
def create_workflow(where: Where, as_json: bool, **options: Any) -> None:
    """Register a workflow; the same id again changes nothing.

    holdfast workflows create --id hello --definition greeter:greeter

    In Python: WorkflowProvider.create_workflow.
    """
    spec = _spec(where, options)
    result = where.run(lambda provider: provider.create_workflow(spec), may_create=True)
    what = "created" if result.is_new else "was there already; nothing was changed"
    show(
        result.to_json(),
        as_json,
        lambda: f"{result.workflow_id} {what}: {result.provider_type}, service {result.service_name}",
    )
    if not as_json:
        talk(f"start it: holdfast executions start {result.workflow_id}")


@workflows.command("validate")
@_spec_options
@provider_options
@json_option
def validate_workflow(where: Where, as_json: bool, **options: Any) -> None:
    """Check what `create` would be given; nothing is created.

    In Python: WorkflowProvider.validate.
    """
    spec = _spec(where, options)
    where.run(lambda provider: provider.validate(spec), serves=False, may_create=True)
    show({"valid": True, "workflow_id": spec.workflow_id}, as_json, lambda: f"{spec.workflow_id} can be created")


@workflows.command("list")
@click.option("--limit", type=click.IntRange(1, LIST_LIMIT_MAX), default=LIST_LIMIT_DEFAULT, show_default=True)
@click.option("--cursor", help="Go on behind the page before: its next_cursor.")
@provider_options
@json_option
def list_workflows(where: Where, limit: int, cursor: str | None, as_json: bool) -> None:
    """Workflows, in the order of their ids.

    In Python: WorkflowProvider.list_workflows.
    """
    page = where.run(lambda provider: provider.list_workflows(limit=limit, cursor=cursor), serves=False)
    show(page.to_json(), as_json, lambda: _table(page.items) if page.items else "no workflows")
    if page.next_cursor is not None and not as_json:
        talk(f"there are more: --cursor '{page.next_cursor}'")


@workflows.command("show")
@click.argument("workflow_id", metavar="ID")
@provider_options
@json_option
def show_workflow(where: Where, workflow_id: str, as_json: bool) -> None:
    """One workflow, as it is stored.

    In Python: WorkflowProvider.get_workflow.
    """
    info = where.run(lambda provider: provider.get_workflow(workflow_id), serves=False)
    show(info.to_json(), as_json, lambda: _description(info))


@workflows.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Stop running executions first.")
@provider_options
@json_option
def delete_workflow(where: Where, ids: Sequence[str], force: bool, as_json: bool) -> None:
    """Forget workflows; an unknown id succeeds.

    In Python: WorkflowProvider.delete_workflow.
    """

    async def delete(provider: Any) -> None:
        for workflow_id in ids:
            await provider.delete_workflow(workflow_id, force=force)

    where.run(delete)
    show({"deleted": list(ids)}, as_json, lambda: "\n".join(f"{workflow_id} deleted" for workflow_id in ids))


def _spec(where: Where, options: dict[str, Any]) -> WorkflowSpec:
    from holdfast.providers.types import WorkflowSpec

    file = options.pop("file")
    document = {} if file is None else _document(file)
    handler, attempts = options.pop("handler"), options.pop("retry_attempts")
    tags = pairs(options.pop("tags"), "--tag")
    provider_config = pairs(options.pop("provider_config"), "--provider-config")
    document |= {name: value for name, value in options.items() if value is not None}
    if file is None:
        document.setdefault("name", document.get("workflow_id", ""))
    if handler is not None:
        reference: Any = document.get("definition")
        more = cast("dict[str, Any]", reference) if isinstance(reference, dict) else {"reference": reference}
        document["definition"] = {**more, "handler": handler}
    if attempts is not None:
        document["retry_policy"] = {**(document.get("retry_policy") or {}), "max_attempts": attempts}
    for name, given in (("tags", tags), ("provider_config", provider_config)):
        if given:
            document[name] = {**(document.get(name) or {}), **given}
    if where.url is not None and where.provider is not None:  # the other side chooses: tell it which
        document["provider_type"] = where.provider
    return WorkflowSpec.from_json(document)


def _document(file: str) -> dict[str, Any]:
    try:
        document: Any = json.loads(read(file if file == "-" else f"@{file}"))
    except ValueError as error:
        raise InvalidRequest(f"{file} is not JSON: {error}", hint='e.g. {"workflow_id": "hello", …}') from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"{file} is no JSON object", hint='e.g. {"workflow_id": "hello", …}')
    return cast("dict[str, Any]", document)


def _table(found: Sequence[WorkflowInfo]) -> str:
    from holdfast.providers.types import duration_text

    rows = [
        (
            info.workflow_id,
            info.provider_type,
            _reference(info),
            info.service_type.replace("_", " "),
            duration_text(info.timeout) if info.timeout is not None else "-",
            f"{info.created_at:%Y-%m-%d %H:%M:%S}",
        )
        for info in found
    ]
    return table(("ID", "PROVIDER", "DEFINITION", "KIND", "TIMEOUT", "CREATED"), rows)


def _reference(info: WorkflowInfo) -> str:
    return info.definition if isinstance(info.definition, str) else str(info.definition.get("reference", ""))


def _description(info: WorkflowInfo) -> str:
    from holdfast.providers.types import duration_text

    policy = info.retry_policy
    lines = {
        "id": info.workflow_id,
        "name": info.name,
        "description": info.description,
        "definition": f"{_reference(info)}{f' version {info.version}' if info.version else ''}",
        "provider": info.provider_type,
        "service": f"{info.service_name} ({info.service_type.replace('_', ' ')})",
        "handler": info.handler,
        "others": ", ".join(name for name in info.handlers if name != info.handler),
        "timeout": duration_text(info.timeout) if info.timeout is not None else "",
        "retries": f"{policy.max_attempts}, from {duration_text(policy.initial_interval)} to "
        f"{duration_text(policy.max_interval)}, times {policy.backoff_rate:g}"
        if policy is not None
        else "",
        "tags": ", ".join(f"{name}={value}" for name, value in info.tags.items()),
        "settings": ", ".join(f"{name}={value}" for name, value in info.provider_config.items()),
        "deployment": info.deployment_id,
        "created": f"{info.created_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items() if value)
