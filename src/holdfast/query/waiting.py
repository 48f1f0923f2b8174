"""What a suspended invocation waits for, as the server's columns show it. Pure."""

from __future__ import annotations

import json
from typing import Any

from holdfast.core import awaiting
from holdfast.protocol.messages import Awaited

_COMBINATORS = {1: "FirstCompleted", 2: "AllCompleted", 3: "FirstSucceededOrAllFailed", 4: "AllSucceededOrFirstFailed"}
_TREES_SINCE = 7
"""Protocol version. Before, an SDK told no more than the leaves."""


def completions(stored: str) -> list[int]:
    """Completion ids that the invocation waits for directly, not as a part of something else."""
    return list(awaiting.from_json(stored).completions)


def signals(stored: str) -> list[int]:
    """The same of signal indexes; 1 is cancel."""
    return list(awaiting.from_json(stored).signals)


def future_json(stored: str, protocol_version: int | None) -> str:
    """The whole tree."""
    tree = awaiting.from_json(stored)
    return json.dumps(_node(tree, knows_trees=(protocol_version or 0) >= _TREES_SINCE), separators=(",", ":"))


def _node(tree: Awaited, *, knows_trees: bool) -> dict[str, Any]:
    leaves = [{"Single": {"CompletionId": completion}} for completion in tree.completions]
    leaves += [{"Single": {"SignalIndex": signal}} for signal in tree.signals]
    names = [{"Single": {"SignalName": name}} for name in tree.names]
    nested = [_node(child, knows_trees=knows_trees) for child in tree.nested]
    combinator = _COMBINATORS.get(tree.combinator, "Unknown") if knows_trees else "Unknown"
    return {combinator: [*leaves, *names, *nested]}
