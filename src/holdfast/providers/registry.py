"""Providers by name. Two are ours; third parties add theirs as entry points of the group `holdfast.providers`.

    [project.entry-points."holdfast.providers"]
    my-engine = "my_package.provider:FACTORY"        # a `ProviderFactory`

Names are constant: lower-case letters, digits and hyphens. Nothing is imported before a provider is asked for.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from holdfast.providers.base import WorkflowProvider
from holdfast.providers.errors import ProviderConflict, ProviderNotFound
from holdfast.providers.settings import SECTIONS, Setting

GROUP = "holdfast.providers"

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class ProviderFactory:
    """How a provider is opened, and what can be set."""

    open: Callable[..., Awaitable[WorkflowProvider]]
    """`await open(settings, **others)`: typed settings by name, and what only a program can pass, e.g. an engine."""
    settings: tuple[Setting, ...] = ()
    description: str = ""


class Registry:
    """Names and factories. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._factories: dict[str, ProviderFactory | EntryPoint] = {}

    def register(self, name: str, factory: ProviderFactory) -> None:
        """Add a provider.

        Raises:
            ProviderConflict: the name is taken, empty, or of another form.
        """
        if not _NAME.fullmatch(name):
            raise ProviderConflict(f"{name!r} is no name of a provider", hint="lower-case letters, digits and hyphens")
        with self._lock:
            if name in self._factories:
                raise ProviderConflict(f"there is a provider {name!r} already", hint="choose another name")
            self._factories[name] = factory

    def names(self) -> list[str]:
        """All names, sorted."""
        with self._lock:
            return sorted(self._factories)

    def has(self, name: str) -> bool:
        """Whether there is such a provider."""
        with self._lock:
            return name in self._factories

    def get(self, name: str) -> ProviderFactory:
        """
        Raises:
            ProviderNotFound: with the names there are.
        """
        with self._lock:
            found = self._factories.get(name)
            if found is None:
                raise ProviderNotFound(name, self.names())
            if isinstance(found, EntryPoint):
                found = self._factories[name] = _loaded(found)
            return found

    def settings(self, name: str) -> tuple[Setting, ...]:
        """What can be set; of our own providers without importing them.

        Raises:
            ProviderNotFound.
        """
        return SECTIONS[name] if name in SECTIONS and self.has(name) else self.get(name).settings

    def discover(self, found: Mapping[str, EntryPoint]) -> None:
        """Add entry points; a name that is taken stays with whom it belongs to."""
        with self._lock:
            for name, entry_point in found.items():
                if _NAME.fullmatch(name):
                    self._factories.setdefault(name, entry_point)


def _loaded(entry_point: EntryPoint) -> ProviderFactory:
    try:
        factory = entry_point.load()
    except Exception as error:
        raise ProviderConflict(
            f"provider {entry_point.name!r} cannot be loaded from {entry_point.value}: {error}",
            hint="reinstall the package that brings it, or remove it",
        ) from error
    if not isinstance(factory, ProviderFactory):
        raise ProviderConflict(
            f"provider {entry_point.name!r}: {entry_point.value} is no ProviderFactory",
            hint="see docs/providers.md, a provider of your own",
        )
    return factory


def _ours(module: str, function: str) -> Callable[..., Awaitable[WorkflowProvider]]:
    async def open_provider(settings: Mapping[str, Any], **others: Any) -> WorkflowProvider:
        return await getattr(importlib.import_module(f"holdfast.providers.{module}"), function)(settings, **others)

    return open_provider


_registry = Registry()
_registry.register(
    "embedded",
    ProviderFactory(_ours("embedded", "open_embedded"), SECTIONS["embedded"], "an engine in this process, on one file"),
)
_registry.register(
    "restate",
    ProviderFactory(_ours("restate", "open_restate"), SECTIONS["restate"], "a Restate server"),
)
_registry.discover({each.name: each for each in entry_points(group=GROUP)})

register = _registry.register
names = _registry.names
has = _registry.has
get = _registry.get
settings = _registry.settings
