"""The words of threats and contributors, and what an event makes of a record. Pure."""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec

SEVERITIES = ("none", "low", "medium", "high", "critical")
HOSTS_MAX = 20
"""Kept of the last sighting; all of them are in the campaign's report."""
SOURCES_MAX = 100
"""The last sources of a threat, and the last credits of a contributor, can still be taken back."""
HISTORY_KEEP = 1000
HISTORY_CHUNK = 100

REPUTATION_MAX = 100
REPUTATION_OPEN = 10
"""A key that nobody registered starts low."""
REPUTATION_REGISTERED = 50
REPUTATION_LOCAL = 50
"""Campaigns that recon's operator starts."""
LOCAL = "local"
CONTRIBUTORS = "ContributorReputation"
"""The virtual object; its keys are those of `object_key`."""

SUBMISSION_POINTS = 1
"""What a signed scan earns once its hosts are in the graph."""

ThreatId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Severity = Annotated[str, msgspec.Meta(pattern="^(none|low|medium|high|critical)$")]


class Sighting(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One report of a threat."""

    severity: Severity = "none"
    title: Annotated[str, msgspec.Meta(max_length=500)] = ""
    source: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """What reports it, such as a campaign. The same source again is the same sighting; empty: each is its own."""
    host_count: Annotated[int, msgspec.Meta(ge=0)] = 0
    hosts: Annotated[list[str], msgspec.Meta(max_length=1000)] = msgspec.field(default_factory=list[str])


class ThreatRecord(msgspec.Struct):
    """What is known of a threat. Bounded, however often it is seen: the sightings are in its history."""

    threat_id: str
    severity: str
    title: str
    first_seen_ms: int
    last_seen_ms: int
    updates: int = 0
    """Sightings recorded, those taken back not among them."""
    host_count: int = 0
    """Of the last sighting."""
    hosts: list[str] = msgspec.field(default_factory=list[str])
    sources: list[str] = msgspec.field(default_factory=list[str])
    """The last ones, newest last."""


class ThreatEvent(msgspec.Struct, omit_defaults=True):
    """An entry of a threat's history."""

    at_ms: int
    kind: str
    """`seen` or `retracted`."""
    source: str = ""
    severity: str = "none"
    host_count: int = 0


class ThreatAnswer(msgspec.Struct):
    """A threat with the newest part of its history."""

    threat: ThreatRecord
    history: list[ThreatEvent]
    """The oldest first."""
    archived: int
    """Entries that are in the archive, not here."""


def see(known: ThreatRecord | None, threat_id: str, sighting: Sighting, at_ms: int) -> ThreatRecord | None:
    """The record after a sighting, or None if this source is known already.

    A severity or title once known is replaced by a newer one, never by nothing; time never goes back.
    """
    record = known or ThreatRecord(threat_id, "none", "", at_ms, at_ms)
    if sighting.source and sighting.source in record.sources:
        return None
    return msgspec.structs.replace(
        record,
        severity=sighting.severity if sighting.severity != "none" else record.severity,
        title=sighting.title or record.title,
        last_seen_ms=max(record.last_seen_ms, at_ms),
        updates=record.updates + 1,
        host_count=sighting.host_count or len(sighting.hosts),
        hosts=sighting.hosts[:HOSTS_MAX],
        sources=[*record.sources, *filter(None, [sighting.source])][-SOURCES_MAX:],
    )


def retract(known: ThreatRecord | None, source: str) -> ThreatRecord | None:
    """The record after a source has taken its sighting back, or None if it had made none."""
    if known is None or not source or source not in known.sources:
        return None
    return msgspec.structs.replace(
        known, updates=known.updates - 1, sources=[one for one in known.sources if one != source]
    )


class Credit(msgspec.Struct):
    """Points that a contribution earns: reserved first, then confirmed, or released."""

    credit_id: str
    points: Annotated[int, msgspec.Meta(ge=0, le=REPUTATION_MAX)]
    is_confirmed: bool = False


class Contributor(msgspec.Struct):
    """What a contributor has earned. Bounded: older credits are in its history only, those of jobs with the jobs."""

    key: str
    """A scanner's public key, base64; or `local`."""
    reputation: int
    """0 to `REPUTATION_MAX`. At 0 nothing more is taken from it."""
    contributions: int = 0
    penalties: int = 0
    credits: list[Credit] = msgspec.field(default_factory=list[Credit])
    """The last ones, newest last."""


class Penalty(msgspec.Struct, forbid_unknown_fields=True):
    """What a contributor loses, and why."""

    points: Annotated[int, msgspec.Meta(ge=1, le=REPUTATION_MAX)]
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class NotTrusted(Exception):
    """The contributor's reputation is used up."""


class TooManyOpen(Exception):
    """Too many credits are reserved and neither confirmed nor released."""


def reserve(known: Contributor, credit_id: str, points: int) -> Contributor | None:
    """The contributor with one more reserved credit, or None if this one is known.

    Raises:
        NotTrusted: nothing is taken from this contributor any more.
        TooManyOpen: wait until others are confirmed.
    """
    if any(each.credit_id == credit_id for each in known.credits):
        return None
    if known.reputation <= 0:
        raise NotTrusted(f"contributor {known.key} has no reputation left")
    kept = list(known.credits)
    if len(kept) >= SOURCES_MAX:
        oldest_confirmed = next((each for each in kept if each.is_confirmed), None)
        if oldest_confirmed is None:
            raise TooManyOpen(f"contributor {known.key} has {len(kept)} open credits")
        kept.remove(oldest_confirmed)
    return msgspec.structs.replace(known, credits=[*kept, Credit(credit_id, points)])


def confirm(known: Contributor, credit_id: str) -> Contributor | None:
    """The contributor after a reserved credit counts, or None if it is unknown or counts already."""
    credit = next((each for each in known.credits if each.credit_id == credit_id), None)
    if credit is None or credit.is_confirmed:
        return None
    return msgspec.structs.replace(
        known,
        reputation=min(REPUTATION_MAX, known.reputation + credit.points),
        contributions=known.contributions + 1,
        credits=[
            Credit(credit_id, credit.points, is_confirmed=True) if each is credit else each for each in known.credits
        ],
    )


def earn(known: Contributor, credit_id: str, points: int) -> Contributor | None:
    """The contributor with a credit that counts at once; None if it is known, or nothing is taken from it any more.

    Raises:
        TooManyOpen: wait until others are confirmed.
    """
    try:
        reserved = reserve(known, credit_id, points)
    except NotTrusted:
        return None
    return None if reserved is None else confirm(reserved, credit_id)


def release(known: Contributor, credit_id: str) -> Contributor | None:
    """The contributor without that credit, whether it counted already or not; None if it is unknown."""
    credit = next((each for each in known.credits if each.credit_id == credit_id), None)
    if credit is None:
        return None
    lost = credit.points if credit.is_confirmed else 0
    return msgspec.structs.replace(
        known,
        reputation=max(0, known.reputation - lost),
        contributions=known.contributions - credit.is_confirmed,
        credits=[each for each in known.credits if each is not credit],
    )


def penalise(known: Contributor, penalty: Penalty) -> Contributor:
    """The contributor after a penalty."""
    return msgspec.structs.replace(
        known, reputation=max(0, known.reputation - penalty.points), penalties=known.penalties + 1
    )


def object_key(contributor: str) -> str:
    """The key of a contributor's object: base64 has characters with a meaning in paths."""
    return contributor.replace("+", "-").replace("/", "_").rstrip("=")


def public_key(key: str) -> str | None:
    """The public key, base64, that an object's key stands for; None when it is no key."""
    try:
        raw = base64.b64decode(key + "=" * (-len(key) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return base64.b64encode(raw).decode() if len(raw) == 32 else None
