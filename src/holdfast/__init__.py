"""Durable workflows for Python that start embedded and grow onto Restate."""

from holdfast.config import EngineConfig
from holdfast.embedded import Engine, SyncEngine
from holdfast.errors import HoldfastError
from holdfast.runtime.introspect import InvocationInfo, JournalEntryInfo

__all__ = ["Engine", "EngineConfig", "HoldfastError", "InvocationInfo", "JournalEntryInfo", "SyncEngine"]
