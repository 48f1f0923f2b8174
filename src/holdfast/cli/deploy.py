"""`holdfast deploy`: files for where an application is to run, applied, and registered with a Restate server."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.deploy_options import (
    admin_token,
    admin_url,
    configured,
    pairs,
    register_options,
    settings_from,
    settings_options,
)
from holdfast.cli.output import json_option, show, talk
from holdfast.loading import load_app, load_reference

if TYPE_CHECKING:
    from holdfast.deploy import DeploySettings
    from holdfast.deploy.register import Address, Registered

# A server that was started together with the application.
_WAIT_S = 60.0


@click.group()
def deploy() -> None:
    """Deploy an application to where a Restate server calls it.

    render writes the files, apply does what they describe and registers the result, register does only that.
    """


@deploy.command()
@settings_options
@click.option("--out", default="", metavar="DIR", help="Write every file below DIR.  [default: print the manifests]")
@json_option
def render(out: str, as_json: bool, **options: Any) -> None:
    """Make the files with which MODULE:APP is deployed, and change nothing else.

    Without --out, what the mechanism's own tool reads goes to stdout: kubectl apply --filename - takes it. With --out, so
    does what an image or package is built from, as files.

    In Python: holdfast.deploy.render.
    """
    from holdfast.deploy import render as rendered
    from holdfast.deploy.project import write

    settings = settings_from(options, out=out)
    _check_application(settings)
    files = rendered(settings)
    if not out:
        document = {"files": [{"path": file.path, "text": file.text} for file in files]}
        manifests = [file for file in files if file.is_manifest]
        marked = [f"# --- {file.path}\n{file.text}" for file in manifests] if len(manifests) > 1 else None
        show(document, as_json, lambda: "\n".join(marked or [file.text for file in manifests]).rstrip("\n"))
        if not files:
            talk("a process of this machine needs no files")
    else:
        written = write(files, Path.cwd())
        show(
            {"files": [{"path": path, "is_changed": is_changed} for path, is_changed in written]},
            as_json,
            lambda: "\n".join(path for path, _ in written),
        )
    if not as_json and (out or not files):
        _talk_next(settings)


@deploy.command()
@settings_options
@register_options
@click.option("--out", default="", metavar="DIR", help="Where the files go.  [default: deploy/<mechanism>]")
@click.option("--bucket", default="", help="Lambda: S3 bucket for the package.")
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="Fargate: of the stack; repeatable."
)
@click.option("--no-register", is_flag=True, help="Leave the registration for later.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do none of it.")
@json_option
def apply(out: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Deploy MODULE:APP, as far as that can be done from here, and register it. Safe to repeat.

    \b
    local        serve it in this process until Ctrl-C
    self-hosted  write the files; docker compose up, where there is Docker
    kubernetes   write the files; kubectl apply, and wait for the new pods
    fargate      create or update a CloudFormation stack of the image
    lambda       build the package, upload it, create or update the stack
    asgi         write the files; the platform's own tool does the rest

    In Python: holdfast.deploy, holdfast.deploy.apply.
    """
    settings = settings_from(options, out=out)
    app = _check_application(settings)
    options["admin_url"] = admin_url(options["admin_url"])
    options["token"] = admin_token(options["token"])
    if dry_run:
        steps = _plan(settings, options)
        show({"steps": steps}, as_json, lambda: "\n".join(steps))
    elif settings.mechanism == "local":
        _serve_local(settings, app, options, as_json)
    else:
        from holdfast.deploy import render as rendered
        from holdfast.deploy.project import write

        for path, is_changed in write(rendered(settings), Path.cwd()):
            talk(f"{'wrote' if is_changed else 'unchanged'} {path}")
        _apply(settings, options, as_json)


@deploy.command()
@settings_options
@register_options
@click.option("--uri", default="", help="Where it is.  [default: where the mechanism puts it]")
@click.option("--arn", default="", help="Lambda: qualified ARN of the function.  [default: of the stack]")
@click.option(
    "--assume-role-arn", default="", help="Lambda: what Restate assumes to invoke it.  [default: of the stack]"
)
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, help="Seconds to wait for the admin API.")
@click.option("--dry-run", is_flag=True, help="Let the server try, and keep nothing.")
@json_option
def register(
    uri: str, arn: str, assume_role_arn: str, wait_s: float, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Tell a Restate server, or an engine, where MODULE:APP is. Safe to repeat.

    In Python: holdfast.deploy.register.register.
    """
    settings = settings_from(options)
    options["admin_url"] = admin_url(options["admin_url"])
    options["token"] = admin_token(options["token"])
    if uri or arn:
        from holdfast.deploy.register import Address

        role = assume_role_arn or (str(configured().get("assume_role_arn") or "") if arn else "")
        headers = pairs("--header", options["headers"])
        address = Address(uri=uri, arn=arn, assume_role_arn=role, use_http_11=options["use_http_11"], headers=headers)
    else:
        address = _address(settings, options, _stack_outputs(settings, options))
    registered = _register(settings, address, options, wait_s=wait_s, dry_run=dry_run)
    show(dict(registered.answer), as_json, lambda: _text(registered, address))
    if not as_json:
        talk("nothing was kept: --dry-run" if dry_run else "new" if registered.is_new else "it was registered already")


def _check_application(settings: DeploySettings) -> Any:
    """Import it here, where a mistake is cheap. What promises to check who calls, must do so."""
    from holdfast.deploy import InvalidDeployment
    from holdfast.endpoint import IDENTITY_KEYS_VARIABLE, refuses_unsigned

    if settings.mechanism in ("kubernetes", "fargate") and not settings.has_registry:
        talk(f"note: {settings.image} names no registry to pull from; name one with --image")
    if settings.mechanism == "asgi" and not settings.identity_keys:
        talk("warning: on the internet and without --identity-key, anybody can run the handlers")
    with _variable(IDENTITY_KEYS_VARIABLE, ",".join(settings.identity_keys)):
        app = load_app(settings.reference)
        is_built_here = load_reference(settings.reference) is not app  # from services, and then with the keys
    if settings.identity_keys and not is_built_here:
        import asyncio

        if not asyncio.run(refuses_unsigned(app, settings.path)):
            raise InvalidDeployment(
                f"{settings.reference} answers anybody, whatever --identity-key says",
                hint=f"restate.app([...], identity_keys=os.environ['{IDENTITY_KEYS_VARIABLE}'].split(','))",
            )
    return app


@contextlib.contextmanager
def _variable(name: str, value: str) -> Generator[None]:
    """The environment as it will be where the application runs."""
    before = os.environ.get(name)
    if value:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _apply(settings: DeploySettings, options: dict[str, Any], as_json: bool) -> None:
    from holdfast.deploy.apply import tools
    from holdfast.deploy.render.kubernetes import kubectl_commands
    from holdfast.deploy.render.selfhosted import compose_command

    project = Path.cwd()
    outputs: Mapping[str, str] = {}
    match settings.mechanism:
        case "self-hosted" if not tools.has_compose():
            talk("there is no docker compose here")
            _talk_next(settings)
            return
        case "self-hosted":
            tools.run(compose_command(settings), project)
        case "kubernetes":
            for command in kubectl_commands(settings):
                tools.run(command, project)
            if settings.operator:
                talk(f"the operator registers it; see: kubectl describe restatedeployment {settings.name}")
                return
        case "fargate":
            outputs = _apply_fargate(settings, options)
        case "lambda":
            outputs = _apply_lambda(settings, options, project)
        case _:
            _talk_next(settings)
            return
    address = _address(settings, options, outputs)
    if options["no_register"]:
        show({"address": address.request()}, as_json, lambda: address.where)
        return
    registered = _register(settings, address, options, wait_s=_WAIT_S)
    show(
        {"address": address.request(), "deployment": dict(registered.answer)},
        as_json,
        lambda: _text(registered, address),
    )


def _apply_fargate(settings: DeploySettings, options: dict[str, Any]) -> Mapping[str, str]:
    from holdfast.deploy import InvalidDeployment
    from holdfast.deploy.apply.aws import Aws
    from holdfast.deploy.render.fargate import fargate_template, stack_name

    parameters = pairs("--parameter", options["parameters"])
    template = fargate_template(settings)
    wanted: dict[str, dict[str, str]] = template["Parameters"]
    if missing := [name for name, told in wanted.items() if "Default" not in told and not parameters.get(name)]:
        hint = "\n        ".join(f"--parameter {name}=…  {wanted[name]['Description']}" for name in missing)
        raise InvalidDeployment(f"the stack needs {', '.join(missing)}", hint=f"add {hint}")
    if unknown := sorted(set(parameters) - set(wanted)):
        raise InvalidDeployment(f"the stack has no parameter {unknown[0]}", hint=f"it has {', '.join(wanted)}")
    stack = Aws(options["region"]).apply_stack(stack_name(settings), template, parameters)
    talk(f"{stack.change} stack {stack.name}")
    return stack.outputs


def _apply_lambda(settings: DeploySettings, options: dict[str, Any], project: Path) -> Mapping[str, str]:
    from holdfast.deploy import InvalidDeployment
    from holdfast.deploy.apply.aws import Aws
    from holdfast.deploy.bundle import build, with_content_revision
    from holdfast.deploy.render.awslambda import lambda_template, stack_name

    if not options["bucket"]:
        raise InvalidDeployment("CloudFormation takes the package from S3", hint="add --bucket, one in the same region")
    aws = Aws(options["region"])
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        bundle = build(settings, project, Path(folder, "package.zip"))
        talk(f"built a package of {bundle.path.stat().st_size / 2**20:.1f} MiB")
        key = aws.upload(bundle, options["bucket"], settings.name)
    settings = with_content_revision(settings, bundle)
    parameters = {"CodeBucket": options["bucket"], "CodeKey": key}
    stack = aws.apply_stack(stack_name(settings), lambda_template(settings), parameters)
    talk(f"{stack.change} stack {stack.name}")
    return stack.outputs


def _serve_local(settings: DeploySettings, app: Any, options: dict[str, Any], as_json: bool) -> None:
    import asyncio
    import json

    from holdfast.deploy.register import Address
    from holdfast.endpoint import Endpoint, run_endpoint
    from holdfast.errors import CannotListen

    async def ready(endpoint: Endpoint) -> None:
        where = endpoint.url if not settings.host else f"http://{settings.host}:{endpoint.port}"
        headers = pairs("--header", options["headers"])
        address = Address(uri=f"{where}{settings.path}", use_http_11=options["use_http_11"], headers=headers)
        registered = None
        if not options["no_register"]:
            # In a thread: the server calls us back while it answers.
            registered = await asyncio.to_thread(_register, settings, address, options)
        if as_json:
            deployment = None if registered is None else dict(registered.answer)
            click.echo(json.dumps({"url": endpoint.url, "deployment": deployment}))
        else:
            click.echo(_text(registered, address) if registered else address.where)
            talk("serving until Ctrl-C; a restart with changed code registers it again")

    try:
        asyncio.run(run_endpoint(app, host="127.0.0.1", port=settings.port, on_ready=ready))
    except OSError as error:
        raise CannotListen(error.strerror or str(error), hint="choose another --port, or 0 for a free one") from error


def _stack_outputs(settings: DeploySettings, options: dict[str, Any]) -> Mapping[str, str]:
    if settings.mechanism not in ("lambda", "fargate"):
        return {}
    from holdfast.deploy.apply.aws import Aws
    from holdfast.deploy.render import awslambda, fargate

    module = awslambda if settings.mechanism == "lambda" else fargate
    return Aws(options["region"]).outputs(module.stack_name(settings))


def _address(settings: DeploySettings, options: dict[str, Any], outputs: Mapping[str, str]) -> Address:
    from holdfast.deploy.register import address_of

    return address_of(
        settings, outputs, headers=pairs("--header", options["headers"]), use_http_11=options["use_http_11"]
    )


def _register(
    settings: DeploySettings, address: Address, options: dict[str, Any], *, wait_s: float = 0.0, dry_run: bool = False
) -> Registered:
    from holdfast.deploy.register import register as send

    # While somebody develops, the code under one address changes all the time.
    force = settings.mechanism == "local" if options["force"] is None else options["force"]
    return send(
        options["admin_url"],
        address,
        token=options["token"],
        force=force,
        breaking=options["breaking"],
        dry_run=dry_run,
        wait_s=wait_s,
    )


def _plan(settings: DeploySettings, options: dict[str, Any]) -> list[str]:
    from holdfast.deploy import render as rendered
    from holdfast.deploy.steps import plan

    register_with = "" if options["no_register"] else options["admin_url"]
    return plan(settings, rendered(settings), register_with=register_with, bucket=options["bucket"])


def _text(registered: Registered, address: Address) -> str:
    return "\n".join(
        (
            f"deployment  {registered.id}",
            f"address     {address.where}",
            f"services    {', '.join(registered.services)}",
        )
    )


def _talk_next(settings: DeploySettings) -> None:
    from holdfast.deploy.steps import next_steps

    talk("next:")
    for step in next_steps(settings):
        talk(f"  {step}")
