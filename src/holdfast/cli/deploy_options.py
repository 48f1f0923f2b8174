"""Options of `holdfast deploy`, and the settings that they make together with the project and `holdfast.toml`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.admin.api import ADMIN_URL, INGRESS_URL

if TYPE_CHECKING:
    from holdfast.deploy import DeploySettings

_Command = TypeVar("_Command", bound=Callable[..., Any])

# Named here as well, so that `holdfast --help` does not import the renderers; a test compares.
MECHANISMS = ("local", "self-hosted", "kubernetes", "fargate", "lambda", "asgi")
PLATFORMS = ("fly", "railway", "vercel")

_CONFIGURED = ("endpoint", "admin_endpoint", "execution_mechanism", "api_key", "assume_role_arn")

_SETTINGS_OPTIONS = [
    click.option(
        "--mechanism",
        type=click.Choice(MECHANISMS),
        help="Where it runs.  [default: workflow.restate.execution_mechanism of holdfast.toml, else local]",
    ),
    click.option("--name", default="", help="Of everything that is made.  [default: from the module]"),
    click.option("--image", default="", help="Container image, with a tag or digest."),
    click.option(
        "--revision", default="", help="Of the code; each has an address of its own.  [default: the image's tag]"
    ),
    click.option("--python", "python", default="", help="3.11, 3.12 or 3.13.  [default: 3.13]"),
    click.option(
        "--requirements",
        multiple=True,
        help="Requirement file; repeatable.  [default: requirements.txt, if there is one]",
    ),
    click.option(
        "--package", "packages", multiple=True, help="Another argument of pip install, e.g. '.[extra]'; repeatable."
    ),
    click.option(
        "--include",
        multiple=True,
        help="File or folder of the application; repeatable.  [default: the module's top-level package]",
    ),
    click.option("--host", default="", help="Name under which Restate reaches it, where the mechanism gives none."),
    click.option("--port", type=click.IntRange(0, 65535), default=None, help="[default: 9080]"),
    click.option("--path", default="", help="Where it is mounted, e.g. /restate."),
    click.option(
        "--identity-key", "identity_keys", multiple=True, help="Public key of a Restate server that may call."
    ),
    click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="Environment variable; repeatable."),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME",
        help="Variable from the platform's secret store; repeatable.",
    ),
    click.option(
        "--data", default="", metavar="PATH", help="A folder that outlives the process; then --replicas is 1."
    ),
    click.option("--replicas", type=click.IntRange(1), default=None, help="[default: 2]"),
    click.option(
        "--max-replicas", "replicas_max", type=click.IntRange(1), default=None, help="Kubernetes.  [default: 10]"
    ),
    click.option("--cpu", type=float, default=None, help="Cores.  [default: 0.25]"),
    click.option("--memory", "memory_mib", type=int, default=None, help="MiB.  [default: 512]"),
    click.option("--namespace", default="", help="Kubernetes.  [default: default]"),
    click.option(
        "--operator", default="", metavar="CLUSTER|URL", help="Kubernetes: the Restate operator deploys and registers."
    ),
    click.option("--expose", type=click.Choice(["load-balancer", "service-connect"]), default=None, help="Fargate."),
    click.option(
        "--invoker", default="", metavar="ARN", help="Lambda: whom Restate acts as; it may assume the invoking role."
    ),
    click.option("--external-id", default="", help="Lambda: what Restate must name when it assumes the role."),
    click.option(
        "--timeout",
        "timeout_s",
        type=int,
        default=None,
        help="Lambda, Vercel: longest attempt, seconds.  [default: 60]",
    ),
    click.option(
        "--platform", "platforms", multiple=True, type=click.Choice(PLATFORMS), help="asgi; repeatable.  [default: all]"
    ),
]

_REGISTER_OPTIONS = [
    click.option(
        "--admin-url",
        envvar="HOLDFAST_ADMIN_URL",
        show_envvar=True,
        help=f"Admin API of the Restate server or engine.  [default: of holdfast.toml, else {ADMIN_URL}]",
    ),
    click.option(
        "--token", envvar="HOLDFAST_ADMIN_TOKEN", show_envvar=True, default="", help="Where the admin API asks for one."
    ),
    click.option(
        "--header", "headers", multiple=True, metavar="NAME=VALUE", help="Restate sends it with every request."
    ),
    click.option("--http1", "use_http_11", is_flag=True, help="Restate speaks HTTP/1.1 to it."),
    click.option(
        "--force/--no-force", default=None, help="Discover again what is registered.  [default: only with local]"
    ),
    click.option("--breaking", is_flag=True, help="Accept changes that break callers."),
    click.option("--region", default=None, help="AWS.  [default: as configured for AWS tools]"),
]


def settings_options(command: _Command) -> _Command:
    """Options that describe the application and where it runs."""
    return _with(_SETTINGS_OPTIONS, click.argument("reference", metavar="MODULE:APP")(command))


def register_options(command: _Command) -> _Command:
    """Options of a registration."""
    return _with(_REGISTER_OPTIONS, command)


def _with(options: Sequence[Callable[[Any], Any]], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def settings_from(options: dict[str, Any], *, out: str = "") -> DeploySettings:
    """Settings of options, which are taken out of `options`, completed by the project in the current directory.

    Raises:
        InvalidDeployment: they are not valid together.
    """
    from holdfast.deploy import DeploySettings
    from holdfast.deploy.project import included, out_folder, requirements_of, sources_of

    project = Path.cwd()
    known = {field.name for field in fields(DeploySettings)} | {"include"}
    given = {name: options.pop(name) for name in list(options) if name in known}
    reference = given.pop("reference")
    # What was not given has the default of the settings, which are the one place for defaults.
    values = {name: value for name, value in given.items() if value not in (None, "", ())}
    values["mechanism"] = values.get("mechanism") or configured().get("execution_mechanism") or "local"
    values["environment"] = pairs("--env", values.get("environment", ()))
    values["requirements"] = requirements_of(values.get("requirements", ()), project)
    include = values.pop("include", ())
    values["sources"] = included(include, project) if include else sources_of(reference, project)
    if values.get("data") and "replicas" not in values:
        values["replicas"] = 1
    if out:
        values["out"] = out_folder(out, project)
    return DeploySettings(reference=reference, **values)


def pairs(flag: str, given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` of a repeatable option."""
    from holdfast.deploy import InvalidDeployment

    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidDeployment(f"{flag} {text}: not NAME=VALUE")
        found[name] = value
    return found


def configured() -> dict[str, Any]:
    """What `workflow.restate` of the configuration says that a deployment can use: only what somebody has written there.

    Raises:
        InvalidConfiguration: it is wrong.
    """
    from holdfast.providers.configuration import Configuration

    configuration = Configuration.load()
    keys = {name: f"workflow.restate.{name}" for name in _CONFIGURED}
    written = [name for name, key in keys.items() if configuration.origin(key) != "default"]
    if not written:
        return {}
    if "endpoint" not in written:  # needed to call workflows, not to deploy them
        configuration = configuration.with_flags({keys["endpoint"]: INGRESS_URL})
    section = configuration.section("restate")
    return {name: section[name] for name in written}


def admin_url(given: str | None) -> str:
    """The flag, else the configured admin API, else the usual port of this machine."""
    if given:
        return given
    section = configured()
    if section.get("admin_endpoint"):
        return str(section["admin_endpoint"])
    if section.get("endpoint"):
        from holdfast.providers.restate import default_admin_endpoint

        return default_admin_endpoint(str(section["endpoint"]))
    return ADMIN_URL


def admin_token(given: str) -> str:
    """The flag or variable, else the configured API key."""
    return given or str(configured().get("api_key") or "")
