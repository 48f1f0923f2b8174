"""Patterns for durable handlers, on the public restate-sdk only: they run on the embedded engine and on Restate."""

from holdfast.patterns.approval import Decision, ask_for_approval, decide, decision, wait_for_approval
from holdfast.patterns.archive import BoundedLog
from holdfast.patterns.cache import Cache
from holdfast.patterns.external import EXTERNAL_CALL, ONE_ATTEMPT, UNTIL_DONE, idempotency_key, raise_for_status
from holdfast.patterns.fan_out import Outcome, Progress, batches, fan_out, progress_to_state
from holdfast.patterns.guard import guarded
from holdfast.patterns.jobs import JobTracker
from holdfast.patterns.limits import RateLimiter, Semaphore
from holdfast.patterns.pitfalls import Finding
from holdfast.patterns.saga import CompensationFailed, FailedCompensation, Saga
from holdfast.patterns.schedules import Firing, Schedules
from holdfast.patterns.ticker import Ticker

__all__ = [
    "EXTERNAL_CALL",
    "ONE_ATTEMPT",
    "UNTIL_DONE",
    "BoundedLog",
    "Cache",
    "CompensationFailed",
    "Decision",
    "FailedCompensation",
    "Finding",
    "Firing",
    "JobTracker",
    "Outcome",
    "Progress",
    "RateLimiter",
    "Saga",
    "Schedules",
    "Semaphore",
    "Ticker",
    "ask_for_approval",
    "batches",
    "decide",
    "decision",
    "fan_out",
    "guarded",
    "idempotency_key",
    "progress_to_state",
    "raise_for_status",
    "wait_for_approval",
]
