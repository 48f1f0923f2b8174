"""Modules that a platform imports: they find the application and hand it over under the name that the platform wants."""

from __future__ import annotations

from holdfast.deploy.settings import DeploySettings
from holdfast.endpoint import IDENTITY_KEYS_VARIABLE

LAMBDA_MODULE = "lambda_handler"


def lambda_module(settings: DeploySettings) -> str:
    """What AWS Lambda imports. There `restate.app()` returns a handler instead of an ASGI application, as the SDK sees from
    `AWS_LAMBDA_FUNCTION_NAME`."""
    return f'''"""AWS Lambda calls `handler`; a Restate server is what invokes the function. Rendered by holdfast deploy."""

import inspect
import os

import restate
{_keys(settings)}{_imported(settings)}
if isinstance(target, (restate.Service, restate.VirtualObject, restate.Workflow)):
    target = [target]
if isinstance(target, (list, tuple)):
    keys = os.environ.get("RESTATE_IDENTITY_KEYS")
    target = restate.app(target, identity_keys=keys.split(",") if keys else None)
if not inspect.isfunction(target) or inspect.iscoroutinefunction(target):
    raise TypeError("on Lambda {settings.reference} must be what restate.app([...]) returns, or services")
handler = target
'''


def asgi_module(settings: DeploySettings) -> str:
    """What an HTTP platform that runs ASGI applications by itself imports."""
    return f'''"""`app` is the ASGI application that a Restate server calls. Rendered by holdfast deploy."""

import os

import restate
{_keys(settings)}{_imported(settings)}
if isinstance(target, (restate.Service, restate.VirtualObject, restate.Workflow)):
    target = [target]
if isinstance(target, (list, tuple)):
    keys = os.environ.get("RESTATE_IDENTITY_KEYS")
    target = restate.app(target, identity_keys=keys.split(",") if keys else None)
app = target
'''


def _keys(settings: DeploySettings) -> str:
    """Public keys are no secrets. Here they hold even where nobody has set the platform's variable."""
    if not settings.identity_keys:
        return ""
    keys = ",".join(settings.identity_keys)
    return (
        "\n# Before the application is imported, which may read it.\n"
        f'os.environ.setdefault("{IDENTITY_KEYS_VARIABLE}", "{keys}")\n'
    )


def _imported(settings: DeploySettings) -> str:
    name, _, rest = settings.attribute.partition(".")
    nested = f"\ntarget = target.{rest}" if rest else ""
    return f"from {settings.module} import {name} as target\n{nested}".rstrip("\n") + "\n"
