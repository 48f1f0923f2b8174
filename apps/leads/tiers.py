"""What a wallet's tier allows: how much may be started, how long a job may take, what it may cost us. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class TierLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one tier."""

    per_minute: int
    per_hour: int
    per_day: int
    parallel: int
    """Jobs that are not over, at the same time."""
    run_max_s: float
    """How long one run of a job may take."""
    cost_max_usd: float
    """What one job may cost us at providers."""


TIERS = {
    "free": TierLimits(per_minute=5, per_hour=20, per_day=50, parallel=1, run_max_s=60, cost_max_usd=0.5),
    "starter": TierLimits(per_minute=20, per_hour=100, per_day=500, parallel=3, run_max_s=300, cost_max_usd=2),
    "pro": TierLimits(per_minute=60, per_hour=500, per_day=2000, parallel=10, run_max_s=600, cost_max_usd=10),
    "enterprise": TierLimits(per_minute=200, per_hour=2000, per_day=10_000, parallel=50, run_max_s=1800, cost_max_usd=100),
}  # fmt: skip


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one run of a job. Its payment decides them: what becomes of the wallet's tier later changes nothing."""

    tier: str
    """Which has paid; empty: nobody pays, so no tier limits it."""
    time_max_s: float
    is_time_of_tier: bool = False
    """False: the time is that of the kind of work, the same in every tier."""
    cost_max_usd: float | None
    """Of the job, at providers; None: no limit."""


def run_limits(tier: str, tiers: Mapping[str, TierLimits], *, time_max_s: float, time_min_s: float = 0.0) -> RunLimits:
    """Limits of a run that is paid by a wallet of this tier.

    Args:
        tier: Empty: nobody pays.
        time_max_s: For this kind of work, whatever the tier.
        time_min_s: What the price promises, whatever the tier.
    """
    if tier not in tiers:
        return RunLimits(tier="", time_max_s=time_max_s, cost_max_usd=None)
    time_s = min(max(tiers[tier].run_max_s, time_min_s), time_max_s)
    return RunLimits(
        tier=tier,
        time_max_s=time_s,
        is_time_of_tier=time_s == tiers[tier].run_max_s,
        cost_max_usd=tiers[tier].cost_max_usd,
    )
