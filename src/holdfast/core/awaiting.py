"""What a suspended invocation waits for: resolve leaves until the tree is satisfied.

A leaf is what `messages.notification_leaf` gives: a completion id in a 1-tuple, a signal index, or a signal name.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from holdfast.protocol.messages import Awaited

Leaf = int | str | tuple[int]

ALL = 2
"""The one combinator that needs more than a single leaf."""


def resolve(tree: Awaited, leaf: Leaf) -> Awaited | None:
    """Take one arrived notification out of the tree.

    Returns:
        None when the tree is satisfied, the tree without the leaf when more is needed, or the tree itself.
    """
    if isinstance(leaf, tuple):
        hit = leaf[0] in tree.completions
        pruned = replace(tree, completions=tuple(c for c in tree.completions if c != leaf[0])) if hit else tree
    elif isinstance(leaf, int):
        hit = leaf in tree.signals
        pruned = replace(tree, signals=tuple(s for s in tree.signals if s != leaf)) if hit else tree
    else:
        hit = leaf in tree.names
        pruned = replace(tree, names=_without_first(tree.names, leaf)) if hit else tree
    nested: list[Awaited] = []
    changed = False
    for child in tree.nested:
        rest = resolve(child, leaf)
        changed = changed or rest is not child
        if rest is None:
            hit = True
        else:
            nested.append(rest)
    if not hit and not changed:
        return tree
    if hit and tree.combinator != ALL:
        return None
    pruned = replace(pruned, nested=tuple(nested))
    return None if pruned.is_empty else pruned


def _without_first(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    # Two awaits of one name need two signals.
    at = names.index(name)
    return names[:at] + names[at + 1 :]


def to_json(tree: Awaited) -> str:
    return json.dumps(_plain(tree), separators=(",", ":"))


def from_json(text: str) -> Awaited:
    return _tree(json.loads(text))


def _plain(tree: Awaited) -> list[Any]:
    return [
        list(tree.completions),
        list(tree.signals),
        list(tree.names),
        [_plain(child) for child in tree.nested],
        tree.combinator,
    ]


def _tree(plain: list[Any]) -> Awaited:
    completions, signals, names, nested, combinator = plain
    return Awaited(
        tuple(completions), tuple(signals), tuple(names), tuple(_tree(child) for child in nested), combinator
    )
