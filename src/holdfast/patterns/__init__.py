"""Patterns for durable handlers, on the public restate-sdk only: they run on the embedded engine and on Restate."""

from holdfast.patterns.fan_out import Outcome, Progress, batches, fan_out, progress_to_state
from holdfast.patterns.saga import CompensationFailed, FailedCompensation, Saga

__all__ = [
    "CompensationFailed",
    "FailedCompensation",
    "Outcome",
    "Progress",
    "Saga",
    "batches",
    "fan_out",
    "progress_to_state",
]
