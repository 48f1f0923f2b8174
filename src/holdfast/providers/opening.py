"""From a name and settings to a provider that is ready; and which ones are open in this process."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.providers import registry
from holdfast.providers.base import WorkflowProvider
from holdfast.providers.configuration import Configuration
from holdfast.providers.router import Router

# The last one opened by each name, while it is open somewhere: what handlers of this process reach.
_open: weakref.WeakValueDictionary[str, WorkflowProvider] = weakref.WeakValueDictionary()


async def open_provider(name: str, *, config: Configuration | None = None, **settings: Any) -> WorkflowProvider:
    """A provider that is ready; close it, or use it as an async context manager.

        provider = await holdfast.providers.open("embedded", db="app.db")
        provider = await holdfast.providers.open("restate", endpoint="http://localhost:8080")

    Settings given here win over environment variables (`HOLDFAST_WORKFLOW_RESTATE_ENDPOINT`), they over `holdfast.toml`,
    it over defaults. docs/providers-configuration.md lists them all.

    Args:
        config: The other sources; None reads environment and file.
        settings: By name, e.g. `endpoint`. What is no setting (`engine=`, `serve=`) goes to the provider as it is.
    Raises:
        ProviderNotFound: no such provider; the message lists those there are.
        InvalidConfiguration: every wrong setting, with what is allowed.
    """
    factory = registry.get(name)
    known = {setting.name for setting in registry.settings(name)}
    others = {key: value for key, value in settings.items() if key not in known}
    flags = {
        f"workflow.{name}.{key}": str(value) if isinstance(value, Path) else value
        for key, value in settings.items()
        if key in known and value is not None
    }
    configuration = (config or Configuration.load()).with_flags(flags, origin=f"argument of open({name!r})")
    provider = await factory.open(configuration.section(name), **others)
    _open[name] = provider
    return provider


async def open_router(config: Configuration | None = None, **others: Mapping[str, Any]) -> Router:
    """All configured providers behind one interface, each workflow at the one its route names.

    Args:
        config: None reads environment and file.
        others: Arguments of `open_provider` for single providers, e.g. `embedded={"engine": engine}`.
    Raises:
        InvalidConfiguration: everything that is wrong in it.
    """
    configuration = config or Configuration.load()
    configuration.check()

    async def open_by_name(name: str) -> WorkflowProvider:
        return await open_provider(name, config=configuration, **others.get(name, {}))

    return Router(configuration, open_by_name)


def opened(name: str) -> WorkflowProvider | None:
    """The provider that this process has open under a name; the last one, if several."""
    return _open.get(name)


_opening: dict[str, asyncio.Lock] = {}
_clients: dict[str, WorkflowProvider] = {}


async def shared(name: str) -> WorkflowProvider:
    """The provider that this process has open, else one opened by configuration that stays open with the process.

    Raises: as `open_provider`.
    """
    found = opened(name)
    if found is not None:
        return found
    async with _opening.setdefault(name, asyncio.Lock()):
        if opened(name) is None:
            _clients[name] = await open_provider(name)
        return _clients[name]
