"""Does a vulnerability record apply to what was found? Configurations of the NVD, version ranges included. Pure.

A record lists configurations; one that applies is enough. A configuration combines nodes by AND or OR, a node combines
criteria. A criterion is a CPE with wildcards, and may limit the version by a range.

A scan sees a service, seldom the machine below it. So a configuration like "this program AND Windows" is neither true
nor false: it counts as `conditional`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal

import msgspec

from apps.recon.enrich.cpe import ANY, NONE, Cpe, NotACpe, parse_cpe
from apps.recon.enrich.versions import compare_versions


class Applies(IntEnum):
    """How far something applies; the order is the strength."""

    NO = 0
    CONDITIONAL = 1
    """If the part that a scan cannot see is as the record says."""
    YES = 2


_UNSEEN = ("edition", "language", "sw_edition", "target_sw", "target_hw", "other")

CONDITIONAL_FACTOR = 0.5
"""What a condition that could not be checked leaves of the confidence."""


class Criterion(msgspec.Struct, rename="camel"):
    """`cpeMatch` of the NVD API 2.0."""

    criteria: str
    vulnerable: bool = True
    version_start_including: str | None = None
    version_start_excluding: str | None = None
    version_end_including: str | None = None
    version_end_excluding: str | None = None


class Node(msgspec.Struct, rename="camel"):
    operator: Literal["AND", "OR"] = "OR"
    negate: bool = False
    cpe_match: list[Criterion] = []


class Configuration(msgspec.Struct, rename="camel"):
    operator: Literal["AND", "OR"] = "OR"
    negate: bool = False
    nodes: list[Node] = []


def applies(configurations: Sequence[Configuration], cpe: Cpe) -> Applies:
    """How far a record with these configurations applies to `cpe`.

    A name without a version applies to nothing: it would match whatever was ever said about the product.
    """
    if not cpe.has_version:
        return Applies.NO
    return max((_configuration(each, cpe) for each in configurations), default=Applies.NO)


def criterion_applies(criterion: Criterion, cpe: Cpe) -> Applies:
    """How far one criterion applies to one name, its version range included."""
    try:
        pattern = parse_cpe(criterion.criteria)
    except NotACpe:
        return Applies.NO
    if (pattern.part, pattern.vendor, pattern.product) != (cpe.part, cpe.vendor, cpe.product):
        return Applies.NO
    if not (_version_fits(pattern, cpe) and _in_range(criterion, cpe.version)):
        return Applies.NO
    # Edition, language and target: a scan does not see them, so a criterion that names one is a condition.
    rest = [(getattr(pattern, name), getattr(cpe, name)) for name in _UNSEEN]
    if any(wanted not in (ANY, NONE, seen) and seen != ANY for wanted, seen in rest):
        return Applies.NO
    return Applies.CONDITIONAL if any(wanted not in (ANY, NONE, seen) for wanted, seen in rest) else Applies.YES


def _configuration(configuration: Configuration, cpe: Cpe) -> Applies:
    results = [_node(node, cpe) for node in configuration.nodes]
    best = max(results, default=Applies.NO)
    if configuration.negate or best is Applies.NO:
        return Applies.NO  # a negated configuration says where the vulnerability is not
    return _combined(configuration.operator, results)


def _node(node: Node, cpe: Cpe) -> Applies:
    results = [criterion_applies(each, cpe) if each.vulnerable else Applies.NO for each in node.cpe_match]
    return Applies.NO if node.negate else _combined(node.operator, results)


def _combined(operator: str, results: Sequence[Applies]) -> Applies:
    """OR is the best of them. AND with anything in it that is not this service is a condition."""
    best = max(results, default=Applies.NO)
    if operator == "AND" and best is Applies.YES and min(results) is Applies.NO:
        return Applies.CONDITIONAL
    return best


def _version_fits(pattern: Cpe, cpe: Cpe) -> bool:
    if pattern.version == ANY:
        return True
    if pattern.version == NONE or compare_versions(pattern.version, cpe.version) != 0:
        return False
    # A version without an update is the plain release. A criterion with one means exactly that update.
    return pattern.update in (ANY, NONE if cpe.update == ANY else cpe.update)


def _in_range(criterion: Criterion, version: str) -> bool:
    bounds = (
        (criterion.version_start_including, (0, 1)),
        (criterion.version_start_excluding, (1,)),
        (criterion.version_end_including, (-1, 0)),
        (criterion.version_end_excluding, (-1,)),
    )
    return all(bound is None or compare_versions(version, bound) in allowed for bound, allowed in bounds)
