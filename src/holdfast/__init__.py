"""Durable workflows for Python that start embedded and grow onto Restate."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast import patterns, providers
    from holdfast.config import EngineConfig
    from holdfast.embedded import Engine, SyncEngine
    from holdfast.errors import HoldfastError
    from holdfast.runtime.introspect import InvocationInfo, JournalEntryInfo

__all__ = [
    "Engine",
    "EngineConfig",
    "HoldfastError",
    "InvocationInfo",
    "JournalEntryInfo",
    "SyncEngine",
    "patterns",
    "providers",
]

# Loaded when first asked for: the command line answers `--help` without the engine, the SDK and its HTTP client.
_HOMES = {
    "Engine": "holdfast.embedded",
    "EngineConfig": "holdfast.config",
    "HoldfastError": "holdfast.errors",
    "InvocationInfo": "holdfast.runtime.introspect",
    "JournalEntryInfo": "holdfast.runtime.introspect",
    "SyncEngine": "holdfast.embedded",
}


def __getattr__(name: str) -> Any:
    if name in ("patterns", "providers"):  # so that `import holdfast` is enough for `holdfast.providers.open(…)`
        return import_module(f"holdfast.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
